"""Whether an uncompressed model, saved on a target, answers there as it does in torch; else it is refused.

A graph is traced on one batch. What a model's code decides by that batch's shapes or values (a length padded
to whole windows, experts that are chosen) is then part of the graph, and rows of other lengths are answered
wrongly or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.targets.packed import torch_runner
from autoprune.targets.target import IN_TORCH, Target
from autoprune.tasks.task import Batch, Task

_SMALLEST_SPREAD = 0.01
"""Of the largest answer: a spread below it is taken as this, as two equal rows have none."""


def check_same_answers(model: nn.Module, target: Target, folder: Path, task: Task) -> None:
    """Compare a float model that lies in a target's folder with the module, on a few rows of the task.

    Raises:
        AutopruneError: where their answers differ by more than the target's tolerance, or it does not run.
    """
    if target.name in IN_TORCH:
        return
    run, there = target.load(folder), torch_runner(model, task.kind)
    for batch in _batches(task):
        wanted = there(batch)
        what = f"{' by '.join(map(str, next(iter(batch.values())).shape))} inputs"
        try:
            got = run(batch)
        except AutopruneError as error:
            reason = " ".join(str(error).split())
            raise AutopruneError(
                f"{_head(model, target)} does not run there on {what}: {reason:.300}"
            ) from error
        if got.shape != wanted.shape:
            raise AutopruneError(
                f"{_head(model, target)} gives answers {list(got.shape)} there on {what}, and "
                f"{list(wanted.shape)} in torch. {_CURE}"
            )
        spread = max(float(wanted.std()), _SMALLEST_SPREAD * float(np.abs(wanted).max()), 1e-30)
        off = float(np.abs(got - wanted).max()) / spread
        if not off <= target.tolerance:  # nor where it is no number
            raise AutopruneError(
                f"{_head(model, target)} answers otherwise there than in torch on {what}: by {off:.2g} of "
                f"the answers' spread, where {target.tolerance:g} is allowed. {_CURE}"
            )


_CURE = (
    "What its code decides by the shape or the values of its inputs is not in the saved graph. "
    "Choose --target packed, which runs the module itself"
)


def _head(model: nn.Module, target: Target) -> str:
    return f"{type(model).__name__}, saved uncompressed for target {target.name},"


def _batches(task: Task) -> Iterator[Batch]:
    """The longest row alone, and the shortest three: of other lengths and numbers than what is traced."""
    order = np.argsort(task.validation.lengths, kind="stable")
    yield task.batch(task.validation, [int(order[-1])])
    yield task.batch(task.validation, [int(row) for row in order[:3]])
