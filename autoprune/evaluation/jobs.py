"""What workers are asked, and what they answer: plain data that travels between processes.

Each job says what its result is; `evaluate` does them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.evaluation.finetune import Recipe
from autoprune.models.spec import Architecture
from autoprune.models.unit import Unit
from autoprune.space.levels import Candidate
from autoprune.space.trial import Measurement
from autoprune.tasks.answers import Answers
from autoprune.tasks.task import Task


@dataclass(frozen=True)
class Setting:
    """All a worker needs, as plain data and arrays.

    architecture: the teacher's; state: its tensors by name; statistics: those of `Statistics` by
    module path. train_answers are the teacher's to the rows that a brief fine-tune draws from,
    validation_answers those on validation.
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


@dataclass(frozen=True)
class BuildUnit:
    """Job: make all variants of a unit. Result: None."""

    unit: Unit


@dataclass(frozen=True)
class Sense:
    """Job: what each variant of some units harms. Result: a `Sensitivity`."""

    units: tuple[Unit, ...]


@dataclass(frozen=True)
class TimeCandidate:
    """Job: an untrained candidate timed in turn with the original; None is the original itself.

    Result: a `Timing`, taken with nothing else running.
    """

    candidate: Candidate | None


@dataclass(frozen=True)
class TimeModel:
    """Job: a packed model timed in turn with the original, where this job is done. Result: a `Timing`."""

    artifact: bytes | None


@dataclass(frozen=True)
class TimeTogether:
    """Job: packed models timed in turn with each other and the original. Result: a `Timing` of each."""

    artifacts: tuple[bytes, ...]


@dataclass(frozen=True)
class Whereabouts:
    """Job: none but to say what machine latency is timed on. Result: strings that tell it from others."""


@dataclass(frozen=True)
class Evaluate:
    """Job: a candidate, fine-tuned by a recipe. Result: an `Evaluated`."""

    candidate: Candidate
    recipe: Recipe
    seed: int
    reference_ms: float


@dataclass(frozen=True)
class Score:
    """Job: the score on test of a packed artifact, of the original when None. Result: 0 to 100."""

    artifact: bytes | None


@dataclass(frozen=True)
class Evaluated:
    """A measurement, seconds of each stage, and the model in the packed layout."""

    measurement: Measurement
    parts: Mapping[str, float]
    artifact: bytes
