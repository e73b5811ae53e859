"""Which candidate to try next: the one that should fill most of what is missing from the front.

Candidates come from the solver, under what finished trials have taught about predicted damage, and
from swaps of levels between units that leave the budget kept. Of all of them the one is taken whose
predicted point adds most hypervolume, in (bytes, log KL) and in (bytes, milliseconds, log KL), to the
trials there are. Plain numbers, no model and no Optuna.

Letters: u units, l levels, n trials, m candidates, s points of a front, q points of a lattice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from autoprune.budget import Budget
from autoprune.corrections import Features, Learned
from autoprune.front import Trial, finished
from autoprune.solver import Problem, solve, sweep
from autoprune.space import Candidate
from autoprune.volume import added_area, covers, kl_scale

Array = NDArray[np.float64]
Choice = NDArray[np.intp]

SIZES = 32
"""Sizes the solver is asked for each time, spread over what is allowed."""

PRICES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Prices of latency the solver is asked at: in log-KL's worth of the whole range of milliseconds."""

SWAPS = 96
"""Candidates made by moving bytes from one unit to another."""

LATTICE = 2048
"""Points by which volume in three dimensions is counted (Sobol', the first 2^11)."""


@dataclass(frozen=True)
class Records:
    """What was found out: levels [n u], measured divergence [n] nats, measured milliseconds [n]."""

    chosen: Choice
    kl: Array
    latency_ms: Array

    @classmethod
    def of(cls, problem: Problem, trials: Iterable[Trial]) -> Records:
        """Those of the untrained trials, whose divergence is what the solver predicts."""
        done = [
            (problem.chosen(one.candidate), max(m.kl, 0.0), m.latency_ms)
            for one, m in finished(trials)
            if one.rung == 0 and math.isfinite(m.kl)
        ]
        chosen = np.array([one[0] for one in done], np.intp).reshape(-1, len(problem.units))
        rest = np.array([one[1:] for one in done], np.float64).reshape(-1, 2)
        return cls(chosen, rest[:, 0].copy(), rest[:, 1].copy())

    def joined(self, more: Records) -> Records:
        """These, and more after them."""
        return Records(
            np.concatenate([self.chosen, more.chosen]),
            np.concatenate([self.kl, more.kl]),
            np.concatenate([self.latency_ms, more.latency_ms]),
        )


