"""The result of a run's trials: the front, the points to ship, and how the search ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.search.pareto import best, front, hypervolume, knee, within
from autoprune.space.budget import Budget
from autoprune.space.trial import Measurement, Trial

if TYPE_CHECKING:
    from autoprune.run.front_schema import LineRow


@dataclass(frozen=True)
class Standing:
    """The trials so far, the front they form, and the points to ship."""

    trials: Sequence[Trial]
    front: Sequence[Trial]
    best: Trial | None
    knee: Trial | None
    hypervolume: float
    reference: Measurement

    @property
    def points_to_ship(self) -> list[Trial]:
        """The best and the knee, as far as there are any."""
        return [trial for trial in (self.best, self.knee) if trial is not None]


def standing(trials: Sequence[Trial], budget: Budget, reference: Measurement, *, answers: int) -> Standing:
    """Sum up the trials; `answers` is how many validation answers accuracy was measured on."""
    members = front(trials)
    fit = [trial for trial in within(members, budget) if not trial.is_baseline]
    return Standing(
        trials,
        members,
        best(trials, budget, answers=answers),
        knee(fit),
        hypervolume(trials, reference),
        reference,
    )


@dataclass(frozen=True)
class Summary:
    """How a search ended, and the simple models that it is compared with."""

    run: Path
    state: str
    now: Standing
    budget: Budget
    lines: Sequence[LineRow] = ()
