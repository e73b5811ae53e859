"""Multiple-choice knapsack: the least damaging candidates within limits of bytes and milliseconds.

Bytes, milliseconds and predicted damage are sums over the units, so to choose a level for every unit is a
multiple-choice knapsack with one limit or two (Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004,
ch. 11). `solve` and `solve_front` decide unit after unit and keep what is not dominated (`knapsack`): optimal
on small problems, within 0.1 % or so on large ones. `sweep` follows Lagrangian prices (`lagrange`): it is
called thousands of times a run, and its answers are within a few percent.

Shapes: u units, l levels, n candidates, s steps, w weights, t targets, p = w * t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoprune.space.costs import Costs
from autoprune.space.levels import Candidate, Level, SearchSpace
from autoprune.strategy.solver.knapsack import near_best, near_front, undominated
from autoprune.strategy.solver.lagrange import hulls
from autoprune.strategy.solver.planes import Floats, Ints

Axis = Literal["bytes", "milliseconds"]
"""What a sweep limits."""


class Totals(NamedTuple):
    """Sums over the units of candidates, each [n]; what no level changes is included."""

    size_bytes: Floats
    latency_ms: Floats
    damage: Floats


@dataclass(frozen=True)
class Problem:
    """A search space and its costs as arrays [u l]; a level that a unit lacks costs infinity."""

    units: tuple[str, ...]
    levels: tuple[tuple[Level, ...], ...]
    size_bytes: Floats
    latency_ms: Floats
    damage: Floats
    fixed_bytes: float
    fixed_ms: float

    @classmethod
    def of(cls, space: SearchSpace, costs: Costs) -> Problem:
        """The problem of a space; levels in the order of `Choices.levels`."""
        levels = tuple(tuple(unit.levels()) for unit in space.units)
        table = np.full((3, len(levels), max(map(len, levels), default=0)), np.inf)
        for k, unit in enumerate(space.units):
            for j, level in enumerate(levels[k]):
                cost = costs.levels[unit.unit][level]
                table[:, k, j] = cost.size_bytes, cost.latency_ms, cost.damage
        names = tuple(unit.unit for unit in space.units)
        return cls(
            names, levels, table[0], table[1], table[2], float(costs.fixed_bytes), float(costs.fixed_ms)
        )

    def with_damage(self, damage: Floats) -> Problem:
        """The same with another predicted damage [u l], nats a row; absent levels stay absent."""
        if damage.shape != self.damage.shape:
            raise ValueError(f"damage has shape {damage.shape}; this problem's is {self.damage.shape}")
        return replace(self, damage=np.where(self.offered, damage, np.inf))

    @property
    def offered(self) -> NDArray[np.bool_]:
        """Which levels [u l] may be chosen: those whose costs are all finite."""
        return np.isfinite(self.size_bytes) & np.isfinite(self.latency_ms) & np.isfinite(self.damage)

    def candidate(self, chosen: Ints) -> Candidate:
        """The candidate of one level index for each unit [u]."""
        return Candidate(tuple(pairs[k] for pairs, k in zip(self._pairs, chosen.tolist(), strict=True)))

    def chosen(self, candidate: Candidate) -> Ints:
        """Level indices [u] of a candidate (inverse of `candidate`); not to be written to."""
        known = self._rows.get(candidate)
        if known is None:
            pairs = zip(self._places, candidate.items, strict=True)
            known = np.array([places[level] for places, (_, level) in pairs], np.int64)
            known.flags.writeable = False
            self._rows[candidate] = known
        return known

    @cached_property
    def _rows(self) -> dict[Candidate, Ints]:
        """Level indices of the candidates that were asked for."""
        return {}

    @cached_property
    def _pairs(self) -> tuple[tuple[tuple[str, Level], ...], ...]:
        """Each unit with its levels, which candidates share."""
        named = zip(self.units, self.levels, strict=True)
        return tuple(tuple((unit, level) for level in levels) for unit, levels in named)

    @cached_property
    def _places(self) -> tuple[dict[Level, int], ...]:
        """The index of each level, unit by unit."""
        return tuple({level: k for k, level in enumerate(levels)} for levels in self.levels)

    def totals(self, chosen: Ints) -> Totals:
        """Bytes, milliseconds and damage of candidates [n u]."""
        where = chosen + np.arange(len(self.units)) * self.size_bytes.shape[1]  # in tables [u l], flat
        size, ms, damage = (
            table.take(where).sum(1) for table in (self.size_bytes, self.latency_ms, self.damage)
        )
        return Totals(self.fixed_bytes + size, self.fixed_ms + ms, damage)


def solve(
    problem: Problem, *, limit_bytes: float | None = None, limit_ms: float | None = None
) -> Ints | None:
    """The candidate [u] of least damage within both limits; None where nothing fits.

    Optimal on small problems; on those of 100 units of 25 levels as HiGHS's answer, to 0.1 %.
    """
    chosen = near_best(_costs(problem), _limits(problem, limit_bytes, limit_ms))
    fitting = _fitting(problem, chosen, limit_bytes, limit_ms)
    totals = problem.totals(fitting)
    return fitting[np.lexsort((totals.size_bytes, totals.damage))[0]] if len(fitting) else None


def solve_front(problem: Problem, *, limit_bytes: float | None = None, limit_ms: float | None = None) -> Ints:
    """The front of bytes and damage among candidates within the limits [n u], smallest first.

    The whole front where partial candidates stay few; else thousands of points near it.
    """
    chosen = near_front(_costs(problem), _limits(problem, limit_bytes, limit_ms))
    fitting = _fitting(problem, chosen, limit_bytes, limit_ms)
    totals = problem.totals(fitting)
    return fitting[undominated(totals.size_bytes, totals.damage)]


def _costs(problem: Problem) -> Floats:
    """Bytes, milliseconds and damage [3 u l], all infinite where a level is not offered."""
    costs = np.stack([problem.size_bytes, problem.latency_ms, problem.damage])
    offered = problem.offered
    for k in np.flatnonzero(~offered.any(1)):
        raise ValueError(f"unit {problem.units[k]} has no level whose costs are all finite; give it one")
    return np.where(offered, costs, np.inf)


def _limits(problem: Problem, limit_bytes: float | None, limit_ms: float | None) -> Floats:
    """What the limits leave to the units [2]."""
    pairs = (limit_bytes, problem.fixed_bytes), (limit_ms, problem.fixed_ms)
    return np.array([math.inf if limit is None else limit - fixed for limit, fixed in pairs])


def _fitting(problem: Problem, chosen: Ints, limit_bytes: float | None, limit_ms: float | None) -> Ints:
    """Those of candidates [n u] that are within the limits as `totals` adds them up."""
    totals = problem.totals(chosen)
    fit = totals.size_bytes <= (math.inf if limit_bytes is None else limit_bytes)
    return chosen[fit & (totals.latency_ms <= (math.inf if limit_ms is None else limit_ms))]


# ---- many limits at once ------------------------------------------------------------------------

FILLS = 4
"""Changes that spend the room left below a limit."""


def sweep(problem: Problem, targets: Floats, weights: Floats, *, along: Axis = "bytes") -> Ints:
    """A very good candidate [p u] for each weight and limit, weights outermost.

    Along bytes, it makes damage + weight * milliseconds small within a limit of bytes; where the limit is
    below the smallest candidate, it is the smallest. Along milliseconds, both are exchanged.
    targets: limits [t] of what `along` names. weights: damage a unit of the other cost [w].
    """
    offered = problem.offered
    limited, priced, fixed = problem.size_bytes, problem.latency_ms, problem.fixed_bytes
    if along == "milliseconds":
        limited, priced, fixed = problem.latency_ms, problem.size_bytes, problem.fixed_ms
    limited = np.where(offered, limited, np.inf)
    priced, damage = (np.where(offered, table, 0.0) for table in (priced, problem.damage))
    cost = np.where(offered, damage + np.asarray(weights, float)[:, None, None] * priced, np.inf)
    path, slope, grown = hulls(limited, cost)
    w, u, s = slope.shape
    order = np.argsort(-slope.reshape(w, -1), axis=1, kind="stable")
    spent = np.cumsum(np.take_along_axis(grown.reshape(w, -1), order, 1), 1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(u * s), order.shape), 1)
    room = np.asarray(targets, float) - fixed - limited.min(1).sum()
    count = np.stack([np.searchsorted(row, room, side="right") for row in spent])
    step = (rank.reshape(w, 1, u, s) < count[:, :, None, None]).sum(3)
    chosen = np.take_along_axis(path[:, None], step[..., None], 3)[..., 0]
    used = np.take_along_axis(np.pad(spent, ((0, 0), (1, 0))), count, 1)
    return _filled(chosen, room - used, limited, cost).reshape(-1, u)


def _filled(chosen: Ints, room: Floats, limited: Floats, cost: Floats) -> Ints:
    """Candidates [w t u] with the room [w t] below the limit spent on the changes that save most."""
    chosen = chosen.copy()
    every = np.arange(chosen.shape[2])
    w, t = np.arange(room.shape[0])[:, None], np.arange(room.shape[1])
    for _ in range(FILLS):
        here = limited[every, chosen]
        fits = limited <= (here + np.maximum(room, 0.0)[..., None])[..., None]
        best: Ints = np.where(fits, cost[:, None], np.inf).argmin(3)
        saved = cost[w[..., None], every, chosen] - cost[w[..., None], every, best]
        unit: Ints = saved.argmax(2)
        if not (saved[w, t, unit] > 0).any():
            break
        level = best[w, t, unit]
        room = room - (limited[unit, level] - here[w, t, unit])
        chosen[w, t, unit] = level
    return chosen
