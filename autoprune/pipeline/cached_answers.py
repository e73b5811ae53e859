"""What teachers answer to the rows of a search, each computed once and kept in the cache."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import nn

from autoprune.core.cache import DiskCache, content_key
from autoprune.core.progress import Progress
from autoprune.evaluation.measure import teacher_answers
from autoprune.pipeline.inputs import Inputs
from autoprune.targets.packed import torch_runner
from autoprune.tasks.answers import Answers
from autoprune.tasks.task import Data, Task

log = logging.getLogger(__name__)

VERSION = 4
"""Raised when a teacher's statistics or answers would come out differently."""

_ANSWERS = DiskCache("answers", VERSION, ".safetensors")


def cached_answers(
    model: Callable[[], nn.Module], task: Task, key: str, progress: Progress, whose: str = "Teacher"
) -> dict[str, Answers]:
    """What the teacher answers to the fine-tuning rows and on validation, cached."""
    parts = ("train", "validation")

    def arrays() -> dict[str, NDArray[Any]]:
        run = torch_runner(model(), task.kind)
        with progress.bar(f"{whose}'s answers", 1):
            answers = {part: teacher_answers(run, task, getattr(task, part)) for part in parts}
        return {k: x for part in parts for k, x in _arrays(part, answers[part]).items()}

    def read(path: Path) -> dict[str, Answers]:
        arrays = load_file(path)
        return {part: _from_arrays(part, arrays) for part in parts}

    return _ANSWERS.get([key], make=arrays, save=save_file, load=read)


class Taught(NamedTuple):
    """Another teacher's answers to the fine-tuning rows and on validation, and what it scores there."""

    answers: Answers
    validation: Answers
    score: float | None


def taught_answers(
    inputs: Inputs, rows: int, seed: int, original: dict[str, Answers], progress: Progress
) -> Taught | None:
    """What another teacher answers, cached as the original's are; None where there is none."""
    teacher = inputs.teacher
    if teacher is None:
        return None
    task = replace(teacher.task, train=drawn(teacher.task.train, rows, seed))
    key = content_key(VERSION, "teacher", teacher.key, rows, seed)
    told = cached_answers(teacher.model, task, key, progress, f"Teacher {teacher.name}")
    told = {part: replace(answers, values=teacher.ordered(answers.values)) for part, answers in told.items()}
    if not task.has_labels:
        return Taught(told["train"], told["validation"], None)
    score, mine = (
        inputs.task.score(inputs.task.validation, answers["validation"].values, answers["validation"])
        for answers in (told, original)
    )
    name, metric = teacher.name, task.metric
    progress.line(f"Teacher   {name} {metric.told(score)} on validation, the original {metric.told(mine)}")
    if score <= mine:
        log.warning("the teacher %s scores no more than the original: what is there to learn?", name)
    return Taught(told["train"], told["validation"], score)


def _arrays(part: str, answers: Answers) -> dict[str, NDArray[Any]]:
    spread = np.array(answers.spread)
    arrays: dict[str, NDArray[Any]] = {
        f"{part}.values": answers.values,
        f"{part}.starts": answers.starts,
        f"{part}.spread": spread,
    }
    return arrays if answers.watched is None else arrays | {f"{part}.watched": answers.watched}


def _from_arrays(part: str, arrays: dict[str, NDArray[Any]]) -> Answers:
    spread = float(arrays[f"{part}.spread"])
    return Answers(arrays[f"{part}.values"], arrays[f"{part}.starts"], arrays.get(f"{part}.watched"), spread)


def drawn(rows: Data, count: int, seed: int) -> Data:
    """`count` rows drawn by a shuffle that follows from the seed."""
    return rows.pick(drawn_numbers(len(rows), count, seed))


def drawn_numbers(rows: int, count: int, seed: int) -> NDArray[np.int64]:
    """Numbers of the rows that `drawn` draws, in order."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:count])
