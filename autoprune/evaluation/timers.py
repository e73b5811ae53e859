"""Who takes a model's milliseconds: this process, or one on the node that latency is to be timed on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Protocol

from autoprune.evaluation.jobs import ModelRef, PackedModel, TimeModel, TimeTogether, Whereabouts
from autoprune.evaluation.measure import Timing, time_interleaved, time_together
from autoprune.evaluation.workbench import Workbench
from autoprune.targets import Runner
from autoprune.workers.latency_node import Elsewhere


class Timer(Protocol):
    """Times models in turn with the original, with nothing else running on its machine."""

    def time(self, model: ModelRef) -> Timing:
        """A model's milliseconds."""

    def time_loaded(self, run: Runner, model: PackedModel) -> Timing:
        """Those of a model that is loaded in this process, as `run`."""

    def time_together(self, models: Sequence[ModelRef]) -> list[Timing]:
        """Those of several models, in turn with each other too."""

    def machine(self) -> list[str]:
        """What a table of milliseconds belongs to: strings that tell the machine from others."""


class LocalTimer(Timer):
    """Times in this process."""

    def __init__(self, workbench: Workbench) -> None:
        self._workbench = workbench

    def time(self, model: ModelRef) -> Timing:
        with self._workbench.runners(model) as [run]:
            return self._timed(run)

    def time_loaded(self, run: Runner, model: PackedModel) -> Timing:
        return self._timed(run)

    def time_together(self, models: Sequence[ModelRef]) -> list[Timing]:
        bench = self._workbench
        original = bench.original()
        with bench.runners(*models) as runs, bench.room.alone():
            return time_together(runs, original, bench.timing_batch)

    def machine(self) -> list[str]:
        return [platform.node(), platform.machine(), platform.processor()]

    def _timed(self, run: Runner) -> Timing:
        original = self._workbench.original()
        with self._workbench.room.alone():
            return time_interleaved(run, original, self._workbench.timing_batch)


class NodeTimer(Timer):
    """Has models timed by the worker on the latency node, which gets them packed."""

    def __init__(self, workbench: Workbench, elsewhere: Elsewhere) -> None:
        self._workbench, self._elsewhere = workbench, elsewhere

    def time(self, model: ModelRef) -> Timing:
        return self._elsewhere(TimeModel(self._workbench.packed(model)))

    def time_loaded(self, run: Runner, model: PackedModel) -> Timing:
        return self.time(model)

    def time_together(self, models: Sequence[ModelRef]) -> list[Timing]:
        return self._elsewhere(TimeTogether(tuple(self._workbench.packed(model) for model in models)))

    def machine(self) -> list[str]:
        return self._elsewhere(Whereabouts())
