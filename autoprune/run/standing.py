"""The result of a run's trials: the front, the points to ship, and how the search ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.space.budget import Budget
from autoprune.space.trial import ORIGINAL, Measurement, Trial
from autoprune.strategy.pareto import front, hypervolume
from autoprune.strategy.points import Points, points_of
from autoprune.tasks.metrics import ACCURACY, Metric

if TYPE_CHECKING:
    from autoprune.run.folds import Folds
    from autoprune.run.front_schema import LineRow
    from autoprune.run.robustness import Robustness
    from autoprune.tasks.row_scores import ClassRows


@dataclass(frozen=True)
class Standing:
    """The trials so far, the front they form, and the points to choose from.

    reference: of the hypervolume; its accuracy is that of always answering with the commonest class.
    answers: on validation, that accuracy was measured on.
    """

    trials: Sequence[Trial]
    front: Sequence[Trial]
    points: Points
    hypervolume: float
    reference: Measurement
    answers: int

    @property
    def best(self) -> Trial | None:
        """The trial to ship, where there is any."""
        return self.points.best

    @property
    def knee(self) -> Trial | None:
        """Where the front within the budget bends, where there is any."""
        return self.points.knee

    @property
    def points_to_ship(self) -> list[Trial]:
        """The points that have a name, as far as there are any, each once."""
        return self.points.distinct()

    @property
    def original_and_points(self) -> list[Trial]:
        """The original and the points to ship: what is looked at more closely after a search."""
        return [*(trial for trial in self.trials if trial.name == ORIGINAL), *self.points_to_ship]


def standing(trials: Sequence[Trial], budget: Budget, reference: Measurement, *, answers: int) -> Standing:
    """Sum up the trials; `answers` is how many validation answers accuracy was measured on."""
    points = points_of(trials, budget, answers=answers, chance=reference.accuracy)
    return Standing(trials, front(trials), points, hypervolume(trials, reference), reference, answers)


@dataclass(frozen=True)
class Summary:
    """How a search ended, and the simple models that it is compared with.

    classes: of the validation rows, where each has one. robustness: scores on altered test rows, where these
    were asked for; folds: scores by fold, likewise. stopped_by: what ended it, a key of `remarks.STOPPED`.
    file_storage: how the files are stored that sizes are of.
    """

    run: Path
    state: str
    now: Standing
    budget: Budget
    lines: Sequence[LineRow] = ()
    classes: ClassRows | None = None
    robustness: Robustness | None = None
    folds: Folds | None = None
    metric: Metric = ACCURACY
    stopped_by: str = "trials"
    file_storage: str = "plain"


def class_scores(now: Standing, classes: ClassRows | None) -> dict[str, Any]:
    """What `front.json` has of single classes: percent right of the original and of the points to ship.

    By number of trial, in the order of the classes; no field of a task whose rows have none.
    """
    if classes is None:
        return {}
    right = {str(trial.number): classes.right(trial.row_scores) for trial in now.original_and_points}
    told = {number: scores for number, scores in right.items() if scores is not None}
    field = {"classes": list(classes.names), "validation_rows": classes.counts, "percent_right": told}
    return {"class_scores": field} if told else {}