@dataclass(frozen=True)
class Aim:
    """A search space with its costs, limits and what never changes between proposals."""

    problem: Problem
    features: Features
    budget: Budget
    low_bytes: float
    high_bytes: float
    low_ms: float
    high_ms: float
    lattice: Array

    @classmethod
    def of(cls, problem: Problem, budget: Budget) -> Aim:
        """The range of sizes: from the smallest candidate to the limit, or to the largest of 8 bits."""
        low = problem.fixed_bytes + float(problem.size_bytes.min(1).sum())
        high = budget.size_bytes if budget.size_bytes is not None else _eight_bit_bytes(problem)
        times = np.where(np.isfinite(problem.latency_ms), problem.latency_ms, np.nan)
        low_ms = problem.fixed_ms + float(np.nanmin(times, 1).sum())
        high_ms = problem.fixed_ms + float(np.nanmax(times, 1).sum())
        lattice = qmc.Sobol(3, seed=0).random(LATTICE)
        return cls(
            problem, Features.of(problem), budget, low, max(high, low * 1.01), low_ms, high_ms, lattice
        )

    def propose(
        self,
        records: Records,
        flying: Choice,
        seen: AbstractSet[Candidate],
        *,
        seed: int,
        volume: bool,
    ) -> Candidate | None:
        """The candidate to try next, within the budget and not in `seen`; None where none was found.

        flying [m u]: candidates being evaluated now; they count as if they came out as predicted.
        volume: whether gain in (bytes, milliseconds, log KL) counts beside that in (bytes, log KL).
        """
        rng = np.random.default_rng(seed)
        rows, predicted = self.features.rows(records.chosen)
        learned = Learned.of(self.features, rows, predicted, records.kl)
        mean = self.problem.with_damage(_masked(learned.damage(), self.problem))
        drawn = self.problem.with_damage(_masked(learned.damage(rng), self.problem))
        speed = self._speed(records)
        pool = self._pool(mean, drawn, records, rng)
        size, ms, _ = self.problem.totals(pool)
        ms = ms * speed
        fits = size <= self.high_bytes
        if self.budget.latency_ms is not None:
            fits &= ms <= self.budget.latency_ms
        if not fits.any():
            return None
        pool, size, ms = pool[fits], size[fits], ms[fits]
        judge = drawn if seed % 2 else mean
        kl = judge.totals(pool)[2]
        known = self._points(np.concatenate([records.chosen, flying]), records, judge, speed)
        gain = self._gain(np.stack([self._x(size), self._y(ms), kl_scale(kl)], 1), known, volume=volume)
        for k in np.argsort(-gain, kind="stable"):
            one = self.problem.candidate(pool[k])
            if one not in seen:
                return one
        return None

    def answer(self, records: Records, budget: Budget) -> Candidate | None:
        """The least damaging candidate within any budget, by the solver and what trials taught.

        None where no candidate is within it.
        """
        rows, predicted = self.features.rows(records.chosen)
        learned = Learned.of(self.features, rows, predicted, records.kl)
        problem = self.problem.with_damage(_masked(learned.damage(), self.problem))
        speed = self._speed(records)
        limit_ms = None if budget.latency_ms is None else budget.latency_ms / speed
        found = solve(problem, limit_bytes=budget.size_bytes, limit_ms=limit_ms)
        return None if found is None else problem.candidate(found)

    def _pool(self, mean: Problem, drawn: Problem, records: Records, rng: np.random.Generator) -> Choice:
        """Candidates to choose among [m u]: the solver's, and swaps in those that are best so far."""
        # Half a step of jitter, so that a size that was tried is not asked for again.
        steps = (np.arange(SIZES) + rng.random(SIZES)) / SIZES
        targets = self.low_bytes + (self.high_bytes - self.low_bytes) * steps**1.5
        targets[-1] = self.high_bytes
        span = self.high_ms - self.low_ms
        found = []
        for problem in (mean, drawn):
            middle = np.median(problem.totals(sweep(problem, targets, np.zeros(1)))[2])
            prices = np.asarray(PRICES if span > 0 else PRICES[:1]) * middle * 3 / max(span, 1e-9)
            found.append(sweep(problem, targets, prices))
        made = np.concatenate(found)
        return np.unique(np.concatenate([made, self._swapped(mean, records, made, rng)]), axis=0)

    def _swapped(self, problem: Problem, records: Records, made: Choice, rng: np.random.Generator) -> Choice:
        """Random members of the front with a unit's level changed, and another's to make room."""
        size, _, _ = problem.totals(records.chosen)
        order = np.lexsort((records.kl, size))
        best_so_far = np.minimum.accumulate(records.kl[order]) if len(order) else records.kl
        front = records.chosen[order[records.kl[order] <= best_so_far]] if len(order) else made
        base = front[rng.integers(len(front), size=SWAPS)]
        units = len(problem.units)
        counts = np.array([len(one) for one in problem.levels])
        out = base.copy()
        for _ in range(2):
            unit = rng.integers(units, size=SWAPS)
            out[np.arange(SWAPS), unit] = (rng.random(SWAPS) * counts[unit]).astype(np.intp)
        return out

    def _speed(self, records: Records) -> float:
        """Measured over predicted milliseconds, the median of the trials; 1 before there are any."""
        known = np.isfinite(records.latency_ms) & (records.latency_ms > 0)
        predicted = self.problem.totals(records.chosen)[1]
        known &= predicted > 0
        return float(np.median(records.latency_ms[known] / predicted[known])) if known.any() else 1.0

    def _points(self, chosen: Choice, records: Records, judge: Problem, speed: float) -> Array:
        """Where trials lie, and where those in flight should, in the unit box [n 3]; 1 is worst."""
        size, ms, kl = judge.totals(chosen)
        ms = ms * speed
        n = len(records.kl)
        kl[:n] = records.kl
        ms[:n] = np.where(np.isfinite(records.latency_ms), records.latency_ms, ms[:n])
        return np.stack([self._x(size), self._y(ms), kl_scale(kl)], 1)

    def _x(self, size: Array) -> Array:
        return np.clip((size - self.low_bytes) / (self.high_bytes - self.low_bytes), 0, 1)

    def _y(self, ms: Array) -> Array:
        return np.clip((ms - self.low_ms) / max(self.high_ms - self.low_ms, 1e-9), 0, 1)

    def _gain(self, points: Array, known: Array, *, volume: bool) -> Array:
        """Hypervolume that each point [m 3] adds to the known ones, in two and maybe three dimensions."""
        plane = added_area(points[:, [0, 2]], known[:, [0, 2]])
        if not volume or self.high_ms <= self.low_ms:
            return plane
        open_points = self.lattice[~covers(known, self.lattice).any(0)]
        more: Array = covers(points, open_points).sum(1) / len(self.lattice)
        return plane + more


def _masked(damage: Array, problem: Problem) -> Array:
    return np.where(np.isfinite(problem.damage), damage, np.inf)


def _eight_bit_bytes(problem: Problem) -> float:
    """Bytes with every unit at its 8-bit level, or at its largest below full precision."""
    total = problem.fixed_bytes
    for u, levels in enumerate(problem.levels):
        sizes = [problem.size_bytes[u, k] for k, one in enumerate(levels) if one.bits <= 8]
        total += max(sizes) if sizes else problem.size_bytes[u, : len(levels)].max()
    return float(total)
