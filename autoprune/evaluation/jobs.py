"""What workers are asked, and what they answer: plain data that travels between processes.

Each job is typed by its result; `worker` does them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from autoprune.evaluation.finetune import Recipe
from autoprune.evaluation.measure import Timing
from autoprune.models.spec import Architecture
from autoprune.models.unit import Unit
from autoprune.sensitivity.fisher_scores import Sensitivity
from autoprune.space.levels import Candidate
from autoprune.space.trial import Measurement
from autoprune.targets.target import PLAIN
from autoprune.tasks.answers import Answers
from autoprune.tasks.task import Task
from autoprune.workers.pool import Job


@dataclass(frozen=True)
class Setting:
    """All a worker needs, as plain data and arrays.

    architecture: the teacher's; state: its tensors by name; statistics: those of `Statistics` by
    module path. train_answers are the teacher's to the rows that a brief fine-tune draws from,
    validation_answers those on validation. taught_answers: another teacher's to the rows that a brief
    fine-tune draws from, which are distilled then; taught_validation: the same on validation. storage: how
    files of the target keep tensors, of which sizes are.
    """

    architecture: Architecture
    state: Mapping[str, NDArray[np.generic]]
    statistics: Mapping[str, Mapping[str, NDArray[np.float32]]]
    units: tuple[Unit, ...]
    task: Task
    train_answers: Answers
    validation_answers: Answers
    target: str
    key: str
    batch: int
    sequence: int
    sensitivity_rows: int
    seed: int
    taught_answers: Answers | None = None
    taught_validation: Answers | None = None
    storage: str = PLAIN


@dataclass(frozen=True)
class Original:
    """The uncompressed model, which every worker has."""


@dataclass(frozen=True)
class PackedModel:
    """A model as the bytes of its file in the packed layout."""

    weights: bytes = field(repr=False)


ModelRef = Original | Candidate | PackedModel
"""A model that a worker can make: the original, an untrained candidate of its library, or a packed one."""


@dataclass(frozen=True)
class Evaluated:
    """A measurement, seconds of each stage, and the model that was measured, where it was asked for.

    row_scores: its score on each validation row, as `tasks/row_scores.rows_as_text` writes them.
    """

    measurement: Measurement
    parts: Mapping[str, float]
    packed: PackedModel | None
    row_scores: str = field(default="", repr=False)


@dataclass(frozen=True)
class BuildUnit(Job[None]):
    """Make all variants of a unit."""

    unit: Unit


@dataclass(frozen=True)
class Sense(Job[Sensitivity]):
    """What each variant of some units harms."""

    units: tuple[Unit, ...]


@dataclass(frozen=True)
class TimeModel(Job[Timing]):
    """A model timed in turn with the original, with nothing else running."""

    model: ModelRef


@dataclass(frozen=True)
class TimeTogether(Job[list[Timing]]):
    """Models timed in turn with each other and the original: a `Timing` of each."""

    models: tuple[ModelRef, ...]


@dataclass(frozen=True)
class Whereabouts(Job[list[str]]):
    """None but to say what machine latency is timed on: strings that tell it from others."""


@dataclass(frozen=True)
class Evaluate(Job[Evaluated]):
    """A candidate, fine-tuned by a recipe, and measured.

    sends_model: whether its model may come back to the driver. rivals [n 3]: bytes, milliseconds and negative
    accuracy of models; that of a candidate which one of them dominates does not come back.
    parts: in how many a batch is taken, one after another; the gradients are those of the whole batch.
    limit_s: seconds that it may work.
    """

    candidate: Candidate
    recipe: Recipe
    seed: int
    reference_ms: float
    sends_model: bool = True
    rivals: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    parts: int = 1
    limit_s: float | None = field(default=None, compare=False)

    def wants_model(self, m: Measurement) -> bool:
        """Whether the model of this measurement comes back."""
        if self.rivals is None or not self.sends_model:
            return self.sends_model
        costs = np.array([float(m.size_bytes), m.latency_ms, -m.accuracy])
        return not ((self.rivals <= costs).all(1) & (self.rivals < costs).any(1)).any()

    def lighter(self) -> Evaluate | None:
        """The same with half a batch at a time; None where that is so already."""
        return replace(self, parts=2) if self.parts == 1 else None


@dataclass(frozen=True)
class Room:
    """What a fine-tune takes of a worker's memory, how much is free (None: not known), and on which device.

    parts: in how many a batch is trained on, for it to fit.
    """

    device: str
    needed_bytes: int
    free_bytes: int | None
    parts: int


@dataclass(frozen=True)
class FindRoom(Job[Room]):
    """Work out what a fine-tune on batches of so many rows takes of memory."""

    batch_size: int


@dataclass(frozen=True)
class Scored:
    """A score of 0 to 100, and that of each row, as `tasks/row_scores.rows_as_text` writes them."""

    score: float
    row_scores: str = field(default="", repr=False)


@dataclass(frozen=True)
class Score(Job[Scored]):
    """A model's score on test."""

    model: ModelRef
