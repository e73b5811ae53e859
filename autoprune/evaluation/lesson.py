"""What a student is taught, and how far it still is from that on rows that it is not trained on.

Shapes: n rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autoprune.evaluation.distillation import Targets, distance
from autoprune.evaluation.reconstruction import StepRoom
from autoprune.models.outputs import answered, outputs_of
from autoprune.tasks.answers import Answers
from autoprune.tasks.task import Data, Task

GUARD_ROWS = 512
"""Training rows that are neither trained on nor calibrated on: the state of a fine-tune that is best there is
kept, maybe the first. An eighth of them where each has an answer at many places."""


@dataclass(frozen=True)
class Lesson:
    """What a student is taught: rows, and what is answered to them.

    answers: the original's. taught: those of another teacher, whose answers gradients follow then; layers are
    refitted to the original's all the same.
    """

    task: Task
    data: Data
    answers: Answers
    taught: Answers | None = None

    @property
    def goal(self) -> Answers:
        """What is distilled."""
        return self.answers if self.taught is None else self.taught


def guarded(task: Task, data: Data) -> tuple[NDArray[np.int64], Data]:
    """Numbers of the guard rows, the last ones, and the rows to learn from; few rows serve as both."""
    guards = GUARD_ROWS // 8 if task.kind.answers_each_token else GUARD_ROWS
    kept = len(data) - guards
    if kept < guards:
        return np.arange(len(data)), data
    return np.arange(kept, len(data)), data.first(kept)


def is_no_worse(new: NDArray[np.float64], old: NDArray[np.float64]) -> bool:
    """Whether divergences of the same batches are no larger, or by less than the difference's standard error.

    What is reconstructed was better on validation wherever it was measured, and a few hundred rows often tell
    less.
    """
    gap = new - old
    return bool(gap.mean() < gap.std() / math.sqrt(len(gap)) and gap.any())


def divergence_of(
    rows: NDArray[np.int64],
    model: nn.Module,
    lesson: Lesson,
    step_room: StepRoom,
    theirs: Answers | None = None,
) -> NDArray[np.float64]:
    """Divergence of batches of the given rows, nats a place; all of about as many places.

    theirs: answers that it is from; None is the original's.
    """
    theirs = lesson.answers if theirs is None else theirs
    task, data, where = lesson.task, lesson.data, next(model.parameters()).device
    out: list[float] = []
    ordered = rows[np.argsort(data.lengths[rows], kind="stable")]
    for chosen in np.array_split(ordered, -(-len(rows) // task.evaluation_batch)):
        with step_room(), torch.inference_mode():
            inputs = {name: torch.from_numpy(x).to(where) for name, x in task.batch(data, chosen).items()}
            answers = answered(outputs_of(model, inputs, task.kind), task.answered(data, chosen)).float()
            out.append(float(distance(answers, Targets.of(theirs, chosen, where))))
    return np.array(out)
