"""What training leaves of the divergence: prior means without pairs, learned shares with them."""

from __future__ import annotations

import dataclasses

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest

from autoprune.space.budget import Budget
from autoprune.space.levels import Level
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.aim import Aim
from autoprune.strategy.records import Records
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.solver.planes import Choice, Floats
from autoprune.strategy.surrogates.recovery_model import (
    LEFT_OF_REMOVAL,
    LEFT_OF_ROUNDING,
    MEASURED_STEPS,
    WHOLE_LAYERS,
    WORTH_TRAINING_KL,
    Outlook,
    Recovery,
    Sorts,
    Training,
    mendable,
)
from tests.support.toy_search import Toy

TOY = Toy.of(6)
REMOVED = {unit.unit: "heads" if k % 2 else "neurons" for k, unit in enumerate(TOY.space.units)}
TRAINING = Training(MEASURED_STEPS, REMOVED)
PROBLEM = Problem.of(TOY.space, TOY.costs)
LARGE = 1.0
"""Nats, of which training mends its full share."""


def aim_of(training: Training = TRAINING, budget: Budget = Budget()) -> Aim:  # noqa: B008
    return Aim.of(PROBLEM, budget, training=training)


def random_rows(count: int, seed: int) -> Choice:
    rng = np.random.default_rng(seed)
    counts = [len(levels) for levels in PROBLEM.levels]
    return np.array([[rng.integers(count) for count in counts] for _ in range(count)], np.intp)


def trained_records(left: Floats, rows: Choice, kl: Floats) -> Records:
    return Records(rows, kl, np.ones(len(rows)), kl * left)


def only(ratio: float, bits: int) -> Choice:
    """All units at one level [1 u]."""
    candidate = TOY.space.uniform(Level.of(ratio, bits))
    return PROBLEM.chosen(candidate)[None].astype(np.intp)


def test_without_pairs_the_shares_are_the_measured_ones() -> None:
    recovery = aim_of().outlook(Records.of(PROBLEM, ())).recovery
    large = np.array([LARGE])
    for bits, share in LEFT_OF_ROUNDING.items():
        if bits > 2:  # the toy has no 2 bits
            assert recovery.left(only(0.0, bits), large) == pytest.approx([share])
    assert recovery.left(only(0.0, 8), large) == pytest.approx([1.0])
    assert recovery.left(only(0.75, 32), large) == pytest.approx([LEFT_OF_REMOVAL["heads"]])
    mixed = recovery.left(only(0.25, 3), large)[0]
    assert LEFT_OF_REMOVAL["heads"] < mixed < LEFT_OF_ROUNDING[3]


def test_what_is_removed_wholly_is_a_sort_of_its_own() -> None:
    whole = Level.of(1.0, 32)
    levels = tuple((Level(), whole) for _ in PROBLEM.units)
    tables = (np.full((len(PROBLEM.units), 2), 1.0) for _ in range(3))
    damage = np.tile([0.0, 0.1], (len(PROBLEM.units), 1))
    problem = Problem(PROBLEM.units, levels, next(tables), next(tables), damage, 0.0, 0.0)
    recovery = Aim.of(problem, Budget(), training=TRAINING).outlook(Records.of(problem, ())).recovery
    gone = np.ones((1, len(PROBLEM.units)), np.intp)
    assert recovery.left(gone, np.array([LARGE])) == pytest.approx([LEFT_OF_REMOVAL[WHOLE_LAYERS]])


@pytest.mark.parametrize("steps", [10, 30])
def test_fewer_steps_mend_in_proportion(steps: int) -> None:
    few = aim_of(Training(steps, REMOVED)).outlook(Records.of(PROBLEM, ())).recovery
    left = few.left(only(0.75, 32), np.array([LARGE]))[0]
    assert left == pytest.approx(LEFT_OF_REMOVAL["heads"] ** (steps / MEASURED_STEPS))


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(some.integers(0, 10**6))
def test_without_steps_all_is_left_whatever_was_measured(seed: int) -> None:
    """To the last digit, in divergence and in the solver's table."""
    rng, rows = np.random.default_rng(seed), random_rows(12, seed)
    kl = np.exp(rng.normal(-4, 2, 12))
    records = trained_records(rng.uniform(0.2, 1.0, 12), rows, kl)
    outlook = aim_of(Training(0, REMOVED)).outlook(records)
    np.testing.assert_array_equal(outlook.kl(rows), outlook.damage.kl(rows))
    np.testing.assert_array_equal(outlook.table(), outlook.damage.table())


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(some.integers(0, 10**6))
def test_a_share_lies_between_none_and_all_and_little_divergence_is_not_mended(seed: int) -> None:
    rng, rows = np.random.default_rng(seed), random_rows(15, seed)
    kl = np.exp(rng.normal(-4, 2, 15))
    recovery = Recovery.of(aim_of().sorts, trained_records(rng.uniform(0.3, 1.5, 15), rows, kl))
    share = recovery.left(rows, kl)
    assert ((share > 0) & (share <= 1)).all()
    assert (share[kl <= WORTH_TRAINING_KL] == 1).all()
    assert ((recovery.factors > 0) & (recovery.factors <= 1)).all()
    assert (np.diff(mendable(np.sort(kl))) >= 0).all()


