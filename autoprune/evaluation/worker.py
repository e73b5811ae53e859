"""What a worker does: build variants, and turn a candidate into a measurement.

A worker loads the model and the data once, from plain arrays that all workers of a machine share;
what it trains, it copies.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.compress.stitch import Stitched
from autoprune.core.memory import give_memory_back, is_out_of_memory
from autoprune.evaluation.answer_changes import LookAtAnswers, looked_at
from autoprune.evaluation.coding import CodeUnit, code_unit
from autoprune.evaluation.devices import best_device
from autoprune.evaluation.finetune import finetune
from autoprune.evaluation.folds import FoldScore, score_fold
from autoprune.evaluation.jobs import (
    BuildUnit,
    Evaluate,
    Evaluated,
    FindRoom,
    ModelRef,
    PackedModel,
    Room,
    Score,
    Scored,
    Sense,
    Setting,
    TimeModel,
    TimeTogether,
    Whereabouts,
)
from autoprune.evaluation.lesson import Lesson
from autoprune.evaluation.lines.line import FitLine, measure_line
from autoprune.evaluation.measure import Timing, logits_of
from autoprune.evaluation.packed_model import packed_bytes
from autoprune.evaluation.robustness import Examine, examine
from autoprune.evaluation.sensing import sense
from autoprune.evaluation.timers import LocalTimer, NodeTimer, Timer
from autoprune.evaluation.training_memory import free_bytes
from autoprune.evaluation.workbench import Workbench
from autoprune.space.levels import is_untouched
from autoprune.space.trial import Measurement
from autoprune.targets import size_on_disk
from autoprune.tasks.answers import divergence
from autoprune.tasks.row_scores import row_scores, rows_as_text
from autoprune.workers.latency_node import Elsewhere
from autoprune.workers.pool import describe
from autoprune.workers.ray_staff import GPU_SHARE

log = logging.getLogger(__name__)


def make_worker(context: Mapping[str, object]) -> Worker:
    """The worker of a run, from its `Setting` under "setting".

    "elsewhere", if there: does a job on the node that latency is to be timed on.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    # Arrays from Ray are read-only; the tensors on them are only read, what is trained is a copy.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    if torch.cuda.is_available() and (share := float(os.environ.get(GPU_SHARE, "1"))) < 1:
        torch.cuda.set_per_process_memory_fraction(share)
    setting = context["setting"]
    assert isinstance(setting, Setting)
    workbench = Workbench(setting)
    elsewhere = cast(Elsewhere | None, context.get("elsewhere"))
    timer = LocalTimer(workbench) if elsewhere is None else NodeTimer(workbench, elsewhere)
    return Worker(workbench, timer)


def device_count() -> int:
    """CUDA devices of this machine."""
    return torch.cuda.device_count()


