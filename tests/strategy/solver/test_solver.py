"""The solver against brute force, its bounds and each other's answers; no times.

Damages are multiples of 1/64 and bytes integers where fronts are compared, so that sums are exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import Candidate, Choices, Level, SearchSpace
from autoprune.space.storage import storages_of
from autoprune.strategy.solver import knapsack
from autoprune.strategy.solver.lagrange import hulls, price_curve
from autoprune.strategy.solver.mckp import Axis, Problem, Totals, solve, solve_front, sweep
from autoprune.strategy.solver.planes import Floats, Ints

quick = hypothesis.settings(deadline=None, max_examples=80)
seeds, shares = some.integers(0, 10**6), some.floats(-0.05, 1.05)


def tables(seed: int) -> Problem:
    """Two to five units of random levels, some absent; ties, zero damages and equal levels are common."""
    rng = np.random.default_rng(seed)
    shape = u, k = int(rng.integers(2, 6)), int(rng.integers(2, 6))
    top = int(rng.choice([4, 30, 10**6]))
    size = rng.integers(1, top, shape).astype(float)
    ms = rng.integers(0, int(rng.choice([2, 6, 50])), shape) / 8
    damage = rng.integers(0, int(rng.choice([2, 6, 500])), shape) / 64
    gone = rng.random(shape) < 0.15
    gone[:, 0] = False
    levels = tuple(Level.of(j / 100, 8) for j in range(k))
    return Problem(
        tuple(f"u{j}" for j in range(u)),
        (levels,) * u,
        *(np.where(gone, np.inf, values) for values in (size, ms, damage)),
        float(rng.integers(0, 20)),
        float(rng.integers(0, 4)),
    )


def large(seed: int, units: int = 100, *, decades: float = 4.0) -> Problem:
    """Units of 25 levels: weights of 1e3 to 1e7 (or fewer decades), damages of 1e-7 to about 10 nats."""
    rng = np.random.default_rng(seed)
    levels = tuple(Level.of(r, b) for r in (0.0, 0.2, 0.4, 0.6, 0.8) for b in (32, 8, 4, 3, 2))
    ratio, bits = (
        np.array([level.ratio for level in levels]),
        np.array([level.storage.bits for level in levels]),
    )
    weights = 10 ** rng.uniform(7 - decades, 7, (units, 1))
    size = np.floor(weights * (1 - ratio) * bits / 8) + 40
    ms = rng.uniform(0.05, 1, (units, 1)) * (0.1 + (1 - ratio) * np.where(bits == 32, 1, 0.3 + 0.8 / bits))
    hurt = ratio**2 * 3 + np.where(bits == 32, 0.0, 20 * 4.0**-bits)
    damage = 10 ** rng.uniform(-4, 0.5, (units, 1)) * hurt * rng.uniform(0.7, 1.3, (units, 25))
    return Problem(tuple(f"u{k}" for k in range(units)), (levels,) * units, size, ms, damage, 1e5, 1.0)


def everything(problem: Problem) -> Ints:
    """All candidates [n u]."""
    return np.array(list(itertools.product(*(np.flatnonzero(levels) for levels in problem.offered))))


def between(low: float, high: float, share: float) -> float:
    return float(low + share * (high - low))


def limits(problem: Problem, share: float, ms_share: float) -> dict[str, float]:
    """Limits between the least and the most that a candidate takes, and a bit beyond."""
    size, ms, _ = problem.totals(everything(problem) if len(problem.units) < 9 else extremes(problem))
    return {
        "limit_bytes": between(size.min(), size.max(), share),
        "limit_ms": between(ms.min(), ms.max(), ms_share),
    }


def extremes(problem: Problem) -> Ints:
    """The least and the most in bytes and in milliseconds."""
    both = problem.size_bytes, problem.latency_ms
    return np.array([pick(values, axis=1) for values in both for pick in (np.argmin, np.argmax)])


def fitting(problem: Problem, within: dict[str, float]) -> tuple[Floats, Floats, Floats]:
    """Totals of all candidates within limits, by brute force."""
    size, ms, damage = problem.totals(everything(problem))
    fit = (size <= within.get("limit_bytes", np.inf)) & (ms <= within.get("limit_ms", np.inf))
    return size[fit], ms[fit], damage[fit]


def true_front(size: Floats, damage: Floats) -> list[tuple[float, float]]:
    points = set(zip(size.tolist(), damage.tolist(), strict=True))
    return sorted(p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points))


def only(within: dict[str, float], which: str) -> dict[str, float]:
    """Both limits, one of them or none."""
    return {key: value for key, value in within.items() if which in ("both", key)}


which_limits = pytest.mark.parametrize("which", ["both", "limit_bytes", "limit_ms", "none"])


# ---- the problem --------------------------------------------------------------------------------


def space_and_costs() -> tuple[SearchSpace, Costs]:
    space = SearchSpace(
        (Choices("a", (0.0, 0.5), storages_of((8, 32))), Choices("b", (0.0,), storages_of((4, 32))))
    )
    table = {
        unit.unit: {level: Cost(k + 9, k / 8, k / 4) for k, level in enumerate(unit.levels())}
        for unit in space.units
    }
    return space, Costs(7, table, 2.0)


def test_a_problem_has_the_costs_of_its_space() -> None:
    space, costs = space_and_costs()
    problem = Problem.of(space, costs)
    assert problem.size_bytes.shape == (2, 4)
    assert problem.offered.sum() == 6
    assert np.isinf(problem.damage[1, 2:]).all()
    every = everything(problem)
    candidates = [problem.candidate(row) for row in every]
    assert len(set(candidates)) == 8
    size, ms, damage = problem.totals(every)
    for k, candidate in enumerate(candidates):
        space.check(candidate)
        assert (problem.chosen(candidate) == every[k]).all()
        assert (size[k], ms[k], damage[k]) == (
            costs.size_bytes(candidate),
            costs.latency_ms(candidate),
            costs.damage(candidate),
        )


def test_another_damage_leaves_absent_levels_absent() -> None:
    problem = Problem.of(*space_and_costs())
    other = problem.with_damage(np.ones((2, 4)))
    assert (other.offered == problem.offered).all()
    assert (other.damage[other.offered] == 1).all()
    assert problem.damage[0, 0] == 0
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(2, 4\)"):
        problem.with_damage(np.ones((3, 4)))


def test_a_unit_without_levels_is_named() -> None:
    problem = Problem.of(*space_and_costs())
    broken = replace(problem, damage=np.where([[True], [False]], problem.damage, np.inf))
    for ask in (solve, solve_front):
        with pytest.raises(ValueError, match="unit b has no level"):
            ask(broken)


# ---- small problems, by brute force -------------------------------------------------------------


@which_limits
@quick
@hypothesis.given(seeds, shares, shares)
def test_the_front_is_the_true_one(which: str, seed: int, share: float, ms_share: float) -> None:
    problem = tables(seed)
    within = only(limits(problem, share, ms_share), which)
    size, _, damage = fitting(problem, within)
    found = solve_front(problem, **within)
    totals = problem.totals(found)
    assert list(zip(totals[0].tolist(), totals[2].tolist(), strict=True)) == true_front(size, damage)
    assert (totals[1] <= within.get("limit_ms", np.inf)).all()


@which_limits
@quick
@hypothesis.given(seeds, shares, shares)
def test_the_least_damage_is_found(which: str, seed: int, share: float, ms_share: float) -> None:
    problem = tables(seed)
    within = only(limits(problem, share, ms_share), which)
    size, _, damage = fitting(problem, within)
    found = solve(problem, **within)
    if not len(size):
        assert found is None
        return
    assert found is not None
    got = [total[0] for total in problem.totals(found[None])]
    assert got[2] == damage.min()
    assert got[0] <= within.get("limit_bytes", np.inf)
    assert got[1] <= within.get("limit_ms", np.inf)


@which_limits
@quick
@hypothesis.given(seeds, shares, shares)
def test_with_few_states_kept_it_still_fits_and_is_near(
    which: str, seed: int, share: float, ms_share: float
) -> None:
    """The ways of large problems on small ones: never over a limit, None only where nothing fits."""
    problem = tables(seed)
    within = only(limits(problem, share, ms_share), which)
    size, _, damage = fitting(problem, within)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knapsack, "CAP", 8)
        found, best = solve_front(problem, **within), solve(problem, **within)
    truth = true_front(size, damage)
    got = problem.totals(found)
    assert bool(len(found)) == bool(truth) == (best is not None)
    for size, other in zip(got.size_bytes, got.damage, strict=True):
        assert any(p[0] <= size and p[1] <= other for p in truth)
    if best is not None:
        assert problem.totals(best[None]).damage[0] <= damage.min() + 0.25 * np.ptp(damage)


@pytest.mark.parametrize("along", get_args(Axis))
@quick
@hypothesis.given(
    seeds, some.lists(shares, min_size=1, max_size=4), some.lists(some.floats(0, 3), min_size=1, max_size=3)
)
def test_a_sweep_stays_within_its_limits(
    along: Axis, seed: int, at: list[float], weights: list[float]
) -> None:
    problem = tables(seed)

    def named(totals: Totals) -> Totals:
        """Sums of what is limited, what is priced, and damage."""
        limited, priced, damage = totals
        return totals if along == "bytes" else Totals(priced, limited, damage)

    size, ms, damage = named(problem.totals(everything(problem)))
    targets = np.array([between(size.min(), size.max(), share) for share in at])
    found = sweep(problem, targets, np.array(weights), along=along)
    assert found.shape == (len(weights) * len(targets), len(problem.units))
    got = named(problem.totals(found))
    assert problem.offered[np.arange(len(problem.units)), found].all()
    for k, (weight, target) in enumerate(itertools.product(weights, targets)):
        assert got[0][k] <= max(target, size.min())
        cost = damage + weight * ms
        fit = size <= max(target, size.min())
        worst = cost[fit].max()
        assert cost[fit].min() - 1e-9 <= got[2][k] + weight * got[1][k] <= worst + 1e-9
        if target >= size.max():
            assert got[2][k] + weight * got[1][k] == pytest.approx(cost.min())


def test_a_sweep_along_milliseconds_is_one_along_bytes_with_both_exchanged() -> None:
    problem = large(3, 12)
    exchanged = replace(
        problem,
        size_bytes=problem.latency_ms, latency_ms=problem.size_bytes,
        fixed_bytes=problem.fixed_ms, fixed_ms=problem.fixed_bytes,
    )  # fmt: skip
    targets, weights = np.linspace(2.0, 9.0, 7), np.array([0.0, 1e-8, 1e-6])
    found = sweep(problem, targets, weights, along="milliseconds")
    np.testing.assert_array_equal(found, sweep(exchanged, targets, weights))
    assert len(np.unique(found, axis=0)) > 7


def test_of_two_as_good_the_smaller_is_found() -> None:
    levels = (Level.of(0.0, 8), Level.of(0.0, 4), Level.of(0.0, 2))
    same = np.full((1, 3), 0.5)
    problem = Problem(("a",), (levels,), np.array([[9.0, 5.0, 4.0]]), same, same, 0.0, 0.0)
    assert solve(problem) == solve(problem, limit_ms=1.0) == [2]
    assert problem.candidate(np.array([2])) == Candidate((("a", Level.of(0.0, 2)),))


# ---- prices -------------------------------------------------------------------------------------


@quick
@hypothesis.given(seeds)
def test_hulls_are_the_cheapest_at_every_price(seed: int) -> None:
    problem = tables(seed)
    path, slope, grown = (first_of[0] for first_of in hulls(problem.size_bytes, problem.damage[None]))
    assert (np.diff(slope, axis=1) <= 0).all()
    for price in (0.0, *np.unique(slope[slope > 0]) * 1.001, 1e9):
        total = problem.damage + price * np.where(problem.offered, problem.size_bytes, 0.0)
        on_hull = np.take_along_axis(total, path, 1)
        assert on_hull.min(1) == pytest.approx(total.min(1))
    size = np.take_along_axis(problem.size_bytes, path, 1)
    assert (np.diff(size, axis=1) == grown).all()


@quick
@hypothesis.given(seeds, shares)
def test_the_price_of_a_millisecond_meets_its_limit_and_bounds_damage(seed: int, share: float) -> None:
    problem = tables(seed)
    size, ms, damage = problem.totals(everything(problem))
    limit = between(ms.min(), ms.max(), max(share, 0.0)) - problem.fixed_ms
    curve = price_curve(np.stack([problem.size_bytes, problem.latency_ms, problem.damage]), limit)
    assert (curve.costs[1].sum(1) <= limit + 1e-6).all()
    fit = ms - problem.fixed_ms <= limit
    for byte, milli, bound in zip(curve.byte, curve.milli, curve.bound, strict=True):
        total = damage + byte * (size - problem.fixed_bytes) + milli * limit
        assert bound <= total[fit].min() * (1 + 1e-9) + 1e-9


# ---- large problems, by bounds ------------------------------------------------------------------


def bound(problem: Problem, limit_bytes: Floats) -> Floats:
    """The linear relaxation's damage at each limit: no candidate has less."""
    path, slope, grown = (first_of[0] for first_of in hulls(problem.size_bytes, problem.damage[None]))
    order = np.argsort(-slope, axis=None, kind="stable")
    least = np.take_along_axis(problem.damage, path[:, :1], 1).sum()
    size = problem.fixed_bytes + problem.size_bytes.min(1).sum() + np.cumsum(grown.ravel()[order])
    damage = least - np.cumsum((slope * grown).ravel()[order])
    return np.interp(limit_bytes, size, damage)


