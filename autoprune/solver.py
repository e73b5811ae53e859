"""The best candidates where bytes, milliseconds and predicted damage are sums over the units.

Choosing a level for every unit then is a multiple-choice knapsack with one limit or two (Kellerer,
Pferschy and Pisinger, Knapsack Problems, 2004, ch. 11). Two ways to it, both on plain arrays:

- `solve`, `solve_front`: dominance dynamic programming (Nemhauser and Ullmann, Management Science 15,
  1969): unit by unit, keep the partial candidates that no other dominates. Exact until they become too
  many; then the least damage of each bin of bytes is kept, with its exact sums.
- `sweep`: generalized Lagrange multipliers (Everett, Operations Research 11, 1963): for a price of a byte
  each unit decides alone. Fast, and never far from the best where there are many units.

Shapes: u units, l levels, n candidates, s states or steps, w weights, t targets, p = w * t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoprune.costs import Costs
from autoprune.space import Candidate, Level, SearchSpace

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COARSE = ((2048, 1), (256, 16))
PASSES = (((65536, 1),), ((4096, 32),))
DIL, TOLF, DEBUG = 2, 1, 0
CAP = 8192
TRACK = 64
GRID = 64
SCALE = 0.02
SIGN = -1
ROUNDING = 1e-12
"""Sums of milliseconds in another order may differ by this share; the last word has `totals`."""


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
        levels = tuple(tuple(one.levels()) for one in space.units)
        table = np.full((3, len(levels), max(map(len, levels), default=0)), np.inf)
        for k, one in enumerate(space.units):
            for j, level in enumerate(levels[k]):
                cost = costs.levels[one.unit][level]
                table[:, k, j] = cost.size_bytes, cost.latency_ms, cost.damage
        names = tuple(one.unit for one in space.units)
        return cls(names, levels, *table, float(costs.fixed_bytes), float(costs.fixed_ms))

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
        picked = (levels[k] for levels, k in zip(self.levels, chosen.tolist(), strict=True))
        return Candidate(tuple(zip(self.units, picked, strict=True)))

    def chosen(self, candidate: Candidate) -> Ints:
        """Level indices [u] of a candidate (inverse of `candidate`)."""
        pairs = zip(self.levels, candidate.items, strict=True)
        return np.array([levels.index(level) for levels, (_, level) in pairs], np.int64)

    def totals(self, chosen: Ints) -> tuple[Floats, Floats, Floats]:
        """Bytes, milliseconds and damage, each [n], of candidates [n u]; fixed parts included."""
        every = np.arange(len(self.units))
        size, ms, damage = (
            table[every, chosen].sum(1) for table in (self.size_bytes, self.latency_ms, self.damage)
        )
        return self.fixed_bytes + size, self.fixed_ms + ms, damage


def solve(
    problem: Problem, *, limit_bytes: float | None = None, limit_ms: float | None = None
) -> Ints | None:
    """The candidate [u] of least damage within both limits; None where nothing fits."""
    if limit_bytes is None and limit_ms is not None:  # one limit is enough: milliseconds play the bytes
        problem = replace(
            problem, size_bytes=problem.latency_ms, latency_ms=problem.size_bytes,
            fixed_bytes=problem.fixed_ms, fixed_ms=problem.fixed_bytes,
        )  # fmt: skip
        limit_bytes, limit_ms = limit_ms, None
    front = solve_front(problem, limit_bytes=limit_bytes, limit_ms=limit_ms)
    return front[-1] if len(front) else None


def solve_front(problem: Problem, *, limit_bytes: float | None = None, limit_ms: float | None = None) -> Ints:
    """Candidates [n u] within the limits that none is both smaller and less damaged than, by size."""
    limits = np.array([_limit(limit_bytes, problem.fixed_bytes), _limit(limit_ms, problem.fixed_ms)])
    found = _states(problem, limits)
    size, ms, damage = problem.totals(found)
    fit = size <= (math.inf if limit_bytes is None else limit_bytes)
    fit &= ms <= (math.inf if limit_ms is None else limit_ms)
    found, size, damage = found[fit], size[fit], damage[fit]
    return found[_front(size, damage)]


def _limit(limit: float | None, fixed: float) -> float:
    return math.inf if limit is None else (limit - fixed) + ROUNDING * abs(limit)


def _front(size: Floats, damage: Floats) -> Ints:
    """Indices of the points that none dominates, smallest first; of equal ones the first."""
    order = np.lexsort((damage, size))
    least = np.minimum.accumulate(damage[order])
    new = np.ones(len(order), bool)
    new[1:] = least[1:] < least[:-1]
    return order[new]


# ---- dynamic programming ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Track:
    """What the Lagrangian optimum takes along a curve of prices, from the dearest byte to a free one.

    byte, milli: damage a byte and a millisecond [g]. size, ms: of each unit [g u].
    """

    byte: Floats
    milli: Floats
    size: Floats
    ms: Floats
    damage: Floats


def _states(problem: Problem, limits: Floats) -> Ints:
    """Candidates [n u] left when all units are decided: all of the front, and with two limits more."""
    offered = problem.offered
    if not offered.any(1).all():
        return np.zeros((0, len(problem.units)), np.int64)
    two = bool(np.isfinite(limits[1]))
    costs = np.stack([problem.size_bytes, problem.latency_ms * two, problem.damage])
    costs = np.where(offered, costs, np.inf)
    track = _track(costs, limits[1])
    found, sums, thinned = _pass(costs, limits, track, COARSE[two], two)
    for c in PASSES[two]:
        if thinned and len(found):
            tol = _tol(sums, limits, track)
            new, sums2, thinned = _pass(costs, limits, track, c, two, tol)
            found, sums = np.concatenate([found, new]), np.concatenate([sums, sums2], 1)
    return found


def _tol(sums, limits, track):
    f = sums[:, _front(sums[0], sums[2])]
    b = np.append(f[0, 1:], f[0, -1:])
    bound = (track.damage + track.byte[:, None] * track.size + track.milli[:, None] * track.ms).sum(1)
    t = limits[1] if np.isfinite(limits[1]) else 0.0
    lbs = bound[:, None] - track.byte[:, None] * b - track.milli[:, None] * t
    g = lbs.argmax(0)
    gap = f[2] - lbs.max(0)
    tol = np.zeros(len(bound))
    np.maximum.at(tol, g, gap)
    near = DIL
    pad = np.pad(tol, near, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(pad, 2 * near + 1).max(1) * TOLF + 1e-12 * np.abs(bound)


def _pass(costs, limits, track, bins, two, tol=None):
    least = costs[:2].min(2)
    spread = np.where(np.isfinite(costs[0]), costs[0], 0.0).max(1) - least[0]
    order = np.argsort(SIGN*spread, kind="stable")
    states, back, room = np.zeros((3, 1)), [], limits - least.sum(1)
    thinned = False
    ns=[];nopt=[]
    for k, u in enumerate(order):
        room = room + least[:, u]
        options = _useful(costs[:, u])
        if tol is not None:
            one = costs[:, u][:, options]
            own = one[2] + track.byte[:, None] * one[0] + track.milli[:, None] * one[1]
            options = options[(own - own.min(1, keepdims=True) <= tol[:, None]).any(0)]
            nopt.append(len(options))
        sums = (states[:, :, None] + costs[:, u][:, None, options]).reshape(3, -1)
        kept = np.flatnonzero((sums[0] <= room[0]) & (sums[1] <= room[1]))
        if len(kept) > CAP:
            kept = kept[_thinned(sums[:, kept], track, order[: k + 1], bins, tol)]
            thinned = True
        kept = kept[~_dominated(sums[:, kept])] if two else kept[_front(sums[0, kept], sums[2, kept])]
        states = sums[:, kept]
        ns.append(len(kept))
        parent, level = np.divmod(kept, len(options))
        back.append((parent, options[level]))
    if DEBUG: print(ns[::10], ns[-1],np.mean(nopt))
    return _walked_back(back, order, states.shape[1]), states, thinned


def _useful(costs: Floats) -> Ints:
    """Levels of a unit [3 l] that no other equals or betters in all three costs; of equal ones the first."""
    none_worse = (costs[:, :, None] <= costs[:, None, :]).all(0)  # [l l]: l is nowhere worse than l'
    better = none_worse & ~(
        none_worse.T & (np.arange(len(none_worse)) >= np.arange(len(none_worse))[:, None]).T
    )
    np.fill_diagonal(better, False)
    return np.flatnonzero(np.isfinite(costs).all(0) & ~better.any(0))


def _track(costs: Floats, limit_ms: float) -> _Track:
    """Prices at even steps along the hull, each with the price of a millisecond that meets the limit."""
    _, slope, _ = _hulls(costs[0], costs[2][None])
    steps = np.sort(slope[slope > 0])[::-1]
    g = TRACK if np.isfinite(limit_ms) else TRACK * 4
    picked = steps[np.linspace(0, len(steps) - 1, g).astype(int)] if len(steps) else np.ones(1)
    byte = np.concatenate([[picked[0] * 1e3], picked * (1 + 1e-9), [0.0]])
    low, high = np.zeros(len(byte)), np.zeros(len(byte))
    chosen = _cheapest(costs, byte, low)
    u = np.arange(costs.shape[1])
    size, ms = costs[0][u, chosen], costs[1][u, chosen]
    over = ms.sum(1) > limit_ms
    if not over.any():
        return _Track(byte, low, size, ms, costs[2][u, chosen])
    span = np.ptp(np.where(np.isfinite(costs[2]), costs[2], 0.0))
    unit = max(span, 1e-12) / max(np.ptp(ms), 1e-12)
    a, b = np.full(len(byte), -30.0), np.full(len(byte), 30.0)
    for _ in range(36):
        middle = (a + b) / 2
        milli = unit * np.exp(middle)
        chosen = _cheapest(costs, byte, milli)
        high_enough = costs[1][u, chosen].sum(1) <= limit_ms
        a, b = np.where(high_enough, a, middle), np.where(high_enough, middle, b)
    milli = np.where(over, unit * np.exp(b), 0.0)
    chosen = _cheapest(costs, byte, milli)
    other = _cheapest(costs, byte, np.where(over, unit * np.exp(a), 0.0))
    t1, t0 = costs[1][u, chosen].sum(1), costs[1][u, other].sum(1)
    share = np.clip(np.divide(t0 - limit_ms, t0 - t1, out=np.ones_like(t0), where=over & (t0 > t1)), 0, 1)[
        :, None
    ]
    size, ms, damage = (share * c[u, chosen] + (1 - share) * c[u, other] for c in costs)
    return _Track(byte, milli, size, ms, damage)


def _cheapest(costs: Floats, byte: Floats, milli: Floats) -> Ints:
    """Level [g u] of each unit at each pair of prices [g]."""
    found: Ints = (costs[2] + byte[:, None, None] * costs[0] + milli[:, None, None] * costs[1]).argmin(2)
    return found


def _thinned(sums: Floats, track: _Track, units: Ints, bins, tol) -> Ints:
    """Of the states in each bin the one of least damage + price * bytes + price * ms, prices local."""
    n, m = bins
    size, ms, damage = (one[:, units].sum(1) for one in (track.size, track.ms, track.damage))
    bound = damage + track.byte * size + track.milli * ms
    size = np.maximum.accumulate(size)
    low, high = min(sums[0].min(), size[0]), max(sums[0].max(), size[-1])
    even = (size - low) / max(high - low, 1e-300)
    rank = np.arange(1, len(size) + 1) / (len(size) + 1)
    knots = np.concatenate([[low], size, [high]])
    place = np.concatenate([[0.0], (even + rank) / 2, [1.0]])
    i = np.minimum((np.interp(sums[0], knots, place) * n).astype(np.int64), n - 1)
    centre = np.interp((np.arange(n) + 0.5) / n, place, np.concatenate([[0.0], np.arange(len(size)), [len(size) - 1.0]]))
    slack = np.full(len(i), np.inf)
    for g in (np.floor(centre).astype(int), np.ceil(centre).astype(int)):
        one = sums[2] + track.byte[g][i] * sums[0] - bound[g][i]
        if m > 1:
            one += track.milli[g][i] * sums[1]
        slack = np.minimum(slack, one)
    cell = i
    if m > 1:
        at = np.arange(len(size))
        off = sums[1] - np.interp(centre, at, ms)[i]
        scale = SCALE * np.ptp(track.ms)
        j = np.clip(m / 2 + m / 12 * np.arcsinh(off / scale), 0, m - 1).astype(np.int64)
        cell = i * m + j
    if tol is not None:
        good = np.flatnonzero(slack <= np.maximum(tol[np.floor(centre).astype(int)], tol[np.ceil(centre).astype(int)])[i])
        return good[_least_of_each(cell[good], slack[good])] if len(good) else _least_of_each(cell, slack)
    return _least_of_each(cell, slack)


def _least_of_each(cell: Ints, worth: Floats) -> Ints:
    """Index of the state of least worth in each cell, by cell."""
    least = np.full(int(cell.max()) + 1, np.inf)
    np.minimum.at(least, cell, worth)
    winners = np.flatnonzero(worth == least[cell])
    first = np.full(len(least), -1)
    first[cell[winners[::-1]]] = winners[::-1]
    return first[first >= 0]


def _dominated(sums: Floats) -> NDArray[np.bool_]:
    """Whether a state of a bin lower in both bytes and milliseconds has no more damage: most dominated."""
    if sums.shape[1] < 2:
        return np.zeros(sums.shape[1], bool)
    low = sums[:2].min(1, keepdims=True)
    width = np.maximum(sums[:2].max(1, keepdims=True) - low, 1e-300)
    i, j = np.minimum((sums[:2] - low) / width * GRID, GRID - 1).astype(np.int64)
    flat = np.full(GRID * GRID, np.inf)
    np.minimum.at(flat, i * GRID + j, sums[2])
    least = np.full((GRID + 1, GRID + 1), np.inf)
    least[1:, 1:] = np.minimum.accumulate(np.minimum.accumulate(flat.reshape(GRID, GRID), 0), 1)
    return least[i, j] <= sums[2]


def _walked_back(back: Sequence[tuple[Ints, Ints]], order: Ints, count: int) -> Ints:
    """Candidates [n u] of the last states by following each to the first."""
    chosen = np.zeros((count, len(order)), np.int64)
    at = np.arange(count)
    for u, (parent, level) in zip(order[::-1], reversed(back), strict=True):
        chosen[:, u] = level[at]
        at = parent[at]
    return chosen


# ---- prices -------------------------------------------------------------------------------------

FILLS = 4
"""Changes that spend the room left below a limit; more gain nothing on random tables."""


def sweep(problem: Problem, targets: Floats, weights: Floats) -> Ints:
    """A very good candidate [p u] for each price of a millisecond and size limit, weights outermost.

    It makes damage + weight * ms small within the limit in bytes; where the limit is below the
    smallest candidate, the smallest. targets: limits in bytes [t]. weights: damage a millisecond [w].
    """
    offered = problem.offered
    size = np.where(offered, problem.size_bytes, np.inf)
    ms, damage = (np.where(offered, one, 0.0) for one in (problem.latency_ms, problem.damage))
    cost = np.where(offered, damage + np.asarray(weights, float)[:, None, None] * ms, np.inf)
    path, slope, grown = _hulls(size, cost)
    w, u, s = slope.shape
    order = np.argsort(-slope.reshape(w, -1), axis=1, kind="stable")
    spent = np.cumsum(np.take_along_axis(grown.reshape(w, -1), order, 1), 1)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(u * s), order.shape), 1)
    room = np.asarray(targets, float) - problem.fixed_bytes - size.min(1).sum()
    count = np.stack([np.searchsorted(one, room, side="right") for one in spent])
    step = (rank.reshape(w, 1, u, s) < count[:, :, None, None]).sum(3)
    chosen = np.take_along_axis(path[:, None], step[..., None], 3)[..., 0]
    used = np.take_along_axis(np.pad(spent, ((0, 0), (1, 0))), count, 1)
    return _filled(chosen, room - used, size, cost).reshape(-1, u)


def _hulls(size: Floats, cost: Floats) -> tuple[Ints, Floats, Floats]:
    """Each unit's levels on the lower convex hull of cost [w u l] over bytes [u l], smallest first.

    Returns level indices [w u s+1], and of the steps between them what each saves a byte and the
    bytes it adds [w u s]; a hull with fewer steps ends in steps that save and add nothing.
    """
    first = np.lexsort((cost, np.broadcast_to(size, cost.shape)), axis=2)[..., 0]
    path, slopes, grown = [first], [], []
    size = np.broadcast_to(size, cost.shape)
    for _ in range(size.shape[2] - 1):
        now = path[-1][..., None]
        here, cost_here = np.take_along_axis(size, now, 2), np.take_along_axis(cost, now, 2)
        more, less = size - here, cost_here - cost
        useful = (more > 0) & (less > 0)
        slope = np.divide(less, more, out=np.zeros_like(cost), where=useful)
        best = slope.argmax(2)[..., None]
        top = np.take_along_axis(slope, best, 2)
        if not (top > 0).any():
            break
        path.append(np.where(top > 0, best, now)[..., 0])
        slopes.append(top[..., 0])
        grown.append(np.where(top > 0, np.take_along_axis(more, best, 2), 0.0)[..., 0])
    if not slopes:
        return first[..., None], np.zeros((*first.shape, 0)), np.zeros((*first.shape, 0))
    falling = np.minimum.accumulate(np.stack(slopes, 2), 2)  # rounding must not swap a unit's steps
    return np.stack(path, 2), falling, np.stack(grown, 2)


def _filled(chosen: Ints, room: Floats, size: Floats, cost: Floats) -> Ints:
    """Candidates [w t u] with the room [w t] that is left spent on the changes that save most."""
    chosen = chosen.copy()
    every = np.arange(chosen.shape[2])
    w, t = np.indices(room.shape)
    for _ in range(FILLS):
        here = size[every, chosen]
        fits = size <= (here + np.maximum(room, 0.0)[..., None])[..., None]
        best = np.where(fits, cost[:, None], np.inf).argmin(3)
        saved = cost[w[..., None], every, chosen] - cost[w[..., None], every, best]
        unit = saved.argmax(2)
        if not (saved[w, t, unit] > 0).any():
            break
        level = best[w, t, unit]
        room = room - (size[unit, level] - here[w, t, unit])
        chosen[w, t, unit] = level
    return chosen
