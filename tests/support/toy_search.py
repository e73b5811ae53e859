"""A toy search space whose divergence is a sum over the units, as predicted but for hidden factors.

The factors are of what removal and what rounding does in each unit. Each candidate has a little noise of
its own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.evaluation.seeds import candidate_text
from autoprune.space.budget import Budget
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import Candidate, Choices, SearchSpace
from autoprune.space.storage import FLOAT_BITS, storages_of
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.aim import Aim
from autoprune.strategy.hypervolume import kl_area
from autoprune.strategy.records import Records
from autoprune.strategy.repair import repair as repaired
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.surrogates.damage_model import Features


def space_of(units: int, ratios: Sequence[float] = (0.0, 0.25, 0.5, 0.75)) -> SearchSpace:
    return SearchSpace(
        tuple(Choices(f"layer.{k}", tuple(ratios), storages_of((3, 4, 8, 32))) for k in range(units))
    )


def costs_of(space: SearchSpace, seed: int = 0) -> Costs:
    """Units of many sizes; damage grows with the square of the ratio and four times for a bit less."""
    rng, table = np.random.default_rng(seed), {}
    for unit in space.units:
        size, removal, rounding, ms = rng.lognormal(0, 0.7, 4) * [8000, 0.06, 1.0, 0.5]
        table[unit.unit] = {
            level: Cost(
                round(size * (1 - level.ratio) * bits / 8),
                removal * (0.2 * level.ratio + level.ratio**2)
                + (rounding * 4.0**-bits * (1 - level.ratio) if bits < FLOAT_BITS else 0.0),
                ms * (1 - level.ratio) * (0.6 if bits <= 8 else 1.0),
            )
            for level in unit.levels()
            for bits in [level.storage.bits]
        }
    return Costs(500, table, fixed_ms=0.3)


@dataclass(frozen=True)
class Toy:
    """A space, its predicted costs and what is true of it."""

    space: SearchSpace
    costs: Costs
    truth: Problem
    noise: float

    @classmethod
    def of(cls, units: int = 10, *, seed: int = 0, spread: float = 0.6, noise: float = 0.05) -> Toy:
        space = space_of(units)
        costs = costs_of(space, seed)
        plain = Problem.of(space, costs)
        parts = Features.of(plain)
        rng = np.random.default_rng(seed + 1000)
        factors = np.exp(spread * rng.standard_normal((2, units, 1)))
        true = factors[0] * parts.removal + factors[1] * parts.rounding
        return cls(space, costs, plain.with_damage(true), noise)

    def aim(self, budget: Budget | None = None) -> Aim:
        return Aim.of(Problem.of(self.space, self.costs), budget or Budget())

    def kl(self, candidate: Candidate) -> float:
        """What is measured; the noise is the candidate's own."""
        total = float(self.truth.totals(self.truth.chosen(candidate)[None]).damage[0])
        draw = random.Random(candidate_text(candidate)).gauss(0.0, 1.0)
        return total * float(np.exp(self.noise * draw))

    def trial(self, candidate: Candidate, number: int = 0) -> Trial:
        m = Measurement(
            self.costs.size_bytes(candidate), self.costs.latency_ms(candidate), 80.0, kl=self.kl(candidate)
        )
        return Trial(number, candidate, m, rung=0)

    def records(self, candidates: Sequence[Candidate]) -> Records:
        trials = [self.trial(candidate, k) for k, candidate in enumerate(candidates)]
        return Records.of(Problem.of(self.space, self.costs), trials)

    def random(self, count: int, seed: int, limit: float) -> list[Candidate]:
        """Different candidates within a limit: levels at random, the larger ones repaired."""
        rng, out = random.Random(seed), list[Candidate]()
        while len(out) < count:
            one = Candidate(tuple((u.unit, rng.choice(list(u.levels()))) for u in self.space.units))
            seen = frozenset(out)
            out.append(repaired(one, seen, seed, space=self.space, costs=self.costs, limit_bytes=int(limit)))
        return out

    def area(self, aim: Aim, candidates: Sequence[Candidate]) -> float:
        """Measured hypervolume in (bytes, log KL)."""
        size = np.array([float(self.costs.size_bytes(candidate)) for candidate in candidates])
        kl = np.array([self.kl(candidate) for candidate in candidates])
        return kl_area(size, kl, aim.scale.byte_range)


def small_toy(units: int, ratios: Sequence[float], bits: Sequence[int]) -> Toy:
    """A toy of so few candidates that all may be tried; what is predicted of it is true."""
    space = SearchSpace(tuple(Choices(f"layer.{k}", tuple(ratios), storages_of(bits)) for k in range(units)))
    costs = costs_of(space)
    return Toy(space, costs, Problem.of(space, costs), 0.05)
