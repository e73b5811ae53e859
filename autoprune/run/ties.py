"""Which models a paired test on the same validation rows does not tell apart, as `front.json` has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pydantic

from autoprune.space.trial import finished

if TYPE_CHECKING:
    from autoprune.run.standing import Standing
    from autoprune.space.trial import Trial

MOST_COMPARED = 100
"""Models that are compared, each with each; of a longer front those that are evenly spread over it."""


class Ties(pydantic.BaseModel):
    """numbers: the trials that were compared, each with each. pairs: those that are not told apart."""

    model_config = pydantic.ConfigDict(frozen=True)

    numbers: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()

    def tied(self, one: int, other: int) -> bool | None:
        """Whether two trials are not told apart; None where they were not compared."""
        if one not in self.numbers or other not in self.numbers:
            return None
        return one == other or (one, other) in self.pairs or (other, one) in self.pairs


def ties_field(now: Standing) -> dict[str, Any]:
    """The field `ties`, of the front, the points to ship and the baselines; none where no rows were kept."""
    from autoprune.strategy.paired import told_apart  # takes long: numpy

    named = [*now.points_to_ship, *(trial for trial in now.trials if trial.is_baseline)]
    trials = _with_scores([*named, *_spread(now.front, max(0, MOST_COMPARED - len(named)))])
    trials.sort(key=lambda pair: (-pair[1], pair[0].number))
    pairs = []
    compared = {trial.number: trial for trial, _ in trials}
    ordered = list(compared.values())
    for k, better in enumerate(ordered):
        for other in ordered[k + 1 :]:
            apart = told_apart(better, other)
            if apart is None:
                return {}  # rows of different sorts
            if not apart:
                pairs.append((better.number, other.number))
    ties = Ties(numbers=tuple(sorted(compared)), pairs=tuple(pairs))
    return {"ties": ties.model_dump(mode="json")} if len(compared) > 1 else {}


def _with_scores(trials: Iterable[Trial]) -> list[tuple[Trial, float]]:
    """Measured trials whose rows' scores were kept, with their accuracy."""
    return [(trial, m.accuracy) for trial, m in finished(trials) if trial.row_scores]


def _spread(members: Sequence[Trial], most: int) -> list[Trial]:
    """At most so many members of a front, evenly spread over their sizes."""
    ordered = [trial for trial, _ in sorted(finished(members), key=lambda pair: pair[1].size_bytes)]
    if len(ordered) <= most:
        return ordered
    return [ordered[round(k * (len(ordered) - 1) / max(1, most - 1))] for k in range(most)]
