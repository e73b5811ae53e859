"""The searches that are compared: each a generator of candidates that is sent the trial of each."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial
from autoprune.strategy.aim import Aim
from autoprune.strategy.repair import repair
from autoprune.strategy.samplers import make_proposer
from autoprune.strategy.solver.mckp import Problem, solve_front
from autoprune.strategy.study import Study
from benchmarks.search.arena import Arena
from benchmarks.search.evolution import evolution, van_der_corput

Search = Generator[Candidate, Trial, None]

OURS = "autoprune"
OPTUNA = ("random", "tpe", "nsga2", "gp")
METHODS = (OURS, "solver", "evolution", *OPTUNA)

READS_PREDICTIONS = (OURS, "solver")
"""Charged the seconds that predicting the damage of every variant took."""


def open_search(method: str, arena: Arena, *, seed: int, trials: int) -> Search:
    """A search by name."""
    if method == "solver":
        return solver_only(arena, trials)
    if method == "evolution":
        return evolution(arena, seed)
    return studied(method, arena, seed)


def studied(sampler: str, arena: Arena, seed: int) -> Search:
    """Our sampler or one of Optuna's, as `autoprune search` runs it, with no warm start and no limit.

    All go through our removal of repeats, which Optuna's alone would not have and which helps them.
    """
    with TemporaryDirectory(prefix="autoprune-bench-") as folder:
        study = open_study(Path(folder) / "study.db", sampler, arena, seed)
        try:
            while True:
                asked = study.ask()
                trial = yield asked.candidate
                study.tell(asked.token, trial)
        finally:
            study.close()


def open_study(path: Path, sampler: str, arena: Arena, seed: int) -> Study:
    """The study of a search; our sampler alone is given the predicted costs."""
    fix = partial(repair, space=arena.space, costs=arena.costs, limit_bytes=None)
    aim = Aim.of(Problem.of(arena.space, arena.costs), Budget()) if sampler == OURS else None
    proposer = make_proposer(sampler, space=arena.space, seed=seed, repair=fix, aim=aim)
    return Study(path, arena.space, proposer=proposer)


def solver_only(arena: Arena, trials: int) -> Search:
    """The solver's front, `trials` of it evenly over log size; nothing is learned on the way.

    In an order in which the first so many are spread evenly too. The seed changes nothing.
    """
    chosen = spread(Problem.of(arena.space, arena.costs), *arena.range_bytes, count=trials)
    for k in van_der_corput(len(chosen)):
        yield chosen[k]


def spread(problem: Problem, low: float, high: float, *, count: int) -> list[Candidate]:
    """Members of the predicted front, at most `count`, nearest below sizes a constant factor apart."""
    front = solve_front(problem, limit_bytes=high)
    sizes = problem.totals(front).size_bytes
    targets = low * (high / low) ** np.linspace(0, 1, count)
    places = np.unique(np.maximum(np.searchsorted(sizes, targets * (1 + 1e-12), side="right") - 1, 0))
    return [problem.candidate(front[k]) for k in places]
