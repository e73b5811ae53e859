"""A model asked about altered test rows: its score on them, and how often its answer is not the original's.

Shapes: n rows, k outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from autoprune.evaluation.jobs import ModelRef, Original
from autoprune.evaluation.measure import logits_of
from autoprune.evaluation.workbench import Workbench
from autoprune.tasks.alterations import altered_pictures
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.task import Arrays, Data, Encoded, Task
from autoprune.workers.pool import Job


@dataclass(frozen=True)
class AlteredRows:
    """Test rows with an alteration.

    name: of the alteration; "" is none. numbers: of the rows [n] in the task's test split. tokens: of texts
    with it, in the same order; None of pictures, which the worker alters, and of rows as they are.
    """

    name: str
    numbers: NDArray[np.int64] = field(repr=False)
    seed: int
    tokens: Encoded | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Examined:
    """Of each sort of rows the score, 0 to 100, and the percent of answers that are not the original's.

    flips: None where answers are no classes.
    """

    scores: tuple[float, ...]
    flips: tuple[float | None, ...]


@dataclass(frozen=True)
class Examine(Job[Examined]):
    """A model's answers to altered rows."""

    model: ModelRef
    rows: tuple[AlteredRows, ...]


def examine(job: Examine, bench: Workbench) -> Examined:
    """Score a model on each sort of rows, on the target, and compare its answers with the original's."""
    scores: list[float] = []
    flips: list[float | None] = []
    with bench.runners(job.model) as [run]:
        for rows in job.rows:
            data = altered_data(rows, bench.task)
            theirs = bench.original_answers.get(rows.name)
            if theirs is None:
                theirs = logits_of(bench.original(), bench.task, data, room=bench.room.busy)
                bench.original_answers[rows.name] = theirs
            is_original = isinstance(job.model, Original)
            ours = theirs if is_original else logits_of(run, bench.task, data, room=bench.room.busy)
            scores.append(bench.task.score(data, ours))
            flips.append(flipped(ours, theirs) if bench.task.kind.predicts_classes else None)
    return Examined(tuple(scores), tuple(flips))


def flipped(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Percent of rows whose likeliest class by two models' logits [n k] differs.

    >>> flipped(np.array([[1.0, 0], [1, 0]], np.float32), np.array([[2.0, 0], [0, 1]], np.float32))
    50.0
    """
    return 100.0 * float((ours.argmax(1) != theirs.argmax(1)).mean())


def altered_data(rows: AlteredRows, task: Task) -> Data:
    """Test rows of a task with an alteration; what came is left as it is."""
    if rows.tokens is not None:
        return rows.tokens
    data = task.test.pick(rows.numbers)
    if not rows.name:
        return data
    assert isinstance(data, Arrays)
    inputs = {
        name: altered_pictures(images, rows.name, seed=rows.seed, rows=rows.numbers)
        for name, images in data.inputs.items()
        if isinstance(images, ByteImages)
    }
    return replace(data, inputs={**data.inputs, **inputs})
