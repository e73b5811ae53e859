"""What trials teach about milliseconds: a table that is right stays, one that is wrong is found out.

A toy stands in for a machine: units of many sizes whose true times differ from the table's by a factor of
each unit at each width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from autoprune.space.budget import Budget
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import Candidate, Choices, Level, SearchSpace
from autoprune.space.storage import storages_of
from autoprune.strategy.aim import Aim
from autoprune.strategy.records import Records
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.surrogates.latency_model import MS_NOISE, with_corrected_latency

UNITS, RATIOS, WIDTHS = 16, (0.0, 0.25, 0.5, 1.0), (4, 8, 32)
SPACE = SearchSpace(tuple(Choices(f"layer.{k}", RATIOS, storages_of(WIDTHS)) for k in range(UNITS)))


def problem_of(factors: NDArray[np.float64], fixed_ms: float = 2.0) -> Problem:
    """Times of units [u] at widths [w] that are `factors` [u w] of what they should be."""
    rng, table = np.random.default_rng(0), {}
    for u, unit in enumerate(SPACE.units):
        size, ms, damage = rng.lognormal(0, 0.5, 3)
        table[unit.unit] = {
            level: Cost(
                round(8000 * size * (1 - level.ratio) * level.storage.bits / 8),
                damage * (level.ratio**2 + 4.0**-level.storage.bits),
                ms
                * (1 - level.ratio)
                * (0.5 if level.storage.bits <= 8 else 1)
                * factors[u, WIDTHS.index(level.storage.bits)],
            )
            for level in unit.levels()
        }
    return Problem.of(SPACE, Costs(500, table, fixed_ms=fixed_ms))


RIGHT = problem_of(np.ones((UNITS, len(WIDTHS))))


def drawn(count: int, seed: int) -> NDArray[np.intp]:
    """Random candidates [n u]."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(len(level), size=count) for level in RIGHT.levels], 1).astype(np.intp)


def off(one: Problem, truth: Problem) -> float:
    """Mean relative error on candidates that nothing was learned from."""
    chosen = drawn(200, 99)
    return float(np.mean(np.abs(one.totals(chosen).latency_ms / truth.totals(chosen).latency_ms - 1)))


def taught(truth: Problem, count: int, *, noise: float = 0.0, seed: int = 1) -> Problem:
    chosen = drawn(count, seed)
    ms = truth.totals(chosen).latency_ms * np.exp(noise * np.random.default_rng(seed).standard_normal(count))
    return with_corrected_latency(RIGHT, chosen, ms)


def test_without_a_time_the_table_stays() -> None:
    none = drawn(3, 0)
    assert with_corrected_latency(RIGHT, none[:0], np.zeros(0)) is RIGHT
    assert with_corrected_latency(RIGHT, none, np.array([np.nan, np.inf, 0.0])) is RIGHT


def test_a_table_that_is_right_stays_right() -> None:
    found = taught(RIGHT, 20, noise=MS_NOISE)
    assert off(found, RIGHT) < 0.02
    assert np.array_equal(np.isfinite(found.latency_ms), np.isfinite(RIGHT.latency_ms))
    assert (found.latency_ms[found.offered] >= 0).all()


@pytest.mark.parametrize("factor", [0.5, 1.4, 3.0])
def test_another_machine_is_one_factor(factor: float) -> None:
    found = taught(problem_of(np.full((UNITS, len(WIDTHS)), factor), 2.0 * factor), 3)
    assert off(found, problem_of(np.full((UNITS, len(WIDTHS)), factor), 2.0 * factor)) < 0.1


def test_a_width_that_is_slower_than_the_table_says_is_found_out() -> None:
    factors = np.ones((UNITS, len(WIDTHS)))
    factors[:, 0] = 2.0
    truth = problem_of(factors)
    assert off(taught(truth, 12), truth) < 0.4 * off(RIGHT, truth)


def test_the_more_trials_the_smaller_the_error_and_one_factor_is_not_enough() -> None:
    truth = problem_of(np.random.default_rng(5).lognormal(0, 0.7, (UNITS, len(WIDTHS))))
    errors = [off(taught(truth, count, noise=0.03), truth) for count in (4, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    chosen = drawn(64, 1)
    factor = float(np.median(truth.totals(chosen).latency_ms / RIGHT.totals(chosen).latency_ms))
    scaled = with_corrected_latency(RIGHT, drawn(1, 0), factor * RIGHT.totals(drawn(1, 0)).latency_ms)
    assert errors[-1] < 0.5 * off(scaled, truth)


# ---- in a search --------------------------------------------------------------------------------


def measured(truth: Problem, chosen: Sequence[NDArray[np.int64]]) -> Records:
    rows = np.reshape(chosen, (-1, UNITS)).astype(np.intp)
    _, ms, damage = truth.totals(rows)
    return Records(rows, damage, ms)


@pytest.mark.parametrize("seed", range(4))
def test_a_search_under_a_limit_of_time_sees_through_the_errors_of_its_table(seed: int) -> None:
    """What a table makes out to be quickest is what it is most wrong about."""
    truth = problem_of(np.random.default_rng(seed).lognormal(0.3, 0.7, (UNITS, len(WIDTHS))))
    ms = truth.totals(drawn(500, 7)).latency_ms
    limit = float(np.percentile(ms, 20))
    aim = Aim.of(RIGHT, Budget(None, limit))
    tried: list[Candidate] = []
    for k in range(12):
        known = measured(truth, [RIGHT.chosen(trial) for trial in tried])
        one = aim.largest_gain(known, np.zeros((0, UNITS), np.intp), frozenset(tried), seed=k, volume=True)
        assert one is not None
        tried.append(one)
    within = measured(truth, [RIGHT.chosen(trial) for trial in tried]).latency_ms <= limit
    assert within[-6:].sum() >= 4


def test_where_no_candidate_is_predicted_to_be_quick_enough_the_quickest_are_tried_until_one_is() -> None:
    aim = Aim.of(RIGHT, Budget(None, 0.5 * RIGHT.fixed_ms))
    seen: set[Candidate] = set()
    for k in range(5):
        one = aim.largest_gain(measured(RIGHT, []), np.zeros((0, UNITS), np.intp), seen, seed=k, volume=True)
        assert one is not None
        assert one not in seen
        ms = RIGHT.totals(RIGHT.chosen(one)[None]).latency_ms[0]
        assert ms < 0.4 * RIGHT.totals(drawn(500, 7)).latency_ms.mean()
        seen.add(one)
    quick = RIGHT.chosen(Candidate(tuple((unit.unit, Level.of(1.0, 4)) for unit in SPACE.units)))
    met = Records(quick[None].astype(np.intp), np.ones(1), np.array([0.4 * RIGHT.fixed_ms]))
    assert aim.largest_gain(met, np.zeros((0, UNITS), np.intp), seen, seed=9, volume=True) not in seen
