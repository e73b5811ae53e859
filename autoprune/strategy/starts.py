"""The solver's own answers to a budget: with which every search begins, and which are trained at once.

The best by storages alone, the best by removal alone and the best of both are what a user would compare; each
is trained, so that a search never misses one because it ranked low before training.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate, Choices, Level
from autoprune.space.storage import Storage, widest_first
from autoprune.strategy.aim import Aim
from autoprune.strategy.records import Records
from autoprune.strategy.solver.mckp import Problem, solve
from autoprune.strategy.solver.planes import Choice

STORAGES_ALONE, REMOVAL_ALONE, BOTH = "storages alone", "removal alone", "both"
"""What a solver's answer may change."""


def solver_answers(aim: Aim) -> list[Candidate]:
    """The least damaging after training: by storages alone, by removal alone, and of all; each once."""
    return list(dict.fromkeys(answers_by_sort(aim).values()))


def answers_by_sort(aim: Aim) -> dict[str, Candidate]:
    """The same by what they may change; two of them may be one candidate.

    By predictions alone, whatever trials measured, so that a run that is resumed has the same. None where the
    budget limits nothing; those of a sort that does not fit are left out.
    """
    budget = aim.budget
    if budget.size_bytes is None and budget.latency_ms is None:
        return {}
    table = aim.outlook(Records.of(aim.problem, ())).table()
    problem = aim.problem.with_damage(np.where(aim.problem.offered, table, np.inf))
    least = [min(level.ratio for level in levels) for levels in problem.levels]
    answers = {
        STORAGES_ALONE: _answer(_part(problem, lambda u, level: level.ratio == least[u]), budget),
        REMOVAL_ALONE: _by_removal_alone(problem, budget),
        BOTH: _answer(problem, budget),
    }
    return {sort: problem.candidate(chosen) for sort, chosen in answers.items() if chosen is not None}


def _by_removal_alone(problem: Problem, budget: Budget) -> Choice | None:
    """The least damaging candidate [u] in one storage that fits by removal alone; of equal ones the widest.

    A storage in which the whole model fits has nothing to remove and is left out. The widest storage of all
    may fit too, but only with hardly anything of the model left.
    """
    storages = widest_first(level.storage for levels in problem.levels for level in levels)
    answers = []
    for storage in storages:
        chosen = _answer(_in_one_storage(problem, storage), budget)
        if chosen is not None and any(problem.levels[u][k].ratio > 0 for u, k in enumerate(chosen.tolist())):
            answers.append(chosen)
    return min(answers, key=lambda chosen: float(problem.totals(chosen[None]).damage[0]), default=None)


def _in_one_storage(problem: Problem, storage: Storage) -> Problem:
    nearest = [_nearest(levels, storage) for levels in problem.levels]
    return _part(problem, lambda u, level: level.storage == nearest[u])


def _answer(problem: Problem, budget: Budget) -> Choice | None:
    return solve(problem, limit_bytes=budget.size_bytes, limit_ms=budget.latency_ms)


def _part(problem: Problem, allows: Callable[[int, Level], bool]) -> Problem:
    """The problem with those levels alone that are allowed, by the number of their unit."""
    allowed: NDArray[np.bool_] = np.zeros(problem.damage.shape, bool)
    for u, levels in enumerate(problem.levels):
        allowed[u, : len(levels)] = [allows(u, level) for level in levels]
    return problem.with_damage(np.where(allowed, problem.damage, np.inf))


def _nearest(levels: tuple[Level, ...], storage: Storage) -> Storage:
    """A storage, or of those that a unit offers the nearest."""
    offered = widest_first(level.storage for level in levels)
    return Choices("", tuple({level.ratio for level in levels}), offered).nearest(Level(0.0, storage)).storage