def at(problem: Problem, front: Ints, limit_bytes: Floats) -> Floats:
    """The front's damage at limits in bytes."""
    size, _, damage = problem.totals(front)
    return damage[np.searchsorted(size, limit_bytes, side="right") - 1]


def by_milp(problem: Problem, limit_bytes: float, limit_ms: float | None, scale: float) -> float:
    """The least damage by HiGHS, scaled for its absolute tolerances."""
    u, k = problem.damage.shape
    rows = [problem.size_bytes.ravel() / (limit_bytes - problem.fixed_bytes)]
    if limit_ms is not None:
        rows.append(problem.latency_ms.ravel() / (limit_ms - problem.fixed_ms))
    found = milp(
        problem.damage.ravel() / scale,
        constraints=[
            LinearConstraint(np.kron(np.eye(u), np.ones(k)), 1, 1),
            LinearConstraint(np.array(rows), -np.inf, 1.0),
        ],
        integrality=np.ones(u * k),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 1e-6, "time_limit": 60},
    )
    return float(problem.totals(found.x.reshape(u, k).argmax(1)[None]).damage[0])


@pytest.mark.parametrize("seed", range(2))
def test_a_large_front_is_near_its_bound(seed: int) -> None:
    """100 units of 25 levels of sizes within one decade, up to about 8 bits everywhere.

    Most of this distance is the bound's own, from the optimum: see the tests by HiGHS.
    """
    problem = large(seed, decades=1)
    front = solve_front(problem)
    size, _, damage = problem.totals(front)
    assert (np.diff(size) > 0).all()
    assert (np.diff(damage) < 0).all()
    assert len(front) > 3000
    low, high = problem.totals(extremes(problem))[0][:2]
    budgets = np.geomspace(1.1 * low, 0.25 * high, 40)  # to 8 bits
    over = at(problem, front, budgets) / bound(problem, budgets) - 1
    assert over.min() >= -1e-9
    assert np.median(over) < 0.003
    assert over.max() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("ms_share", [None, 0.35, 0.6])