class Worker:
    """Does the jobs of `jobs` on a workbench."""

    def __init__(self, workbench: Workbench, timer: Timer) -> None:
        self.workbench, self._timer = workbench, timer

    def __call__(self, job: object) -> object:
        match job:
            case BuildUnit(unit):
                for ratio in unit.ratios:
                    with self.workbench.room.busy():
                        self.workbench.library.build(unit, ratio)
                return None
            case Sense(units):
                with self.workbench.room.busy():
                    return sense(self.workbench, units)
            case CodeUnit():
                with self.workbench.room.busy():
                    return code_unit(self.workbench, job)
            case TimeModel(model):
                return self._timer.time(model)
            case TimeTogether(models):
                return self._timer.time_together(models)
            case Whereabouts():
                return self._timer.machine()
            case Evaluate():
                return self._evaluate(job)
            case FindRoom(batch_size):
                return self._room(batch_size)
            case Score(model):
                return self._score(model)
            case LookAtAnswers(model):
                return looked_at(model, self.workbench)
            case Examine():
                return examine(job, self.workbench)
            case FoldScore(recipe=recipe):
                return score_fold(job, self.workbench, self._room(recipe.batch_size).parts)
            case FitLine():
                return measure_line(job, self.workbench, self._timer)
        raise TypeError(f"no such job: {job!r}")

    def _evaluate(self, job: Evaluate) -> Evaluated:
        """Stitch, fine-tune, save, and measure what was saved."""
        bench = self.workbench
        setting, task = bench.setting, bench.task
        parts: dict[str, float] = {}
        clock = _Clock(parts)
        with bench.room.busy():
            stitched = bench.stitched(job.candidate)
        clock.lap("stitch")
        if not is_untouched(job.candidate):
            stitched = self._finetuned(stitched, job)
        clock.lap("finetune")
        with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
            run = bench.loaded(stitched, Path(name))
            size = size_on_disk(bench.target, Path(name))
            clock.lap("save")
            watched = setting.validation_answers.watched
            logits = logits_of(run, task, task.validation, watched=watched, room=bench.room.busy)
            clock.lap("accuracy")
            packed = PackedModel(packed_bytes(stitched))
            timing = self._timer.time_loaded(run, packed)
            clock.lap("latency")
            measurement = self._measurement(size, logits, timing, job.reference_ms)
            sent = packed if job.wants_model(measurement) else None
            return Evaluated(measurement, parts, sent, self._row_scores(logits))

    def _finetuned(self, stitched: Stitched, job: Evaluate) -> Stitched:
        """The candidate trained; where memory runs out once more, with half a batch at a time.

        Raises:
            MemoryError: where that does not fit either.
        """
        try:
            return self._trained(stitched, job)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            first = describe(error)
        del stitched
        give_memory_back()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        lighter = job.lighter()
        if lighter is None:
            raise MemoryError(f"half a batch does not fit into memory either: {first}")
        log.warning("memory ran out in a fine-tune (%s); it is tried with half a batch at a time", first)
        return self._finetuned(self.workbench.stitched(job.candidate), lighter)

    def _room(self, batch_size: int) -> Room:
        device, memory = best_device(), self.workbench.training_memory
        free = free_bytes(device)
        parts = memory.parts(batch_size, free)
        return Room(device.type, memory.needed(-(-batch_size // parts)), free, parts)

    def _trained(self, stitched: Stitched, job: Evaluate) -> Stitched:
        bench = self.workbench
        setting, task = bench.setting, bench.task
        fitting = self._room(job.recipe.batch_size).parts if job.recipe.steps else 1
        return finetune(
            stitched,
            Lesson(task, task.train, setting.train_answers, setting.taught_answers),
            job.recipe,
            seed=job.seed,
            step_room=bench.room.busy,
            device=best_device(),
            again=lambda: bench.stitched(job.candidate),
            teacher=bench.teacher_on(best_device()),
            parts=max(job.parts, fitting),
        )

    def _measurement(
        self, size: int, logits: NDArray[np.float32], timing: Timing, reference_ms: float
    ) -> Measurement:
        if not np.isfinite(logits).all():
            raise FloatingPointError("the model gives logits that are not finite")
        task, answers = self.workbench.task, self.workbench.setting.validation_answers
        return Measurement(
            size_bytes=size,
            accuracy=task.score(task.validation, logits, answers),
            kl=divergence(logits, answers),
            **timing.fields(reference_ms),
        )

    def _row_scores(self, logits: NDArray[np.float32]) -> str:
        """The score of each validation row, as text."""
        task, answers = self.workbench.task, self.workbench.setting.validation_answers
        return rows_as_text(row_scores(task, task.validation, logits, answers))

    def _score(self, model: ModelRef) -> Scored:
        """The score on test, on the target."""
        with self.workbench.runners(model) as [run]:
            return self.workbench.scored_on_test(run)


class _Clock:
    """Seconds between laps, by name."""

    def __init__(self, parts: dict[str, float]) -> None:
        self.parts, self.last = parts, time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.parts[name] = round(now - self.last, 3)
        self.last = now
