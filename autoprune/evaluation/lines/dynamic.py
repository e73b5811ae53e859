"""The original with 8-bit weights and inputs that are rounded as they come: its runtime's own quantizer.

What most people do to a network first. The runtime's tool is called with its documented options; nothing is
searched, trained or calibrated.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoprune.evaluation.lines.line import HeldOut, LoadedLine
from autoprune.evaluation.measure import logits_of
from autoprune.evaluation.workbench import Workbench
from autoprune.targets.target import QuantizesDynamically, Runner
from autoprune.tasks.answers import divergence


@dataclass(frozen=True)
class DynamicLine:
    """A line for targets that are `QuantizesDynamically`."""

    @property
    def name(self) -> str:
        return "dynamic 8-bit"

    def fit(self, bench: Workbench, path: Path) -> str:
        """Have the runtime quantize the original's own files, into a folder.

        Raises:
            TypeError: for a target whose runtime has no such tool.
            Exception: as `save_dynamic` raises.
        """
        if not isinstance(bench.target, QuantizesDynamically):
            raise TypeError(f"target {bench.target.name} has no dynamic quantization of its own")
        path.mkdir()
        return bench.target.save_dynamic(bench.original_folder(), path)

    def load(self, bench: Workbench, path: Path) -> LoadedDynamic:
        """The model in a folder, called once."""
        run = bench.target.load(path)
        run(bench.timing_batch)
        return LoadedDynamic(run, bench)


class LoadedDynamic(LoadedLine):
    """A quantized original, as the target runs every model."""

    def __init__(self, run: Runner, bench: Workbench) -> None:
        self._run, self._bench = run, bench

    def score(self, split: HeldOut) -> float:
        """As trials are scored.

        Raises:
            FloatingPointError: for answers that are not finite.
        """
        bench = self._bench
        if split == "test":
            return bench.scored_on_test(self._run).score
        return bench.task.score(bench.task.validation, self._answers, bench.setting.validation_answers)

    def kl(self) -> float:
        return divergence(self._answers, self._bench.setting.validation_answers)

    def call(self) -> NDArray[np.float32]:
        return self._run(self._bench.timing_batch)

    @functools.cached_property
    def _answers(self) -> NDArray[np.float32]:
        """What it answers to validation rows [m k]."""
        bench = self._bench
        task, watched = bench.task, bench.setting.validation_answers.watched
        logits = logits_of(self._run, task, task.validation, watched=watched, room=bench.room.busy)
        if not np.isfinite(logits).all():
            raise FloatingPointError("the model gives logits that are not finite")
        return logits
