"""What a worker does: build variants, and turn a candidate into a measurement.

A worker loads the model and the data once, from plain arrays that all workers of a machine share;
what it trains, it copies.
"""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.compress.library import Library
from autoprune.compress.library_folder import library_path
from autoprune.compress.statistics import Statistics
from autoprune.compress.stitch import Stitched, stitch
from autoprune.core.memory import give_memory_back
from autoprune.evaluation.finetune import finetune
from autoprune.evaluation.jobs import (
    BuildUnit,
    Evaluate,
    Evaluated,
    Score,
    Sense,
    Setting,
    TimeCandidate,
    TimeModel,
    TimeTogether,
    Whereabouts,
)
from autoprune.evaluation.measure import (
    Timing,
    labels_watched,
    logits_of,
    teacher_answers,
    time_interleaved,
    time_together,
)
from autoprune.evaluation.packed_model import packed_bytes, unpacked
from autoprune.evaluation.teacher import best_device
from autoprune.models.split_embedding import whole
from autoprune.models.state import load_state_
from autoprune.models.unit import Unit
from autoprune.sensitivity.fisher_scores import Sensitivity, measure_sensitivity
from autoprune.sensitivity.token_removal import with_measured_removal
from autoprune.space.levels import UNTOUCHED, Candidate, Level, is_untouched
from autoprune.space.trial import Measurement
from autoprune.targets import Runner, get_target, size_on_disk
from autoprune.targets.originals import loaded_original
from autoprune.targets.packed import torch_runner
from autoprune.tasks.answers import divergence
from autoprune.workers.machine_lock import default_room

TIMING_PAIRS = 15

Elsewhere = Callable[[object], object]
"""Does a job in another process, and gives its result."""