def test_what_training_really_left_is_learned_sort_by_sort() -> None:
    """Heads come back wholly and neurons not at all: with pairs the error falls to a third."""
    rows = random_rows(60, 3)
    sorts: Sorts = aim_of().sorts
    rounding = np.array([not any(PROBLEM.levels[u][k].ratio for u, k in enumerate(row)) for row in rows])
    assert not rounding.any()
    true = np.zeros_like(sorts.means)
    heads, neurons = (sorts.slots[u, -1, 0, 1] for u in (1, 0))
    true[[heads, neurons]] = np.log(0.3), np.log(0.95)
    kl = np.full(len(rows), LARGE)
    left = np.exp(sorts.rows(rows, kl) @ true)
    before = Recovery.of(sorts, Records.of(PROBLEM, ()))
    after = Recovery.of(sorts, trained_records(left[:40], rows[:40], kl[:40]))
    errors = [np.abs(np.log(model.left(rows[40:], kl[40:]) / left[40:])).mean() for model in (before, after)]
    assert errors[1] < errors[0] / 3


def test_pairs_are_learned_from_in_any_order_and_alone() -> None:
    """Trials that were measured at one rung alone change no share."""
    rows, rng = random_rows(20, 5), np.random.default_rng(5)
    kl, left = np.exp(rng.normal(-2, 1, 20)), rng.uniform(0.4, 1.0, 20)
    pairs = trained_records(left, rows, kl)
    half = np.where(np.arange(20) < 10, pairs.trained_kl, np.nan)
    some_pairs = dataclasses.replace(pairs, trained_kl=half)
    first = Records(rows[:10], kl[:10], np.ones(10), half[:10])
    backwards = Records(rows[:10][::-1], kl[:10][::-1], np.ones(10), half[:10][::-1])
    sorts = aim_of().sorts
    weights = [Recovery.of(sorts, records).weights for records in (some_pairs, first, backwards)]
    np.testing.assert_allclose(weights[0], weights[1])
    np.testing.assert_allclose(weights[0], weights[2])


def test_settled_is_what_was_measured_or_else_what_is_predicted() -> None:
    rows = random_rows(4, 1)
    kl, after = np.array([0.1, 0.1, 0.1, np.nan]), np.array([np.nan, 0.04, 0.2, 0.07])
    records = Records(rows, kl, np.ones(4), after)
    outlook: Outlook = aim_of().outlook(records)
    settled = outlook.settled(records)
    assert settled[0] == pytest.approx(0.1 * outlook.recovery.left(rows[:1], kl[:1])[0])
    np.testing.assert_array_equal(settled[1:], [0.04, 0.1, 0.07])  # the better of both is what a run has


def test_records_pair_what_was_measured_before_and_after() -> None:
    tried = TOY.random(4, 2, 1e9)
    untrained = [TOY.trial(candidate, k) for k, candidate in enumerate(tried[:3])]

    def after(k: int, kl: float, rung: int) -> Trial:
        m = Measurement(1000, 2.0, 80.0, kl=kl)
        return Trial(9 + k, tried[k], m, rung=rung, name="uniform 8-bit" if k == 3 else None)

    records = Records.of(PROBLEM, [after(3, 0.5, 1), *untrained, after(1, 0.25, 1), after(2, 0.1, 2)])
    assert [PROBLEM.candidate(row) for row in records.chosen] == [*tried[:3], tried[3]]
    np.testing.assert_array_equal(records.trained_kl, [np.nan, 0.25, np.nan, 0.5])
    np.testing.assert_array_equal(records.kl, [*(TOY.kl(candidate) for candidate in tried[:3]), np.nan])


@pytest.mark.parametrize("bits", [8, 4])
def test_the_answer_removes_more_where_training_mends_removal(bits: int) -> None:
    """By the shares that are assumed, and more where heads and neurons turn out to come back wholly."""
    limit = TOY.costs.size_bytes(TOY.space.uniform(Level.of(0.25, bits)))
    untaught = Records.of(PROBLEM, ())
    rows = random_rows(40, 7)
    kl = np.full(len(rows), LARGE)
    sorts = aim_of().sorts
    removal = sorts.parts[np.arange(6), rows, 0].sum(1) / sorts.parts[np.arange(6), rows].sum((1, 2))
    mended = trained_records(np.exp(removal * np.log(0.1)), rows, kl)
    mended = Records(mended.chosen, PROBLEM.totals(rows).damage * 100, mended.latency_ms, mended.trained_kl)
    mended = dataclasses.replace(mended, trained_kl=mended.kl * np.exp(removal * np.log(0.1)))

    def removed(aim: Aim, records: Records) -> float:
        """Predicted damage by removal, as a share, of what the solver takes."""
        table = aim.outlook(records).table()
        from autoprune.strategy.solver.mckp import solve

        chosen = solve(PROBLEM.with_damage(table), limit_bytes=limit)
        assert chosen is not None
        parts = sorts.parts[np.arange(6), chosen]
        return float(parts[:, 0].sum() / parts.sum())

    plain = removed(aim_of(Training(0, REMOVED)), untaught)
    prior, taught = removed(aim_of(), untaught), removed(aim_of(), mended)
    assert plain <= prior <= taught
    assert plain < taught
