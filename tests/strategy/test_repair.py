"""Costs and repair: what fits, what is left alone, and how near greedy comes to brute force."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.space.budget import Budget
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import UNTOUCHED, Candidate, Choices, Level, SearchSpace, is_untouched
from autoprune.space.storage import storages_of
from autoprune.strategy.baselines import baselines, uniform_pruning, warm_starts
from autoprune.strategy.repair import repair

quick = hypothesis.settings(deadline=None, max_examples=60)
NONE: frozenset[Candidate] = frozenset()


def problem(seed: int) -> tuple[SearchSpace, Costs]:
    """Two to four units of random size and sensitivity: harder levels are smaller and hurt more."""
    rng = random.Random(seed)
    units, tables = [], {}
    for k in range(rng.randint(2, 4)):
        ratios = tuple(sorted({0.0, *rng.sample([0.25, 0.5, 0.75], rng.randint(0, 2))}))
        bits = tuple(sorted({32, *rng.sample([2, 4, 8, 16], rng.randint(1, 2))}))
        one = Choices(f"layer.{k}", ratios, storages_of(bits))
        weight, hurt = rng.randint(50, 2000), rng.uniform(0.1, 3.0)
        table = {UNTOUCHED: Cost(weight)}
        for level in list(one.levels())[1:]:
            damage = hurt * (level.ratio**1.5 + 2.0**-level.storage.bits) * rng.uniform(0.7, 1.3)
            table[level] = Cost(int(weight * (1 - level.ratio) * level.storage.bits / 32) + 3, damage)
        units.append(one)
        tables[one.unit] = table
    return SearchSpace(tuple(units)), Costs(rng.randint(0, 100), tables)


def everything(space: SearchSpace) -> list[Candidate]:
    names = [unit.unit for unit in space.units]
    choices = itertools.product(*(unit.levels() for unit in space.units))
    return [Candidate(tuple(zip(names, chosen, strict=True))) for chosen in choices]


def limit_between(space: SearchSpace, costs: Costs, share: float) -> int:
    """A limit from what the smallest candidate takes (0) to what the original does (1)."""
    low, high = costs.size_bytes(costs.smallest(space)), costs.size_bytes(space.untouched())
    return low + round(share * (high - low))


seeds, shares = some.integers(0, 2000), some.floats(0, 1)

# ---- costs --------------------------------------------------------------------------------------


@quick
@hypothesis.given(seeds)
def test_size_and_damage_are_sums_over_the_units(seed: int) -> None:
    space, costs = problem(seed)
    one = random.Random(seed).choice(everything(space))
    parts = [costs.levels[unit.unit][one[unit.unit]] for unit in space.units]
    assert costs.size_bytes(one) == costs.fixed_bytes + sum(part.size_bytes for part in parts)
    assert costs.damage(one) == pytest.approx(sum(part.damage for part in parts))
    bare = replace(costs, fixed_bytes=0)
    assert costs.size_bytes(one) - bare.size_bytes(one) == costs.fixed_bytes


@quick
@hypothesis.given(seeds)
def test_smallest_is_the_smallest_of_all_and_of_those_the_least_damaged(seed: int) -> None:
    space, costs = problem(seed)
    least = min((costs.size_bytes(candidate), costs.damage(candidate)) for candidate in everything(space))
    found = costs.smallest(space)
    assert (costs.size_bytes(found), costs.damage(found)) == pytest.approx(least)


def test_of_two_as_small_the_smallest_is_the_one_that_hurts_less() -> None:
    table = {UNTOUCHED: Cost(9), Level.of(0.0, 4): Cost(5, 0.3), Level.of(0.5, 8): Cost(5, 0.2)}
    table |= {Level.of(0.0, 8): Cost(7, 0.1), Level.of(0.5, 4): Cost(5, 0.4), Level.of(0.5, 32): Cost(8, 0.1)}
    space = SearchSpace((Choices("a", (0.0, 0.5), storages_of((4, 8, 32))),))
    assert Costs(0, {"a": table}).smallest(space)["a"] == Level.of(0.5, 8)


@quick
@hypothesis.given(seeds)
def test_costs_read_back_the_same_from_json(seed: int) -> None:
    _, costs = problem(seed)
    text = json.dumps(costs.as_json(), allow_nan=False)
    again = Costs.from_json(json.loads(text))
    assert again == costs
    assert [list(t) for t in again.levels.values()] == [list(t) for t in costs.levels.values()]


# ---- repair -------------------------------------------------------------------------------------


@quick
@hypothesis.given(seeds, shares)
def test_what_comes_back_fits_and_is_of_the_space(seed: int, share: float) -> None:
    space, costs = problem(seed)
    limit = limit_between(space, costs, share)
    for candidate in random.Random(seed).sample(everything(space), 4):
        found = repair(candidate, {candidate}, seed, space=space, costs=costs, limit_bytes=limit)
        space.check(found)
        assert costs.size_bytes(found) <= limit


@quick
@hypothesis.given(seeds, shares)
def test_what_fits_and_is_new_is_left_alone(seed: int, share: float) -> None:
    space, costs = problem(seed)
    limit = limit_between(space, costs, share)
    one = random.Random(seed).choice([c for c in everything(space) if costs.size_bytes(c) <= limit])
    assert repair(one, NONE, seed, space=space, costs=costs, limit_bytes=limit) is one
    assert repair(one, NONE, seed, space=space, costs=costs, limit_bytes=None) is one


@quick
@hypothesis.given(seeds, shares)
def test_the_last_new_one_that_fits_is_found(seed: int, share: float) -> None:
    """All that fit are seen but one, wherever that one is; then all are."""
    space, costs = problem(seed)
    limit = limit_between(space, costs, share)
    every = everything(space)
    fit = {candidate for candidate in every if costs.size_bytes(candidate) <= limit}
    rng = random.Random(seed)
    last = rng.choice(sorted(fit, key=str))
    start = rng.choice(every)
    assert repair(start, fit - {last}, seed, space=space, costs=costs, limit_bytes=limit) == last
    assert repair(start, fit, seed, space=space, costs=costs, limit_bytes=limit) in fit


def test_in_an_unlimited_space_each_candidate_comes_once() -> None:
    space, costs = problem(4)
    every = everything(space)
    seen: set[Candidate] = set()
    for number in range(len(every)):
        seen.add(repair(every[0], seen, number, space=space, costs=costs, limit_bytes=None))
    assert seen == set(every)


def test_a_new_one_is_found_at_once_where_almost_nothing_fits() -> None:
    """Room for one unit of twelve to be a step above its smallest: 13 of 7^12 fit."""
    steps = {Level.of(0.0, bits): Cost(bits, 1 / bits) for bits in (32, 16, 8, 6, 4, 3, 2)}
    units = tuple(
        Choices(f"u{k}", (0.0,), storages_of(tuple(level.storage.bits for level in steps))) for k in range(12)
    )
    space, costs = SearchSpace(units), Costs(0, {unit.unit: steps for unit in units})
    seen: set[Candidate] = set()
    for number in range(13):
        one = repair(space.untouched(), seen, number, space=space, costs=costs, limit_bytes=25)
        assert costs.size_bytes(one) <= 25
        seen.add(one)
    assert len(seen) == 13
    assert repair(space.untouched(), seen, 0, space=space, costs=costs, limit_bytes=25) in seen


def test_where_nothing_fits_the_smallest_comes_back() -> None:
    space, costs = problem(1)
    found = repair(space.untouched(), NONE, 0, space=space, costs=costs, limit_bytes=1)
    assert costs.size_bytes(found) == costs.size_bytes(costs.smallest(space))


@quick
@hypothesis.given(seeds, shares)
def test_the_seed_decides_and_nothing_else(seed: int, share: float) -> None:
    space, costs = problem(seed)
    limit = limit_between(space, costs, share)
    one = costs.smallest(space)
    found = [repair(one, {one}, seed, space=space, costs=costs, limit_bytes=limit) for _ in range(3)]
    assert found[0] == found[1] == found[2]


def test_another_seed_is_another_candidate() -> None:
    space, costs = problem(5)
    one = space.untouched()
    found = {repair(one, {one}, seed, space=space, costs=costs, limit_bytes=None) for seed in range(20)}
    assert len(found) > 3


def test_greedy_is_near_the_best_of_all_that_fit() -> None:
    """The original brought under 400 random limits, its damage against that of the best by brute force.

    Found: the best itself in 95 % of cases, 1.03 times its damage in the mean, 2.6 times at worst. Of
    5,000 other cases the worst is 24 times, where one unit of three is two thirds of the model and
    its cheapest step saves far more than is needed.
    """
    factors = []
    for seed in range(400):
        space, costs = problem(seed)
        limit = limit_between(space, costs, random.Random(seed).uniform(0, 0.99))
        fit = [
            costs.damage(candidate) for candidate in everything(space) if costs.size_bytes(candidate) <= limit
        ]
        found = repair(space.untouched(), NONE, 0, space=space, costs=costs, limit_bytes=limit)
        factors.append(costs.damage(found) / min(fit))
    exact = sum(ratio < 1 + 1e-9 for ratio in factors) / len(factors)
    assert min(factors) >= 1 - 1e-9
    assert exact > 0.9
    assert sum(factors) / len(factors) < 1.1
    assert max(factors) < 3


def test_room_that_is_left_goes_to_what_was_proposed() -> None:
    """8 bits of `a` save the most a nat and free more than needed: `b` then needs no change at all."""
    a = {UNTOUCHED: Cost(100), Level.of(0.0, 8): Cost(25, 0.1)}
    b = {UNTOUCHED: Cost(20), Level.of(0.0, 8): Cost(5, 0.001)}
    space = SearchSpace(
        (Choices("a", (0.0,), storages_of((8, 32))), Choices("b", (0.0,), storages_of((8, 32))))
    )
    costs = Costs(0, {"a": a, "b": b})
    found = repair(space.untouched(), NONE, 0, space=space, costs=costs, limit_bytes=60)
    assert found == Candidate((("a", Level.of(0.0, 8)), ("b", UNTOUCHED)))


# ---- warm starts and baselines ------------------------------------------------------------------


@quick
@hypothesis.given(seeds, shares, some.integers(0, 9))
def test_warm_starts_fit_differ_and_get_smaller(seed: int, share: float, count: int) -> None:
    space, costs = problem(seed)
    limit = limit_between(space, costs, share)
    found = warm_starts(space, costs, limit_bytes=limit, count=count)
    sizes = [costs.size_bytes(candidate) for candidate in found]
    assert len(found) == len(set(found)) <= count
    assert bool(found) == bool(count)
    assert all(size <= limit for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    for candidate in found:
        space.check(candidate)


def fine() -> tuple[SearchSpace, Costs]:
    """Twenty units of which each step saves at most 1 % of the model."""
    levels = {Level.of(r, b): (1 - r) * b for r in (0.0, 0.25, 0.5, 0.75) for b in (4, 8, 16, 32)}
    table = {level: Cost(round(100 * size), 1 / size - 1 / 32) for level, size in levels.items()}
    units = tuple(Choices(f"u{k}", (0.0, 0.25, 0.5, 0.75), storages_of((4, 8, 16, 32))) for k in range(20))
    return SearchSpace(units), Costs(500, {unit.unit: table for unit in units})


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_the_first_warm_start_uses_the_limit_and_the_last_nearly_none_of_it(share: float) -> None:
    space, costs = fine()
    limit = limit_between(space, costs, share)
    sizes = [costs.size_bytes(c) for c in warm_starts(space, costs, limit_bytes=limit, count=6)]
    assert 0.9 * limit <= sizes[0] <= limit
    assert sizes[-1] <= 1.1 * costs.size_bytes(costs.smallest(space))
    assert len(sizes) == 6


def test_without_a_limit_the_warm_starts_begin_with_the_original() -> None:
    space, costs = fine()
    assert is_untouched(warm_starts(space, costs, limit_bytes=None, count=3)[0])
    assert not is_untouched(costs.smallest(space))


@pytest.mark.parametrize("above", [0, 1, 50])
def test_warm_starts_fit_a_limit_just_above_the_smallest(above: int) -> None:
    space, costs = fine()
    limit = costs.size_bytes(costs.smallest(space)) + above
    found = warm_starts(space, costs, limit_bytes=limit, count=6)
    assert found
    assert all(costs.size_bytes(candidate) <= limit for candidate in found)


def test_no_warm_start_where_nothing_fits() -> None:
    space, costs = fine()
    for limit in (0, 1, costs.size_bytes(costs.smallest(space)) - 1):
        assert warm_starts(space, costs, limit_bytes=limit, count=6) == []


@quick
@hypothesis.given(seeds, shares)
def test_uniform_pruning_is_the_least_damaging_that_fits(seed: int, share: float) -> None:
    """Among all pairs of one ratio above 0 and bits."""
    space, costs = problem(seed)
    limit = limit_between(space, costs, share)
    pairs = itertools.product((0.25, 0.5, 0.75), (2, 4, 8, 16, 32))
    offered = (
        {r for unit in space.units for r in unit.ratios},
        {s.bits for unit in space.units for s in unit.storages},
    )
    every = [space.uniform(Level.of(r, b)) for r, b in pairs if r in offered[0] and b in offered[1]]
    fit = [costs.damage(candidate) for candidate in every if costs.size_bytes(candidate) <= limit]
    found = uniform_pruning(space, costs, Budget(limit))
    if not fit:
        assert found is None
        return
    assert found is not None
    assert costs.size_bytes(found) <= limit
    assert costs.damage(found) == min(fit)
    assert any(level.ratio > 0 for _, level in found.items)


@quick
@hypothesis.given(seeds, shares)
def test_below_4_bits_the_widest_uniform_model_that_fits_is_a_baseline(seed: int, share: float) -> None:
    space, costs = problem(seed)
    limit = limit_between(space, costs, share)
    named = baselines(space, costs, Budget(limit))
    narrow = {
        s.bits: space.uniform(Level(0.0, s)) for unit in space.units for s in unit.storages if s.bits < 4
    }
    fit = [bits for bits, candidate in narrow.items() if costs.size_bytes(candidate) <= limit]
    is_needed = costs.size_bytes(space.uniform(Level.of(0.0, 4))) > limit
    found = {f"uniform {bits}-bit" for bits in narrow} & named.keys()
    expected = {f"uniform {max(fit)}-bit"} if is_needed and fit else set()
    for asked in (8, 4):  # where no unit offers them, what is uniform then has the name of what it holds
        held = {level.storage.bits for _, level in space.uniform(Level.of(0.0, asked)).items}
        if asked not in held:
            expected |= {f"uniform {max(held)}-bit"} & {f"uniform {bits}-bit" for bits in narrow}
    assert found == expected
    assert all(named[f"uniform {bits}-bit"] == narrow[bits] for bits in fit if f"uniform {bits}-bit" in found)


def test_uniform_pruning_without_a_limit_is_the_least_ratio_in_floats() -> None:
    space, costs = fine()
    assert uniform_pruning(space, costs, Budget()) == space.uniform(Level.of(0.25, 32))


def test_uniform_pruning_keeps_a_limit_of_latency() -> None:
    space, costs = fine()
    table = {u: {lv: 4.0 * (1 - lv.ratio) for lv in levels} for u, levels in costs.levels.items()}
    timed = costs.with_latency(table, 1.0)
    limit = timed.latency_ms(space.uniform(Level.of(0.5, 32)))
    found = uniform_pruning(space, timed, Budget(latency_ms=limit))
    assert found is not None
    assert timed.latency_ms(found) <= limit
    assert {level.ratio for _, level in found.items} == {0.5}


def test_no_uniform_pruning_where_nothing_is_pruned() -> None:
    space = SearchSpace((Choices("a", (0.0,), storages_of((8, 32))),))
    costs = Costs(0, {"a": {UNTOUCHED: Cost(100), Level.of(0.0, 8): Cost(25, 0.1)}})
    assert uniform_pruning(space, costs, Budget()) is None
