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

from autoprune.search.damage_model import Features, Learned, Taught
from autoprune.search.hypervolume import added_area, covers, kl_scale, size_scale
from autoprune.search.latency_model import with_paces
from autoprune.search.solver.mckp import Problem, solve, sweep
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial, finished

Array = NDArray[np.float64]
Choice = NDArray[np.intp]

SIZES = 32
"""Sizes the solver is asked for each time, spread over what is allowed."""

PRICES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Prices of latency the solver is asked at: in log-KL's worth of the whole range of milliseconds."""

EDGE = 0.15
"""Of the range of sizes: how far beyond a limit bytes still count, so that a candidate at the limit,
which is what was asked for, adds something."""

TURNED_PRICES = (0.0, 0.3, 3.0, 1e6)
"""Prices of bytes where milliseconds are limited: from bytes that do not count to nothing but bytes."""

MOST_STEPS = 100_000
"""Levels that are looked at, at most, for what is left of a space that was nearly tried out."""

ROUNDS, BEST, COPIES = 3, 24, 32
"""Rounds of local search: so many of the best candidates are each changed so many times."""

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
    edge_bytes: float
    low_ms: float
    high_ms: float
    lattice: Array

    @classmethod
    def of(cls, problem: Problem, budget: Budget) -> Aim:
        """The range of sizes: from the smallest candidate to the largest of 8 bits, or to a lower limit."""
        low = problem.fixed_bytes + float(problem.size_bytes.min(1).sum())
        high = edge = _eight_bit_bytes(problem)
        if budget.size_bytes is not None and budget.size_bytes < high:
            high = float(budget.size_bytes)
            edge = high + EDGE * (high - low)
        times = np.where(np.isfinite(problem.latency_ms), problem.latency_ms, np.nan)
        low_ms = problem.fixed_ms + float(np.nanmin(times, 1).sum())
        high_ms = problem.fixed_ms + float(np.nanmax(times, 1).sum())
        lattice = qmc.Sobol(3, seed=0).random(LATTICE)
        return cls(problem, Features.of(problem), budget, low, high, edge, low_ms, high_ms, lattice)

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
        learned = Learned.of(self.features, records.chosen, records.kl)
        taught = learned.mean()
        problem = self._timed(records)
        judge = _Judge(self, problem, taught, records, flying, volume)
        every = self._pool(problem, taught, records, judge, rng)
        pool = judge.fitting(every)
        for _ in range(ROUNDS):
            best = pool[np.argsort(-judge.gain(pool), kind="stable")[:BEST]]
            pool = _distinct(np.concatenate([best, judge.fitting(self._changed(best, rng))]))
        order = np.argsort(-judge.gain(pool), kind="stable")
        if len(pool) == 0 and not self._is_met(records):
            # No limit of time is out of reach for a prediction alone to say so: the quickest is tried.
            pool = judge.small_enough(_distinct(np.concatenate([every, self._changed(every[:BEST], rng)])))
            order = np.argsort(problem.totals(pool)[1], kind="stable")
        for k in order:
            one = self.problem.candidate(pool[k])
            if one not in seen:
                return one
        return None

    def _is_met(self, records: Records) -> bool:
        """Whether no milliseconds are limited, or something was measured to be within the limit."""
        limit = self.budget.latency_ms
        return limit is None or bool((records.latency_ms <= limit).any())

    def _timed(self, records: Records) -> Problem:
        """The problem with milliseconds as the trials suggest."""
        return with_paces(self.problem, records.chosen, records.latency_ms)

    def left(self, records: Records, seen: AbstractSet[Candidate], seed: int) -> Candidate | None:
        """Any candidate within the budget that is not in `seen`, by going through all; None without."""
        problem, rng = self._timed(records), np.random.default_rng(seed)
        limit, limit_ms = self.budget.size_bytes, self.budget.latency_ms
        limits = np.array([np.inf if one is None else one for one in (limit, limit_ms)])
        costs = np.stack([problem.size_bytes, problem.latency_ms])
        rest = np.cumsum(costs.min(2)[:, ::-1], 1)[:, ::-1]  # [2 u] of this unit and those after, at least
        room = limits - [problem.fixed_bytes, problem.fixed_ms]
        orders = [rng.permutation(len(one)) for one in problem.levels]
        chosen = np.zeros(len(orders), np.intp)
        waiting = [(0, int(k), room) for k in orders[0]]
        for _ in range(MOST_STEPS):
            if not waiting:
                return None
            u, k, room = waiting.pop()
            after = rest[:, u + 1] if u + 1 < len(orders) else 0.0
            if (costs[:, u, k] + after > room).any():
                continue
            chosen[u] = k
            if u + 1 < len(orders):
                waiting += [(u + 1, int(j), room - costs[:, u, k]) for j in orders[u + 1]]
            elif (one := problem.candidate(chosen)) not in seen:
                return one
        return None

    def answer(self, records: Records, budget: Budget) -> Candidate | None:
        """The least damaging candidate within any budget, by the solver and what trials taught.

        It may be one of those that were tried. None where no candidate is within the budget.
        """
        taught = Learned.of(self.features, records.chosen, records.kl).mean()
        problem, rng = self._timed(records), np.random.default_rng(0)
        found = [
            solve(one, limit_bytes=budget.size_bytes, limit_ms=budget.latency_ms)
            for one in (problem, _with(problem, taught))
        ]
        within = [one for one in found if one is not None]
        if not within:
            return None
        measured = {one.tobytes(): kl for one, kl in zip(records.chosen, records.kl, strict=True)}

        def ranked(chosen: Choice) -> Choice:
            """Those within the budget, least divergence first; measured where it was."""
            size, ms, _ = problem.totals(chosen)
            fits = size <= (math.inf if budget.size_bytes is None else budget.size_bytes)
            fits &= ms <= (math.inf if budget.latency_ms is None else budget.latency_ms)
            kept = np.unique(chosen[fits], axis=0)
            kl = [measured.get(one.tobytes(), x) for one, x in zip(kept, taught.kl(kept), strict=True)]
            order: Choice = kept[np.argsort(kl, kind="stable")]
            return order

        pool = ranked(np.concatenate([within, records.chosen]).astype(np.intp))
        for _ in range(ROUNDS):
            best = pool[:BEST]
            pool = ranked(np.concatenate([best, self._changed(best, rng)]))
        return self.problem.candidate(pool[0])

    def _pool(
        self, timed: Problem, taught: Taught, records: Records, judge: _Judge, rng: np.random.Generator
    ) -> Choice:
        """Candidates to begin with [m u]: the solver's, and the front that was measured."""
        # Jitter, so that a size that was tried is not asked for again.
        steps = (np.arange(SIZES) + rng.random(SIZES)) / SIZES
        targets = self.low_bytes + (self.high_bytes - self.low_bytes) * steps**1.5
        targets[-1] = self.high_bytes if self.budget.size_bytes is None else self.budget.size_bytes
        prices = np.asarray(PRICES if judge.volume else PRICES[:1])
        found = [records.chosen[_front(judge.known[: len(records.kl)])]]
        for problem in (timed, _with(timed, taught)):
            found.append(_swept(problem, targets, prices, self.high_ms - self.low_ms))
            if self.budget.latency_ms is not None:
                low = timed.fixed_ms + float(timed.latency_ms.min(1).sum())
                limits = low + (self.budget.latency_ms - low) * steps**0.5
                limits[-1] = self.budget.latency_ms
                sizes = self.high_bytes - self.low_bytes
                found.append(_swept(problem.turned(), limits, np.asarray(TURNED_PRICES), sizes))
        return _distinct(np.concatenate(found).astype(np.intp))

    def _changed(self, base: Choice, rng: np.random.Generator) -> Choice:
        """Copies of candidates with one or two units at another level [m u]: two may keep the size."""
        out = np.repeat(base, COPIES, axis=0)
        counts = np.array([len(one) for one in self.problem.levels])
        each = np.arange(len(out))
        for _ in range(2):
            unit = rng.integers(len(counts), size=len(out))
            out[each, unit] = (rng.random(len(out)) * counts[unit]).astype(np.intp)
        return out

    def _x(self, size: Array) -> Array:
        return size_scale(size, self.low_bytes, self.edge_bytes)

    def _y(self, ms: Array) -> Array:
        return np.clip((ms - self.low_ms) / max(self.high_ms - self.low_ms, 1e-9), 0, 1)