def test_large_answers_are_those_of_a_solver_of_integer_programs(ms_share: float | None) -> None:
    """Sizes within four decades. Where both limits bind, near no damage, a front may be 5 % above."""
    problem = large(5)
    limit_ms = None if ms_share is None else limits(problem, 0.5, ms_share)["limit_ms"]
    front = solve_front(problem, limit_ms=limit_ms)
    low, high = problem.totals(extremes(problem))[0][:2]
    for limit in np.geomspace(1.1 * low, 0.6 * high, 4):
        found = solve(problem, limit_bytes=limit, limit_ms=limit_ms)
        assert found is not None
        size, ms, damage = (total[0] for total in problem.totals(found[None]))
        assert size <= limit
        assert limit_ms is None or ms <= limit_ms
        best = by_milp(problem, limit, limit_ms, damage)
        assert damage == pytest.approx(best, rel=1e-3)
        assert at(problem, front, np.array([limit]))[0] <= (1.005 if ms_share is None else 1.05) * damage


def test_limits_cut_a_large_front() -> None:
    problem = large(1)
    within = limits(problem, 0.3, 0.5)
    size, ms, _ = problem.totals(solve_front(problem, **within))
    assert size.max() <= within["limit_bytes"]
    assert ms.max() <= within["limit_ms"]
    assert len(size) > 1000


