"""The points to choose from: members of the front within a budget, each with a name.

All but the knee are of the trials that may be shipped; `small` and `fast` are of those as accurate as the
most accurate of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoprune.space.budget import Budget
from autoprune.space.point_names import POINT_NAMES
from autoprune.space.trial import ORIGINAL, Measurement, Trial, finished
from autoprune.strategy.paired import better_than_guessing, told_apart
from autoprune.strategy.pareto import front, within

SAME_SIZE = 1.01
"""A model up to this much larger than another counts as being of its size."""

SAME_TIME = 1.05
"""A model that takes up to this much longer than another counts as being as fast: one candidate, timed twice
in a search, was 4 % apart."""

MOST_LOST, MOST_LOST_SHARE = 1.0, 0.02
"""Points, and share of the score, that a model called as accurate may lie below the most accurate. On few
rows no test tells models apart that differ by much: to whoever ships it a point is a loss. The share counts
for scores below 50, such as a language model's: of a perplexity it is a fiftieth."""


@dataclass(frozen=True)
class Points:
    """The named points; None where there is no such trial.

    best: the one to ship. accurate: the most accurate. small, fast: the smallest and the fastest that are as
    accurate. knee: where the front bends. as_accurate: all that are, smallest first.
    """

    best: Trial | None = None
    accurate: Trial | None = None
    small: Trial | None = None
    fast: Trial | None = None
    knee: Trial | None = None
    as_accurate: tuple[Trial, ...] = ()

    def named(self) -> dict[str, Trial | None]:
        """The points by their names."""
        return {name: getattr(self, name) for name in POINT_NAMES}

    def numbers(self) -> dict[str, int | None]:
        """Their numbers by their names."""
        return {name: None if trial is None else trial.number for name, trial in self.named().items()}

    def distinct(self) -> list[Trial]:
        """Each trial that has a name, once."""
        return list({trial.number: trial for trial in self.named().values() if trial is not None}.values())


def points_of(trials: Iterable[Trial], budget: Budget, *, answers: int, chance: float = 0.0) -> Points:
    """The points of a search.

    answers: on validation, that accuracy is taken over. chance: accuracy of always answering with the
    commonest class, in percent; the knee is better where any member of the front is.

    `best` gains most for the same accuracy: of those as accurate as the most accurate it costs least of what
    the budget does not limit, milliseconds where bytes are limited, bytes where milliseconds are, and the
    product of both where neither is. Where both are limited, or costs are the same within `SAME_SIZE` (bytes)
    or `SAME_TIME` (milliseconds, and the product), the least divergence from the teacher wins.

    *As accurate* is what a paired test on the same validation rows does not tell apart from the most accurate
    (`strategy/paired`) and what loses no more than `MOST_LOST`. Where rows were not kept it is what lies
    within one standard error of it (the one-standard-error rule: Breiman et al., Classification and
    Regression Trees, 1984, section 3.4.3).

    A trial is not offered where a uniform baseline of its size (where milliseconds alone are limited, of its
    time) is more accurate, and is either told apart by the same test or costs no more of the other. The
    original is never offered; models that it dominates are offered only where there is no other.
    """
    done = list(trials)
    members = front(done)
    bend = _knee_of(within(members, budget), answers=answers, chance=chance)
    compressed = [trial for trial in done if trial.name != ORIGINAL]
    offered = _offered(members, compressed, budget) or _offered(front(compressed), compressed, budget)
    if not offered:
        return Points(knee=bend)
    top = min(offered, key=lambda pair: (-pair[1].accuracy, *_tie(pair)))
    equal = [pair for pair in offered if _is_as_accurate(top, pair, answers)]
    return Points(
        best=_cheapest(
            equal,
            [_unlimited_cost(m, budget) for _, m in equal],
            same=SAME_TIME if budget.latency_ms is None else SAME_SIZE,
        ),
        accurate=top[0],
        small=_cheapest(equal, [float(m.size_bytes) for _, m in equal], same=SAME_SIZE),
        fast=_cheapest(equal, [m.latency_ms for _, m in equal], same=SAME_TIME),
        knee=bend,
        as_accurate=tuple(trial for trial, _ in equal),
    )


def best(trials: Iterable[Trial], budget: Budget, *, answers: int) -> Trial | None:
    """The trial to ship, as `points_of` describes it."""
    return points_of(trials, budget, answers=answers).best