class _Judge:
    """Says what a candidate would add, by what was learned, to the trials there are.

    known [n+m 3]: where trials lie and where those in flight should, in the unit cube; 1 is worst.
    """

    def __init__(
        self, aim: Aim, problem: Problem, taught: Taught, records: Records, flying: Choice, volume: bool
    ) -> None:
        self.aim, self.problem, self.taught = aim, problem, taught
        self.volume = volume and aim.high_ms > aim.low_ms
        self.known = self._points(np.concatenate([records.chosen, flying]))
        n = len(records.kl)
        self.known[:n, 2] = kl_scale(records.kl)
        timed = np.isfinite(records.latency_ms)
        self.known[:n, 1] = np.where(timed, aim._y(records.latency_ms), self.known[:n, 1])
        # Where milliseconds alone are limited, they are what divergence is traded for.
        is_timed = aim.budget.latency_ms is not None and aim.budget.size_bytes is None
        self.plane = [1, 2] if is_timed and aim.high_ms > aim.low_ms else [0, 2]
        self.front = self.known[_front(self.known[:, [self.plane[0], 1, 2]])][:, self.plane]
        self.open = aim.lattice[~covers(self.known, aim.lattice).any(0)] if self.volume else aim.lattice[:0]

    def fitting(self, chosen: Choice) -> Choice:
        """Those within the budget, by predicted bytes and milliseconds."""
        chosen = self.small_enough(chosen)
        limit_ms = self.aim.budget.latency_ms
        return chosen if limit_ms is None else chosen[self.problem.totals(chosen)[1] <= limit_ms]

    def small_enough(self, chosen: Choice) -> Choice:
        """Those within the budget, by predicted bytes alone."""
        limit = self.aim.budget.size_bytes
        return chosen[self.problem.totals(chosen)[0] <= (self.aim.high_bytes if limit is None else limit)]

    def gain(self, chosen: Choice) -> Array:
        """Hypervolume that each [m] adds to the known ones, in two and maybe three dimensions."""
        points = self._points(chosen)
        plane = added_area(points[:, self.plane], self.front)
        if not self.volume:
            return plane
        more: Array = covers(points, self.open).sum(1) / len(self.aim.lattice)
        return plane + more

    def _points(self, chosen: Choice) -> Array:
        size, ms, _ = self.problem.totals(chosen)
        return np.stack([self.aim._x(size), self.aim._y(ms), kl_scale(self.taught.kl(chosen))], 1)


