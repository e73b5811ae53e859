"""Which models of a front answer best together, and with which weights; arrays alone.

Source: Caruana et al., Ensemble selection from libraries of models, ICML 2004, section 2: forward selection
by the validation score. Each model is taken once at most, since a repeat would cost its bytes again or be
only a weight; weights are searched for afterwards. Where there are few sets of models all are tried.

Shapes: n models, m answered places, k outputs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.space.budget import Budget

MOST_SETS = 2000
"""Sets of models up to which all are tried: 15 models have 455 sets of three."""

WEIGHT_STEPS = 10
"""Weights are tenths, each at least one: a finer grid would only fit the validation rows."""

MemberAnswers = NDArray[np.float32]

MeanOfAnswers = Callable[[Sequence[MemberAnswers], Sequence[float]], MemberAnswers]
"""Answers [m k] of several models, and a weight of each -> their average [m k]."""

ScoreOfAnswers = Callable[[MemberAnswers], tuple[float, ...]]
"""Answers [m k] -> numbers of which more is better, the first first."""


@dataclass(frozen=True)
class AnsweringModel:
    """A model that may be a member. size_bytes, latency_ms: what it costs."""

    answers: MemberAnswers
    size_bytes: int
    latency_ms: float = 0.0


def choose_members(
    models: Sequence[AnsweringModel], count: int, budget: Budget, mean: MeanOfAnswers, score: ScoreOfAnswers
) -> tuple[int, ...] | None:
    """Numbers of the `count` models whose simple average scores best within a budget for all together.

    Of sets that score alike the one with fewest bytes. None where no `count` models fit, or where two
    limits at once leave forward selection none.
    """
    sets = math.comb(len(models), count)
    if sets <= MOST_SETS:
        fitting: Iterator[tuple[int, ...]] = (
            chosen
            for chosen in itertools.combinations(range(len(models)), count)
            if _fits(models, chosen, budget)
        )
        return max(fitting, key=lambda chosen: _value(models, chosen, mean, score), default=None)
    return _forward(models, count, budget, mean, score)


def choose_weights(
    answers: Sequence[MemberAnswers], mean: MeanOfAnswers, score: ScoreOfAnswers
) -> tuple[float, ...]:
    """The weights of members, in tenths that add up to 1, whose average scores best.

    Of those that score alike the most even.
    """
    steps = max(WEIGHT_STEPS, len(answers))
    cuts = itertools.combinations(range(1, steps), len(answers) - 1)
    parts = [np.diff([0, *cut, steps]) for cut in cuts]
    even = sorted(parts, key=lambda part: int((part**2).sum()))
    grid = [tuple(float(x) / steps for x in part) for part in even]
    return max(grid, key=lambda weights: score(mean(answers, weights)))


def equal_weights(count: int) -> tuple[float, ...]:
    """The weights of a simple average."""
    return (1.0 / count,) * count


def least_costs(models: Sequence[AnsweringModel], count: int) -> tuple[int, float]:
    """Bytes of the `count` smallest models together, and milliseconds of the `count` fastest."""
    return (
        sum(sorted(model.size_bytes for model in models)[:count]),
        sum(sorted(model.latency_ms for model in models)[:count]),
    )


def _forward(
    models: Sequence[AnsweringModel], count: int, budget: Budget, mean: MeanOfAnswers, score: ScoreOfAnswers
) -> tuple[int, ...] | None:
    """Add the model that helps most, as long as there is room for as many as are still needed."""
    chosen: tuple[int, ...] = ()
    while len(chosen) < count:
        able = [
            (*chosen, k)
            for k in range(len(models))
            if k not in chosen and _leaves_room(models, (*chosen, k), count, budget)
        ]
        if not able:
            return None
        chosen = max(able, key=lambda one: _value(models, one, mean, score))
    return tuple(sorted(chosen))


def _leaves_room(
    models: Sequence[AnsweringModel], chosen: tuple[int, ...], count: int, budget: Budget
) -> bool:
    """Whether the cheapest others still fit beside those chosen."""
    rest = [model for k, model in enumerate(models) if k not in chosen]
    size, ms = least_costs(rest, count - len(chosen))
    return budget.allows(size + _size(models, chosen), ms + _ms(models, chosen))


def _fits(models: Sequence[AnsweringModel], chosen: tuple[int, ...], budget: Budget) -> bool:
    return budget.allows(_size(models, chosen), _ms(models, chosen))


def _value(
    models: Sequence[AnsweringModel], chosen: tuple[int, ...], mean: MeanOfAnswers, score: ScoreOfAnswers
) -> tuple[float, ...]:
    """What is compared: the score of the simple average, then fewer bytes."""
    together = mean([models[k].answers for k in chosen], equal_weights(len(chosen)))
    return (*score(together), -_size(models, chosen))


def _size(models: Sequence[AnsweringModel], chosen: tuple[int, ...]) -> int:
    return sum(models[k].size_bytes for k in chosen)


def _ms(models: Sequence[AnsweringModel], chosen: tuple[int, ...]) -> float:
    return sum(models[k].latency_ms for k in chosen)