def make_worker(context: Mapping[str, object]) -> Callable[[object], object]:
    """The worker of a run, from its `Setting` under "setting".

    "elsewhere", if there: does a job on the node that latency is to be timed on.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    # Arrays from Ray are read-only; the tensors on them are only read, what is trained is a copy.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    setting = context["setting"]
    assert isinstance(setting, Setting)
    return _Worker(setting, cast(Elsewhere | None, context.get("elsewhere")))


def device_count() -> int:
    """CUDA devices of this machine."""
    return torch.cuda.device_count()


class _Worker:
    """Teacher, library and target of one process."""

    def __init__(self, setting: Setting, elsewhere: Elsewhere | None = None) -> None:
        self.setting, self._elsewhere = setting, elsewhere
        self.task = setting.task
        self.teacher = _teacher(setting)
        self.target = get_target(setting.target)
        self.room = default_room()
        statistics = {path: Statistics.from_arrays(one) for path, one in setting.statistics.items()}
        self.library = Library(library_path(), self.teacher, statistics, key=setting.key)
        self.example = self.task.batch(self.task.validation, self.task.example_rows)
        self.timing_batch = self.task.timing_batch(setting.batch, setting.sequence)
        self._original: Runner | None = None

    def __call__(self, job: object) -> object:
        match job:
            case BuildUnit(unit):
                for ratio in unit.ratios:
                    with self.room.busy():
                        self.library.build(unit, ratio)
                return None
            case Sense(units):
                with self.room.busy():
                    return self.sense(units)
            case TimeCandidate(candidate):
                return self.time_candidate(candidate)
            case TimeModel(artifact):
                return self.time_model(artifact)
            case TimeTogether(artifacts):
                return self.time_together(artifacts) if self._elsewhere is None else self._elsewhere(job)
            case Whereabouts():
                return this_machine() if self._elsewhere is None else self._elsewhere(job)
            case Evaluate():
                return self.evaluate(job)
            case Score(artifact):
                return self.score(artifact)
        raise TypeError(f"no such job: {job!r}")

    def original(self) -> Runner:
        """The uncompressed model on the target, saved once a machine and loaded once a worker."""
        if self._original is None:
            self._original = loaded_original(
                self.target,
                [self.setting.key],
                lambda: Stitched.plain(whole(self.teacher), self.setting.architecture),
                self.example,
                self.target.load,
            )
        return self._original

    def sense(self, units: Sequence[Unit]) -> Sensitivity:
        """What each variant of some units harms."""
        task, rows, seed = self.task, self.setting.sensitivity_rows, self.setting.seed
        found = measure_sensitivity(
            self.teacher, units, self.library, task, task.train,
            rows=rows, seed=seed, spread=self.setting.train_answers.spread,
        )  # fmt: skip
        return with_measured_removal(found, units, self.harm_alone)

    def harm_alone(self, unit: Unit, level: Level) -> float:
        """Divergence, nats a row, of the model with one unit at a level, on some rows of validation."""
        task, every = self.task, len(self.task.validation)
        rows = np.unique(
            np.linspace(0, every - 1, min(every, self.setting.sensitivity_rows)).astype(np.int64)
        )
        answers = self.setting.validation_answers.pick(rows)
        items = ((one.name, level if one == unit else UNTOUCHED) for one in self.setting.units)
        model = self._stitched(Candidate(tuple(items))).model
        run = torch_runner(model, task.kind)
        return divergence(logits_of(run, task, task.validation.pick(rows), watched=answers.watched), answers)

    def time_candidate(self, candidate: Candidate | None) -> Timing:
        """A candidate's milliseconds as stitched from the library."""
        if candidate is None:
            return self._time(self.original()) if self._elsewhere is None else self._time_elsewhere(None)
        with self.room.busy():
            stitched = self._stitched(candidate)
        if self._elsewhere is not None:
            return self._time_elsewhere(packed_bytes(stitched))
        with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
            return self._time(self._loaded(stitched, Path(name)))

    def time_model(self, artifact: bytes | None) -> Timing:
        """A packed model's milliseconds, here; the original's where None."""
        if artifact is None:
            return self._time(self.original())
        with self._unpacked(artifact) as [run]:
            return self._time(run)

    def time_together(self, artifacts: Sequence[bytes]) -> list[Timing]:
        """Packed models' milliseconds, here, in turn."""
        original = self.original()
        with self._unpacked(*artifacts) as runs, self.room.alone():
            return time_together(runs, original, self.timing_batch, rounds=TIMING_PAIRS)

    @contextlib.contextmanager
    def _unpacked(self, *artifacts: bytes) -> Iterator[list[Runner]]:
        """Packed models on the target, each in a folder of its own for as long as they are used."""
        with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
            runs = []
            for k, one in enumerate(artifacts):
                folder = Path(name) / str(k)
                folder.mkdir()
                runs.append(self._loaded(unpacked(one, self.setting.architecture), folder))
            yield runs

    def _stitched(self, candidate: Candidate) -> Stitched:
        setting = self.setting
        return stitch(self.teacher, setting.units, candidate, self.library, setting.architecture)

    def _loaded(self, stitched: Stitched, folder: Path) -> Runner:
        """The model on the target, saved into `folder` and loaded."""
        with self.room.busy():
            self.target.save(stitched, folder, self.example)
            give_memory_back()
            return self.target.load(folder)

    def _time_elsewhere(self, artifact: bytes | None) -> Timing:
        assert self._elsewhere is not None
        return cast(Timing, self._elsewhere(TimeModel(artifact)))

    def evaluate(self, job: Evaluate) -> Evaluated:
        """Stitch, fine-tune, save, and measure what was saved."""
        parts: dict[str, float] = {}
        clock = _Clock(parts)
        with self.room.busy():
            stitched = self._stitched(job.candidate)
        clock.lap("stitch")
        if not is_untouched(job.candidate):
            stitched = finetune(
                stitched,
                self.task,
                self.task.train,
                self.setting.train_answers,
                job.recipe,
                seed=job.seed,
                step_room=self.room.busy,
                device=best_device(),
                again=lambda: self._stitched(job.candidate),
            )
        clock.lap("finetune")
        with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
            run = self._loaded(stitched, Path(name))
            size = size_on_disk(self.target, Path(name))
            clock.lap("save")
            watched = self.setting.validation_answers.watched
            logits = logits_of(run, self.task, self.task.validation, watched=watched, room=self.room.busy)
            clock.lap("accuracy")
            artifact = packed_bytes(stitched)
            timing = self._time(run) if self._elsewhere is None else self._time_elsewhere(artifact)
            clock.lap("latency")
            measurement = self._measurement(size, logits, timing, job.reference_ms)
            return Evaluated(measurement, parts, artifact)

    def _time(self, run: Runner) -> Timing:
        original = self.original()
        with self.room.alone():
            return time_interleaved(run, original, self.timing_batch, pairs=TIMING_PAIRS)

    def _measurement(
        self, size: int, logits: NDArray[np.float32], timing: Timing, reference_ms: float
    ) -> Measurement:
        if not np.isfinite(logits).all():
            raise FloatingPointError("the model gives logits that are not finite")
        return Measurement(
            size_bytes=size,
            accuracy=self.task.score(self.task.validation, logits, self.setting.validation_answers),
            kl=divergence(logits, self.setting.validation_answers),
            **timing.fields(reference_ms),
        )

    def score(self, artifact: bytes | None) -> float:
        """The score on test, 0 to 100, on the target."""
        task, room = self.task, self.room.busy
        teacher = None if task.has_labels else teacher_answers(self.original(), task, task.test, room=room)
        watched = labels_watched(task, task.test)
        if artifact is None:
            logits = logits_of(self.original(), task, task.test, watched=watched, room=room)
            return task.score(task.test, logits, teacher)
        with self._unpacked(artifact) as [run]:
            logits = logits_of(run, task, task.test, watched=watched, room=room)
        return task.score(task.test, logits, teacher)


class _Clock:
    """Seconds between laps, by name."""

    def __init__(self, parts: dict[str, float]) -> None:
        self.parts, self.last = parts, time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.parts[name] = round(now - self.last, 3)
        self.last = now


def this_machine() -> list[str]:
    """What a table of milliseconds belongs to."""
    return [platform.node(), platform.machine(), platform.processor()]


def _teacher(setting: Setting) -> torch.nn.Module:
    model = setting.architecture.empty()
    load_state_(model, {name: torch.from_numpy(array) for name, array in setting.state.items()})
    return model.eval()