def _with(problem: Problem, taught: Taught) -> Problem:
    """The problem with what was learned of its damages."""
    return problem.with_damage(np.where(np.isfinite(problem.damage), taught.damage(), np.inf))


def _swept(problem: Problem, targets: Array, prices: Array, span: float) -> Choice:
    """The solver's candidates for each limit and each price of the other cost, whose range is `span`."""
    middle = float(np.median(problem.totals(sweep(problem, targets, np.zeros(1)))[2]))
    return sweep(problem, targets, prices * middle * 3 / max(span, 1e-9)).astype(np.intp)


def _distinct(chosen: Choice) -> Choice:
    """Candidates [m u], each once; `np.unique` of whole rows takes ten times as long."""
    keys = chosen @ np.random.default_rng(0).integers(2**63, size=chosen.shape[1], dtype=np.int64)
    return chosen[np.unique(keys, return_index=True)[1]]


def _front(points: Array) -> Choice:
    """Numbers of the points [n 3] that are best of all not larger than they."""
    order = np.lexsort((points[:, 2], points[:, 0]))
    best = np.minimum.accumulate(points[order, 2]) if len(order) else points[:, 2]
    members: Choice = order[points[order, 2] <= best].astype(np.intp)
    return members


def _eight_bit_bytes(problem: Problem) -> float:
    """Bytes with every unit at its 8-bit level, or at its largest below full precision."""
    total = problem.fixed_bytes
    for u, levels in enumerate(problem.levels):
        sizes = [problem.size_bytes[u, k] for k, one in enumerate(levels) if one.storage.bits <= 8]
        total += max(sizes) if sizes else problem.size_bytes[u, : len(levels)].max()
    return float(total)
