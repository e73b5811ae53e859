"""The solver's answers with which a search begins: storages alone, removal alone, both."""

from __future__ import annotations

import pytest

from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate, Level
from autoprune.strategy.aim import Aim
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.starts import BOTH, STORAGES_ALONE, answers_by_sort, solver_answers
from autoprune.strategy.surrogates.recovery_model import MEASURED_STEPS, Training
from tests.support.toy_search import Toy, small_toy

TOY = Toy.of(6)
TRAINING = Training(MEASURED_STEPS, {unit.unit: "neurons" for unit in TOY.space.units})


def aim_of(limit: int | None, toy: Toy = TOY, latency_ms: float | None = None) -> Aim:
    return Aim.of(Problem.of(toy.space, toy.costs), Budget(limit, latency_ms), training=TRAINING)


def size_of(ratio: float, bits: int) -> int:
    return TOY.costs.size_bytes(TOY.space.uniform(Level.of(ratio, bits)))


def one_storage(candidate: Candidate) -> bool:
    return len({level.storage for _, level in candidate.items}) == 1


@pytest.mark.parametrize("limit", [size_of(0.25, 8), size_of(0.25, 4), size_of(0.0, 4) - 500])
def test_a_budget_is_answered_by_storages_by_removal_and_by_both(limit: int) -> None:
    aim = aim_of(limit)
    answers = solver_answers(aim)
    assert len(answers) == len(set(answers)) <= 3
    assert all(TOY.costs.size_bytes(candidate) <= limit for candidate in answers)
    table = aim.outlook(TOY.records([])).table()
    trained = aim.problem.with_damage(table)

    def damage(candidate: Candidate) -> float:
        return float(trained.totals(trained.chosen(candidate)[None]).damage[0])

    by_sort = answers_by_sort(aim)  # two sorts may have one answer
    assert set(by_sort.values()) == set(answers)
    by_storage, both = by_sort[STORAGES_ALONE], by_sort[BOTH]
    assert all(level.ratio == 0 for _, level in by_storage.items)
    assert any(
        one_storage(candidate) and any(level.ratio > 0 for _, level in candidate.items)
        for candidate in answers
    )
    assert damage(both) <= min(map(damage, answers)) * 1.001


def test_the_same_answers_come_whatever_was_tried_and_none_without_a_budget() -> None:
    limit = size_of(0.25, 4)
    assert solver_answers(aim_of(limit)) == solver_answers(aim_of(limit))
    assert solver_answers(aim_of(None)) == []


def test_what_does_not_fit_is_left_out() -> None:
    """Below three bits all unremoved, removal alone is left; below the smallest, nothing."""
    answers = solver_answers(aim_of(size_of(0.0, 3) - 1))
    assert answers
    assert all(any(level.ratio > 0 for _, level in candidate.items) for candidate in answers)
    assert solver_answers(aim_of(10)) == []


def test_milliseconds_alone_may_be_limited() -> None:
    plain = aim_of(None)
    limit = plain.scale.low_ms + 0.3 * (plain.scale.high_ms - plain.scale.low_ms)
    answers = solver_answers(aim_of(None, latency_ms=limit))
    assert answers
    assert all(TOY.costs.latency_ms(candidate) <= limit for candidate in answers)


def test_a_space_without_removal_has_one_answer() -> None:
    toy = small_toy(3, (0.0,), (3, 4, 8, 32))
    limit = toy.costs.size_bytes(toy.space.uniform(Level.of(0.0, 4)))
    assert len(solver_answers(aim_of(limit, toy))) == 1
