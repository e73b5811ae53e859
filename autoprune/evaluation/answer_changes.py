"""What a model answers to each validation row, so that it can be seen where two models differ.

Shapes: n rows, m answered places (one a row, or its tokens), k outputs, v vocabulary, w watched outputs,
d features.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autoprune.evaluation.jobs import ModelRef
from autoprune.evaluation.measure import answer_batches, logits_of
from autoprune.evaluation.workbench import Workbench
from autoprune.tasks.answers import Answers, divergences, log_probabilities
from autoprune.tasks.scoring import PAIRED_ROWS
from autoprune.tasks.task import Task
from autoprune.workers.pool import Job


@dataclass(frozen=True)
class Looked:
    """A model's answers on validation, each in a few numbers.

    choice [m]: the class, the likeliest token, or of vectors the nearest other row among the first
    `PAIRED_ROWS`; None of numbers. value [m]: the probability of the choice, the number, or the cosine of the
    vector with the teacher's. came [m]: the probability of the token that came, of a language model. kl [m]:
    the divergence from the teacher, nats.
    """

    choice: NDArray[np.int32] | None = field(repr=False)
    value: NDArray[np.float32] = field(repr=False)
    kl: NDArray[np.float32] = field(repr=False)
    came: NDArray[np.float32] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class LookAtAnswers(Job[Looked]):
    """A model's answers to the validation rows of a task that `is_looked_at`."""

    model: ModelRef


def is_looked_at(task: Task) -> bool:
    """Whether it is known what answers are: of a task of one's own only where they are classes."""
    return not task.kind.is_own or bool(task.label_names)


def looked_at(model: ModelRef, bench: Workbench) -> Looked:
    """Ask a model, on the target, about all validation rows."""
    task, teacher, room = bench.task, bench.setting.validation_answers, bench.room.busy
    with bench.runners(model) as [run]:
        if not task.kind.predicts_next_token:
            return looked(task, logits_of(run, task, task.validation, room=room), teacher)
        places = int(teacher.starts[-1])
        choice = np.empty(places, np.int32)
        value, kl, came = (np.empty(places, np.float32) for _ in range(3))
        assert teacher.watched is not None
        for _, at, logits in answer_batches(run, task, task.validation, teacher.starts, room):
            values = log_probabilities(logits, teacher.watched[at])
            part = Answers(teacher.values[at], np.arange(len(at) + 1), teacher.watched[at])
            choice[at] = logits.argmax(1)
            value[at] = np.exp(log_probabilities(logits, choice[at][:, None])[:, 0])
            kl[at] = divergences(values, part)
            came[at] = np.exp(values[:, 0])
        return Looked(choice, value, kl, came)


def looked(task: Task, values: NDArray[np.float32], teacher: Answers) -> Looked:
    """The same from answers [m k] to all rows, of any kind but a language model."""
    kl = divergences(values, teacher).astype(np.float32)
    if task.is_probable:
        choice = values.argmax(1).astype(np.int32)
        probability = np.exp(log_probabilities(values, choice[:, None])[:, 0])
        return Looked(choice, probability.astype(np.float32), kl)
    if task.kind.gives_vectors:
        cosine = np.sum(values * teacher.values, axis=1)
        return Looked(nearest_others(values), cosine.astype(np.float32), kl)
    return Looked(None, values[:, 0].astype(np.float32), kl)


def nearest_others(vectors: NDArray[np.float32]) -> NDArray[np.int32] | None:
    """The most similar other row of each [m] of the first `PAIRED_ROWS` unit vectors [n d]; None of one row.

    >>> nearest_others(np.array([[1, 0], [0.6, 0.8], [0.8, 0.6]], np.float32))
    array([2, 2, 1], dtype=int32)
    """
    few = vectors[:PAIRED_ROWS]
    if len(few) < 2:
        return None
    similar = few @ few.T
    np.fill_diagonal(similar, -np.inf)
    return np.asarray(similar.argmax(1), np.int32)
