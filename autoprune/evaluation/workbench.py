"""The models of one worker - teacher, original and variants - and the target that they are loaded on."""

from __future__ import annotations

import contextlib
import copy
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autoprune.compress.library import Library
from autoprune.compress.library_folder import library_path
from autoprune.compress.statistics import Statistics
from autoprune.compress.stitch import Stitched, stitch
from autoprune.core.memory import give_memory_back
from autoprune.evaluation.jobs import ModelRef, Original, PackedModel, Scored, Setting
from autoprune.evaluation.measure import labels_watched, logits_of, teacher_answers
from autoprune.evaluation.packed_model import packed_bytes, unpacked
from autoprune.evaluation.training_memory import TrainingMemory, training_memory
from autoprune.models.split_embedding import whole
from autoprune.models.state import load_state_
from autoprune.sensitivity.fisher_scores import measured_rows
from autoprune.space.levels import Candidate
from autoprune.targets import Runner, get_target
from autoprune.targets.originals import loaded_original
from autoprune.targets.packed import torch_runner
from autoprune.tasks.answers import divergence
from autoprune.tasks.row_scores import row_scores, rows_as_text
from autoprune.workers.machine_lock import default_room

_Loaded = TypeVar("_Loaded")


class Workbench:
    """Teacher, library and target of one process, and the room that it shares with others of its machine."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.task = setting.task
        self.teacher = _teacher(setting)
        builder = setting.architecture.builder
        self.target = get_target(setting.target, storage=setting.storage, builder=builder)
        self._plain_target = get_target(setting.target, builder=builder)
        self.room = default_room()
        statistics = {path: Statistics.from_arrays(one) for path, one in setting.statistics.items()}
        self.library = Library(
            library_path(), self.teacher, statistics, key=setting.key, harm=self._divergence_on_training
        )
        self.example = self.task.batch(self.task.validation, self.task.example_rows)
        self.timing_batch = self.task.timing_batch(setting.batch, setting.sequence)
        self.original_answers: dict[str, NDArray[np.float32]] = {}
        """The original's answers to rows that are asked of several models, by what they are called."""
        self._original: Runner | None = None
        self._elsewhere: nn.Module | None = None

    def original(self) -> Runner:
        """The uncompressed model on the target, saved once a machine, plainly, and loaded once a worker."""
        if self._original is None:
            run = self._original_as(self._plain_target.load)
            with self.room.busy():
                run(self.timing_batch)
            self._original = run
        return self._original

    def original_folder(self) -> Path:
        """The files that `original` is loaded from; not to be changed."""
        self.original()
        return self._original_as(lambda folder: folder)

    def _original_as(self, load: Callable[[Path], _Loaded]) -> _Loaded:
        """The original as `load` reads it from its files, which are made where there are none."""
        return loaded_original(
            self._plain_target,
            [self.setting.key],
            lambda: Stitched.plain(whole(self.teacher), self.setting.architecture),
            self.example,
            load,
        )

    def scored_on_test(self, run: Runner) -> Scored:
        """A model's score on test."""
        task, room = self.task, self.room.busy
        teacher = None if task.has_labels else teacher_answers(self.original(), task, task.test, room=room)
        logits = logits_of(run, task, task.test, watched=labels_watched(task, task.test), room=room)
        scores = rows_as_text(row_scores(task, task.test, logits, teacher))
        return Scored(task.score(task.test, logits, teacher), scores)

    def teacher_on(self, device: torch.device) -> nn.Module:
        """The teacher on a device; a copy, made once, where that is not the CPU."""
        if device.type == "cpu":
            return self.teacher
        if self._elsewhere is None:
            self._elsewhere = copy.deepcopy(self.teacher).to(device)
        return self._elsewhere

    @functools.cached_property
    def training_memory(self) -> TrainingMemory:
        """What training the teacher would take: of a candidate it is no more."""
        return training_memory(self.teacher, self.task, self.task.train)

    def _divergence_on_training(self, model: nn.Module) -> float:
        """Divergence of a model from the teacher, nats an answer, on rows that sensitivities are measured on.

        Validation is for what the search measures.
        """
        setting, task = self.setting, self.task
        rows = measured_rows(len(task.train), setting.sensitivity_rows, setting.seed)
        answers = setting.train_answers.pick(rows)
        run = torch_runner(model, task.kind)
        return divergence(logits_of(run, task, task.train.pick(rows), watched=answers.watched), answers)

    def stitched(self, candidate: Candidate) -> Stitched:
        """An untrained candidate, from the library."""
        setting = self.setting
        return stitch(self.teacher, setting.units, candidate, self.library, setting.architecture)

    def packed(self, model: ModelRef) -> Original | PackedModel:
        """The model as another process takes it, which may have no library."""
        if not isinstance(model, Candidate):
            return model
        with self.room.busy():
            stitched = self.stitched(model)
        return PackedModel(packed_bytes(stitched))

    def loaded(self, stitched: Stitched, folder: Path) -> Runner:
        """The model on the target, saved into `folder`, loaded, and called once.

        A first call may compile for tens of seconds, which is not to be waited for by those who are kept out
        while somebody times.
        """
        with self.room.busy():
            self.target.save(stitched, folder, self.example)
            give_memory_back()
            run = self.target.load(folder)
            run(self.timing_batch)
            return run

    @contextlib.contextmanager
    def runners(self, *models: ModelRef) -> Iterator[list[Runner]]:
        """Models on the target, each in a folder of its own for as long as they are used."""
        with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
            yield [self._runner(model, Path(name) / str(k)) for k, model in enumerate(models)]

    def _runner(self, model: ModelRef, folder: Path) -> Runner:
        match model:
            case Original():
                return self.original()
            case Candidate():
                with self.room.busy():
                    stitched = self.stitched(model)
            case PackedModel(weights):
                stitched = unpacked(weights, self.setting.architecture)
        folder.mkdir()
        return self.loaded(stitched, folder)


def _teacher(setting: Setting) -> torch.nn.Module:
    model = setting.architecture.empty()
    load_state_(model, {name: torch.from_numpy(array) for name, array in setting.state.items()})
    return model.eval()
