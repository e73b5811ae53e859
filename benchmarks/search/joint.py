"""Is pruning and quantizing together worth it? Our search on the whole space and on either half.

Quantize-only has no ratio but 0; prune-only has every ratio with all units in 8 bits, which keeps what
is uncompressed from being compared with what is. Each gets as many trials, the last of which are what the
solver, with all that was learned till then, answers to each budget: as `autoprune export --budget` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoprune.space.budget import Budget
from autoprune.space.levels import SearchSpace
from autoprune.space.storage import storages_of
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.aim import Aim
from autoprune.strategy.records import Records
from autoprune.strategy.solver.mckp import Problem
from benchmarks.search.arena import Arena, candidate_named
from benchmarks.search.methods import OURS
from benchmarks.search.race import known_arena, search
from benchmarks.search.scores import Ruler, best_within

BUDGETS = 10
TRIALS = 40
KINDS = ("joint", "quantize-only", "prune-only")


@dataclass(frozen=True)
class Joint:
    """What each kind of search found on one arena."""

    arena: str
    budgets: Sequence[int]
    kl: Mapping[str, Sequence[float]]
    scores: Mapping[str, Mapping[str, float]]

    @property
    def ratios(self) -> list[float]:
        """Joint KL over the better of the two halves, at each budget; 0 where neither half fits it."""
        halves = zip(self.kl["quantize-only"], self.kl["prune-only"], strict=True)
        pairs = [(value, min(pair)) for value, pair in zip(self.kl["joint"], halves, strict=True)]
        return [1.0 if value == other else value / other for value, other in pairs]

    def gain(self, measure: str) -> float:
        """How much larger the joint score is than the quantize-only one, as a share."""
        return self.scores["joint"][measure] / self.scores["quantize-only"][measure] - 1.0

    def as_json(self) -> dict[str, Any]:
        """For `search.json`; None where nothing fits a budget."""
        kl = {kind: [None if k == np.inf else k for k in row] for kind, row in self.kl.items()}
        return {"arena": self.arena, "budgets": list(self.budgets), "kl": kl, "scores": dict(self.scores)}


def space_of(kind: str, space: SearchSpace) -> SearchSpace:
    """The levels that one kind of search may choose from."""
    if kind == "quantize-only":
        return SearchSpace(tuple(replace(unit, ratios=(0.0,)) for unit in space.units))
    if kind == "prune-only":
        return SearchSpace(tuple(replace(unit, storages=storages_of((8,))) for unit in space.units))
    return space


def found_by(kind: str, name: str, rows: int | None, seed: int, trials: int) -> list[Measurement]:
    """What our search measures on the whole space or on a half, its answers to the budgets included."""
    arena = known_arena(name, rows)
    part = arena.restricted(space_of(kind, arena.space))
    run = search(part, OURS, seed, max(trials - BUDGETS, 1))
    aim = Aim.of(Problem.of(part.space, part.costs), Budget())
    candidates = [candidate_named(name, part.space) for name in run.names]
    found = [
        Trial(k, candidate, part.evaluate(candidate)[0], rung=0) for k, candidate in enumerate(candidates)
    ]
    for size in budgets_of(arena):
        answer = aim.answer(Records.of(aim.problem, found), Budget(size_bytes=size))
        if answer is not None:
            found.append(Trial(len(found), answer, part.evaluate(answer)[0], rung=0))
    return [trial.measurement for trial in found if trial.measurement is not None]


def budgets_of(arena: Arena) -> list[int]:
    """From just above the smallest candidate to uniform 8 bits, a constant factor apart."""
    low, high = arena.range_bytes
    return [round(size) for size in low * (high / low) ** np.linspace(0.05, 1, BUDGETS)]


def compare(arena: Arena, ruler: Ruler, found: Mapping[str, Sequence[Measurement]]) -> Joint:
    """Least KL within each budget, and scores."""
    budgets = budgets_of(arena)
    return Joint(
        arena.name,
        budgets,
        {kind: [best_within(rows, budget) for budget in budgets] for kind, rows in found.items()},
        {kind: {m: ruler.score(m, rows) for m in ("speed", "trade")} for kind, rows in found.items()},
    )