def knee(members: Sequence[Trial]) -> Trial | None:
    """The member farthest above the line between the front's smallest and most accurate.

    Size is taken as its logarithm, since halving is one step wherever it happens (Satopaa et al.,
    Finding a "Kneedle" in a Haystack, 2011, with log x).
    """
    done = finished(members)
    if not done:
        return None
    xs = [math.log(m.size_bytes) for _, m in done]
    ys = [m.accuracy for _, m in done]
    left, low = min(xs), min(ys)
    width, height = (max(xs) - left) or 1.0, (max(ys) - low) or 1.0
    lift = [(y - low) / height - (x - left) / width for x, y in zip(xs, ys, strict=True)]
    return done[max(range(len(done)), key=lambda k: (lift[k], -xs[k]))][0]


def worth_training_longer(
    trials: Sequence[Trial], budget: Budget, *, answers: int, chance: float = 0.0
) -> list[Trial]:
    """The points that should be trained as long as what is shipped, most wanted first; some may be already.

    The knee is here of all trials of the search within the budget.
    """
    points = points_of(trials, budget, answers=answers, chance=chance)
    bend = _knee_of(within(trials, budget), answers=answers, chance=chance)
    wanted = (points.best, bend, points.small, points.fast, points.accurate)
    return [trial for trial in wanted if trial is not None]


def _knee_of(members: Sequence[Trial], *, answers: int, chance: float) -> Trial | None:
    """The knee of the members that the search made, of those better than guessing where there are any."""
    searched = [trial for trial in members if not trial.is_baseline]
    better = [trial for trial, m in finished(searched) if better_than_guessing(m.accuracy, chance, answers)]
    return knee(better or searched)


def _offered(
    members: Iterable[Trial], compressed: Iterable[Trial], budget: Budget
) -> list[tuple[Trial, Measurement]]:
    """The members of a front that may be shipped under a budget, with their measurements."""
    uniform = [pair for pair in finished(within(compressed, budget)) if pair[0].is_baseline]
    return [
        pair
        for pair in finished(within(members, budget))
        if pair[0].name != ORIGINAL
        and (pair[0].is_baseline or not any(_beats(other, pair, budget) for other in uniform))
    ]


def _beats(uniform: tuple[Trial, Measurement], searched: tuple[Trial, Measurement], budget: Budget) -> bool:
    """Whether a uniform model that costs no more of what is limited is the better one."""
    plain, m = uniform[1], searched[1]
    sizes, times = (plain.size_bytes, m.size_bytes), (plain.latency_ms, m.latency_ms)
    by_size, by_time = (sizes, SAME_SIZE), (times, SAME_TIME)
    limited, other = (by_time, by_size) if budget.limits_latency_alone else (by_size, by_time)
    if _costs_more(*limited) or plain.accuracy <= m.accuracy:
        return False
    return not _costs_more(*other) or told_apart(uniform[0], searched[0]) is not False


def _costs_more(costs: tuple[float, float], same: float) -> bool:
    """Whether the first of two costs is more than `same` times the second."""
    return costs[0] > same * costs[1]


def _is_as_accurate(top: tuple[Trial, Measurement], other: tuple[Trial, Measurement], answers: int) -> bool:
    """Whether a model counts as being as accurate as the most accurate."""
    highest, accuracy = top[1].accuracy, other[1].accuracy
    if accuracy == highest:
        return True
    apart = told_apart(top[0], other[0])
    if apart is None:
        share = highest / 100.0
        error = 100.0 * math.sqrt(max(share * (1.0 - share), 0.0) / max(answers, 1))
        return accuracy >= 100.0 * share - error
    return not apart and highest - accuracy <= min(MOST_LOST, MOST_LOST_SHARE * highest) + 1e-9


def _unlimited_cost(m: Measurement, budget: Budget) -> float:
    """What a model costs of what the budget does not limit: bytes, milliseconds, or their product."""
    size = float(m.size_bytes) if budget.size_bytes is None else 1.0
    return size * (m.latency_ms if budget.latency_ms is None else 1.0)


def _cheapest(pairs: Sequence[tuple[Trial, Measurement]], costs: Sequence[float], *, same: float) -> Trial:
    """Of those that cost at most `same` times the least, the one of least divergence from the teacher."""
    least = same * min(costs)
    return min((pair for pair, cost in zip(pairs, costs, strict=True) if cost <= least), key=_tie)[0]


def _tie(pair: tuple[Trial, Measurement]) -> tuple[float, int, int]:
    """What decides between equals: divergence, bytes, number."""
    trial, m = pair
    return (math.inf if math.isnan(m.kl) else m.kl), m.size_bytes, trial.number
