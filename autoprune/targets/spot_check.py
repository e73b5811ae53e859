"""A few answers of a model: part of the key of what is cached for it, since code has no hash."""

from __future__ import annotations

import numpy as np

from autoprune.targets.target import Runner
from autoprune.tasks.task import Batch

SPOTS = 64
"""Numbers of a spot check."""


def spot_check(run: Runner, batch: Batch) -> list[float]:
    """The first answers to a batch, to a few hundredths of the largest: part of the name of what is cached.

    What a model computes depends on code as well as on its tensors and config, and code has no hash: it is
    the user's, with all that it imports. So few digits are the same on any machine.
    """
    logits = run(batch).reshape(-1)[:SPOTS].astype(np.float64)
    largest = float(np.abs(logits).max(initial=0.0))
    return [float(f"{largest:.1e}"), *np.rint(50 * logits / max(largest, 1e-30)).astype(int).tolist()]
