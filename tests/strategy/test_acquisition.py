"""Acquisition function: what is on a front, and what a candidate adds to it."""

from __future__ import annotations

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as some
import numpy as np
import pytest

from autoprune.space.budget import Budget
from autoprune.space.levels import Level
from autoprune.strategy.acquisition import Acquisition, Scale
from autoprune.strategy.hypervolume import staircase
from autoprune.strategy.solver.planes import BYTES, DAMAGE, MS, Choice, Floats
from tests.support.toy_search import Toy

points = arrays.arrays(
    np.int64, some.tuples(some.integers(0, 9), some.just(2)), elements=some.integers(0, 5)
).map(lambda x: x / 5)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(points)
def test_a_point_is_on_the_staircase_where_none_no_larger_is_better(known: Floats) -> None:
    members = {k for k, (x, y) in enumerate(known) if not (known[known[:, 0] <= x, 1] < y).any()}
    assert set(staircase(known).tolist()) == members


def acquisition(toy: Toy, tried: Choice, in_flight: Choice, budget: Budget, *, volume: bool) -> Acquisition:
    aim = toy.aim(budget)
    known = toy.records([aim.problem.candidate(row) for row in tried])
    return Acquisition.of(
        aim.problem, aim.outlook(known), known, in_flight,
        budget=budget, scale=aim.scale, lattice=aim.lattice, volume=volume,
    )  # fmt: skip


@pytest.mark.parametrize("volume", [False, True])
def test_what_is_in_flight_adds_nothing_a_second_time(volume: bool) -> None:
    toy = Toy.of(5)
    rows = toy.records(toy.random(12, 1, 1e9)).chosen
    tried, in_flight = rows[:8], rows[8:]
    assert (acquisition(toy, tried, in_flight, Budget(), volume=volume).gain(in_flight) == 0).all()
    assert (acquisition(toy, tried, in_flight[:0], Budget(), volume=volume).gain(rows) >= 0).all()
    assert (acquisition(toy, rows[:0], in_flight[:0], Budget(), volume=volume).gain(in_flight) > 0).any()


@pytest.mark.parametrize("volume", [False, True])
def test_a_candidate_that_is_counted_later_counts_as_one_in_flight(volume: bool) -> None:
    toy = Toy.of(5)
    rows = toy.records(toy.random(20, 1, 1e9)).chosen
    tried, first, later = rows[:8], rows[8:10], rows[10:13]
    at_once = acquisition(toy, tried, rows[8:13], Budget(), volume=volume)
    step_by_step = acquisition(toy, tried, first, Budget(), volume=volume).counting(later)
    assert step_by_step.gain(rows) == pytest.approx(at_once.gain(rows))
    assert (step_by_step.gain(later) == 0).all()


@pytest.mark.parametrize(
    ("budget", "plane"),
    [
        (Budget(), (BYTES, DAMAGE)),
        (Budget(30_000), (BYTES, DAMAGE)),
        (Budget(None, 3.0), (MS, DAMAGE)),
        (Budget(30_000, 3.0), (BYTES, DAMAGE)),
    ],
)
def test_divergence_is_traded_for_milliseconds_only_where_these_alone_are_limited(
    budget: Budget, plane: tuple[int, int]
) -> None:
    toy = Toy.of(3)
    none = toy.records([]).chosen
    assert acquisition(toy, none, none, budget, volume=False).plane == plane


def test_bytes_count_a_little_beyond_a_limit_and_up_to_eight_bits_without() -> None:
    toy = Toy.of(4)
    problem, eight = toy.aim().problem, toy.costs.size_bytes(toy.space.uniform(Level.of(0.0, 8)))
    scale = Scale.of(problem, Budget())
    assert (scale.byte_range.high, scale.edge_bytes) == (eight, eight)
    assert scale.byte_range.low == toy.costs.size_bytes(toy.costs.smallest(toy.space))
    limit = round((scale.byte_range.low + eight) / 2)
    limited = Scale.of(problem, Budget(limit))
    assert limited.byte_range.high == limit < limited.edge_bytes < eight
    assert Scale.of(problem, Budget(2 * eight)) == scale