def test_a_sweep_is_within_a_few_percent_of_the_optimum() -> None:
    problem = large(2, decades=2)
    low, high = problem.totals(extremes(problem))[0][:2]
    targets = np.geomspace(1.05 * low, 0.7 * high, 32)
    weights = np.array([0.0, 1e-3, 1e-2, 0.1])
    found = sweep(problem, targets, weights)
    size, ms, damage = problem.totals(found)
    assert (size <= np.tile(targets, 4)).all()
    over = []
    for k, weight in enumerate(weights):
        priced = problem.with_damage(problem.damage + weight * problem.latency_ms)
        got = (damage + weight * (ms - problem.fixed_ms))[32 * k : 32 * k + 32]
        over.append(got / at(priced, solve_front(priced), targets) - 1)
    assert np.mean(over) < 0.01
    assert np.quantile(over, 0.9) < 0.03


@pytest.mark.parametrize("ask", [solve_front, solve])
def test_the_same_question_has_the_same_answer(ask: Callable[..., Ints]) -> None:
    problem = large(3, 40)
    within = limits(problem, 0.2, 0.4)
    assert (ask(problem, **within) == ask(large(3, 40), **within)).all()


def test_tiny_damages_beside_large_ones_are_kept_apart() -> None:
    """Damages of 1e-9 decide where those of 10 nats are settled."""
    levels = tuple(Level.of(0.0, bits) for bits in (32, 8, 2))
    size = np.array([[1e9, 2e8, 1e8], [4e3, 2e3, 1e3], [4e3, 2e3, 1e3]])
    damage = np.array([[0.0, 5.0, 10.0], [0.0, 1e-9, 3e-9], [0.0, 2e-9, 5e-9]])
    problem = Problem(("a", "b", "c"), (levels,) * 3, size, np.zeros((3, 3)), damage, 0.0, 0.0)
    assert len(solve_front(problem)) == len(true_front(*problem.totals(everything(problem))[::2]))
    assert solve(problem, limit_bytes=2e8 + 6e3).tolist() == [1, 1, 0]  # type: ignore[union-attr]
    found = sweep(problem, np.array([2e8 + 6e3]), np.zeros(1))
    assert problem.totals(found).damage[0] <= 5.0 + 4e-9
