"""Acquisition function: the hypervolume that a candidate is predicted to add to the trials there are.

In (bytes, log KL), and where latency counts also in (bytes, milliseconds, log KL). Where milliseconds alone
are limited, they take the place of bytes in the plane. KL is that after the brief fine-tune: measured, or
predicted from what was measured untrained, or predicted altogether. Candidates in flight count as if they
came out as predicted (kriging believer: Ginsbourger et al., Kriging Is Well-Suited to Parallelize
Optimization, 2010).

Letters: u units, n trials, m candidates, f candidates in flight, s points of a front, q points of a lattice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from autoprune.space.budget import Budget
from autoprune.strategy.hypervolume import (
    KL_FLOOR,
    ByteRange,
    added_area,
    covered,
    covers,
    kl_scale,
    unit_scale,
)
from autoprune.strategy.records import Records
from autoprune.strategy.solver.knapsack import undominated
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.solver.planes import BYTES, DAMAGE, MS, Choice, Floats
from autoprune.strategy.surrogates.recovery_model import Outlook

EDGE = 0.15
"""Share of the range of bytes by which bytes still count beyond a limit, so that a candidate at the limit,
which is what a user asks for, adds something."""


@dataclass(frozen=True)
class Scale:
    """Ranges by which objectives are scaled to the unit cube: 0 is ideal, 1 is as bad as counts.

    edge_bytes: up to which bytes count. low_ms, high_ms: the least and the most that candidates are
    predicted to take. resolved: nats a row below which divergence counts little.
    """

    byte_range: ByteRange
    edge_bytes: float
    low_ms: float
    high_ms: float
    resolved: float = KL_FLOOR

    @classmethod
    def of(cls, problem: Problem, budget: Budget, *, resolved: float = KL_FLOOR) -> Scale:
        """Bytes from the smallest candidate to the largest of 8 bits, or to a lower limit."""
        low = problem.fixed_bytes + float(problem.size_bytes.min(1).sum())
        high = edge = _eight_bit_bytes(problem)
        if budget.size_bytes is not None and budget.size_bytes < high:
            high = float(budget.size_bytes)
            edge = high + EDGE * (high - low)
        times = np.where(np.isfinite(problem.latency_ms), problem.latency_ms, np.nan)
        low_ms = problem.fixed_ms + float(np.nanmin(times, 1).sum())
        high_ms = problem.fixed_ms + float(np.nanmax(times, 1).sum())
        return cls(ByteRange(low, high), edge, low_ms, high_ms, resolved)

    def scaled_bytes(self, size_bytes: Floats) -> Floats:
        """Bytes on the scale."""
        return unit_scale(size_bytes, low=self.byte_range.low, high=self.edge_bytes)

    def scaled_ms(self, latency_ms: Floats) -> Floats:
        """Milliseconds on the scale."""
        return unit_scale(latency_ms, low=self.low_ms, high=self.high_ms)

    def scaled_kl(self, kl: Floats) -> Floats:
        """Divergence on the scale."""
        return kl_scale(kl, resolved=self.resolved)


def _eight_bit_bytes(problem: Problem) -> float:
    """Bytes with every unit at its 8-bit level, or at its largest below full precision."""
    total = problem.fixed_bytes
    for u, levels in enumerate(problem.levels):
        sizes = [problem.size_bytes[u, k] for k, level in enumerate(levels) if level.storage.bits <= 8]
        total += max(sizes) if sizes else problem.size_bytes[u, : len(levels)].max()
    return float(total)


@dataclass(frozen=True)
class Acquisition:
    """Gain in hypervolume of candidates, by what finished trials taught.

    known [n+f 3]: where trials lie and where those in flight should, in the unit cube. plane: the two
    objectives that are traded. front [s 2]: the known points that are best in the plane. volume: whether
    gain in three dimensions counts too, by the points of a lattice [q 3]; open: those of them that no known
    point dominates.
    """

    problem: Problem
    outlook: Outlook
    budget: Budget
    scale: Scale
    known: Floats
    plane: tuple[int, int]
    front: Floats
    volume: bool
    lattice: Floats
    open: Floats

    @classmethod
    def of(
        cls,
        problem: Problem,
        outlook: Outlook,
        records: Records,
        in_flight: Choice,
        *,
        budget: Budget,
        scale: Scale,
        lattice: Floats,
        volume: bool,
    ) -> Acquisition:
        """The gain over what finished trials recorded and over candidates in flight [f u]."""
        known = _points(problem, outlook, scale, np.concatenate([records.chosen, in_flight]))
        n = len(records.kl)
        known[:n, DAMAGE] = scale.scaled_kl(outlook.settled(records))
        timed = np.isfinite(records.latency_ms)
        known[:n, MS] = np.where(timed, scale.scaled_ms(records.latency_ms), known[:n, MS])
        has_latency = scale.high_ms > scale.low_ms
        plane = (MS if budget.limits_latency_alone and has_latency else BYTES, DAMAGE)
        front = known[undominated(*known[:, plane].T)][:, plane]
        flat = cls(problem, outlook, budget, scale, known, plane, front, False, lattice, lattice[:0])
        return flat.by_volume(records) if volume and has_latency else flat

    def by_volume(self, records: Records) -> Acquisition:
        """The same with gain in three dimensions too, where candidates differ in milliseconds."""
        if self.scale.high_ms <= self.scale.low_ms:
            return self
        is_open = ~covered(self.known, self.lattice)
        is_open = is_open if records.covered is None else is_open & ~records.covered
        return replace(self, volume=True, open=self.lattice[is_open])

    def counting(self, chosen: Choice) -> Acquisition:
        """The gain over these candidates [m u] too, as if they came out as predicted."""
        points = _points(self.problem, self.outlook, self.scale, chosen)
        best = np.concatenate([self.front, points[:, self.plane]])
        uncovered = self.open[~covers(points, self.open).any(0)]
        return replace(
            self, known=np.concatenate([self.known, points]), front=best[undominated(*best.T)], open=uncovered
        )

    def fitting(self, chosen: Choice) -> Choice:
        """Those of the candidates [m u] that are predicted to be within the budget."""
        chosen = self.small_enough(chosen)
        limit_ms = self.budget.latency_ms
        return chosen if limit_ms is None else chosen[self.problem.totals(chosen).latency_ms <= limit_ms]

    def small_enough(self, chosen: Choice) -> Choice:
        """Those of the candidates [m u] that are predicted to be within the limit of bytes."""
        limit = self.scale.byte_range.high if self.budget.size_bytes is None else self.budget.size_bytes
        return chosen[self.problem.totals(chosen).size_bytes <= limit]

    def gain(self, chosen: Choice) -> Floats:
        """Hypervolume that each candidate [m u] adds to the known points: in the plane, and in volume."""
        points = _points(self.problem, self.outlook, self.scale, chosen)
        area = added_area(points[:, self.plane], self.front)
        if not self.volume:
            return area
        more: Floats = covers(points, self.open).sum(1) / len(self.lattice)
        return area + more


def _points(problem: Problem, outlook: Outlook, scale: Scale, chosen: Choice) -> Floats:
    """Where candidates [m u] are predicted to lie in the unit cube [m 3]."""
    totals = problem.totals(chosen)
    x, y = scale.scaled_bytes(totals.size_bytes), scale.scaled_ms(totals.latency_ms)
    return np.stack([x, y, scale.scaled_kl(outlook.kl(chosen))], 1)
