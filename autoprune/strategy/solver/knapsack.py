"""Dynamic program with dominance for multiple-choice knapsacks with one limit or two. Arrays only.

Dominance dynamic programming (Nemhauser and Ullmann, Management Science 15, 1969): unit by unit, keep
the partial choices, here *states*, that no other dominates. That is exact until they become too many.
Then Lagrangian prices (Everett, Operations Research 11, 1963) tell which of them matter: what a state is
above the Lagrangian optimum at the prices of its place, its *slack*, can never be made good, so the least
slack of each bin is kept, with its exact sums; and none above what a coarse first round leaves open
between its front and the bound (Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004, ch. 11).

Shapes: u units, l levels, s states, n complete choices, g points of a curve. Axis 3: the planes
`BYTES`, `MS`, `DAMAGE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoprune.strategy.solver.lagrange import POINTS, Curve, price_curve, spread
from autoprune.strategy.solver.planes import BYTES, DAMAGE, MS, Floats, Ints

CAP = 8192
"""States that are kept exactly; more of them are thinned."""
COARSE, FINE = {1: (2048, 1), 2: (256, 16)}, {1: (32768, 1), 2: (768, 24)}
"""Bins of bytes and of milliseconds of the two rounds, by the number of limits; see
docs/decisions/016-bins-of-the-knapsack.md."""
NEARBY = 6
"""A gap found at one point of the curve holds for as many points to either side."""
GAP_ROUNDS = 3
"""Times that a smaller gap is used to look again among the choices above the bound."""
BEFORE = 16
"""Points before the one where milliseconds begin to cost, from which on their limit is looked after."""
MS_BIN = 0.05
"""Width of the middle bins of milliseconds, as a share of the largest difference within one unit; the
others widen exponentially."""
EPSILON = 1e-12
"""Share of a sum that rounding may change."""


class Solutions(NamedTuple):
    """Complete choices [n u] of levels with their sums [3 n]; exact where none was thinned out."""

    chosen: Ints
    sums: Floats
    exact: bool


def undominated(size: Floats, damage: Floats) -> Ints:
    """Indices of the points that none dominates, smallest first; of equal ones the first."""
    order = np.lexsort((damage, size))
    least = np.minimum.accumulate(damage[order])
    new = np.ones(len(order), bool)
    new[1:] = least[1:] < least[:-1]
    return order[new]


def near_front(costs: Floats, limits: Floats) -> Ints:
    """Choices [n u] within limits [2] that hold the front of bytes and damage, or one very near it.

    costs [3 u l]: infinite where a level may not be chosen. limits: of bytes and ms, or infinity.
    """
    if np.isinf(limits[MS]):
        return _plane_front(costs, BYTES, DAMAGE, limits[BYTES])
    curve = price_curve(costs, limits[MS])
    coarse = _decide(costs, limits, curve, COARSE[2])
    if coarse.exact:
        return coarse.chosen
    parts = [coarse.chosen, _plane_front(costs, BYTES, MS, limits[BYTES])]
    parts.append(_plane_front(costs, MS, DAMAGE, limits[MS]))  # the front's last
    binding = np.flatnonzero(curve.milli > 0)
    start = int(binding[0]) if len(binding) else len(curve.byte)
    if start > 0:  # up to some size milliseconds are no matter
        top = 1.1 * curve.costs[BYTES].sum(1)[min(start, len(curve.byte) - 1)]
        parts.append(_plane_front(costs, BYTES, DAMAGE, min(limits[BYTES], top)))
    if len(binding) and len(coarse.chosen):
        gaps = _gaps(coarse.sums, limits, curve)
        gaps[: max(0, start - BEFORE)] = -1.0
        parts.append(_decide(costs, limits, curve, FINE[2], gaps).chosen)
    return np.concatenate(parts)


def near_best(costs: Floats, limits: Floats) -> Ints:
    """Choices [n u] within limits [2] that hold the least damaged one, or one very near it."""
    bins = COARSE[1 if np.isinf(limits[MS]) else 2]
    costs = costs if np.isfinite(limits[MS]) else _plane(costs, BYTES, DAMAGE)
    least = np.where(np.isfinite(costs), costs, np.inf)[:2].min(2)
    limits = np.minimum(limits, (least + spread(costs)[:2]).sum(1))
    curve = price_curve(costs, limits[MS])
    coarse = _decide(costs, limits, curve, bins)
    if coarse.exact:
        return coarse.chosen
    if not len(coarse.chosen):
        return _plane_front(costs, BYTES, MS, limits[BYTES])  # where little fits: what does
    for _ in range(3):  # nearer to the prices of these limits, where the Lagrangian bound is largest
        g = int(_bound(curve, limits).argmax())
        ends = curve.byte[max(g - 1, 0)], curve.byte[min(g + 1, len(curve.byte) - 1)]
        between = np.append(np.linspace(*ends, POINTS[2]), curve.byte[g])
        curve = price_curve(costs, limits[MS], np.sort(between)[::-1])
    bound = _bound(curve, limits)
    g = int(bound.argmax())
    gap = float(coarse.sums[DAMAGE].min() - bound[g] + EPSILON * abs(curve.bound[g]))
    prices, parts = np.array([curve.byte[g], curve.milli[g]]), [coarse.chosen]
    for _ in range(GAP_ROUNDS):
        fine = _within(costs, limits, prices, gap)
        parts.append(fine.chosen)
        smaller = float(fine.sums.min(initial=gap))
        if fine.exact or smaller >= gap:
            break
        gap = smaller
    return np.concatenate(parts)


def _bound(curve: Curve, limits: Floats) -> Floats:
    """Less damage than this is not to be had within limits [2], by each pair of prices [g]."""
    bound: Floats = curve.bound - curve.byte * limits[BYTES] - curve.milli * limits[MS]
    return bound


def _plane_front(costs: Floats, limited: int, other: int, limit: float) -> Ints:
    """`near_front` in two planes of the costs alone, with a limit on the first."""
    costs, limits = _plane(costs, limited, other), np.array([limit, np.inf])
    curve = price_curve(costs, np.inf)
    coarse = _decide(costs, limits, curve, COARSE[1])
    if coarse.exact:
        return coarse.chosen
    fine = _decide(costs, limits, curve, FINE[1], _gaps(coarse.sums, limits, curve))
    return np.concatenate([coarse.chosen, fine.chosen])


def _plane(costs: Floats, limited: int, other: int) -> Floats:
    """Two planes of the costs, in the places of bytes and of damage; milliseconds cost nothing."""
    free = np.where(np.isfinite(costs[MS]), 0.0, np.inf)
    return np.stack([costs[limited], free, costs[other]])


# ---- dynamic programming ------------------------------------------------------------------------


def _decide(
    costs: Floats, limits: Floats, curve: Curve, bins: tuple[int, int], gaps: Floats | None = None
) -> Solutions:
    """Decide unit after unit, those of least difference in bytes first; gaps [g]: largest slack of use."""
    least = costs[:2].min(2)
    room = limits + EPSILON * np.abs(limits) - least.sum(1)
    order = np.argsort(spread(costs)[BYTES], kind="stable")
    states, back, exact = np.zeros((3, 1)), [], True
    for k, u in enumerate(order):
        room = room + least[:, u]
        options = _useful(costs[:, u])
        sums, kept = _sums(states, costs[:, u, options], room)
        if len(kept) > CAP:
            kept, exact = kept[_thinned(sums[:, kept], curve, order[: k + 1], bins, gaps)], False
        plane = sums[BYTES, kept], sums[DAMAGE, kept]
        kept = kept[~_dominated(sums[:, kept])] if bins[1] > 1 else kept[undominated(*plane)]
        states = sums[:, kept]
        parent, level = np.divmod(kept, len(options))
        back.append((parent, options[level]))
    return Solutions(_walk_back(states.shape[1], order, back), states, exact)


def _sums(states: Floats, options: Floats, room: Floats) -> tuple[Floats, Ints]:
    """States [3 s] with each option [3 l] of one more unit [3 s*l], and the indices of those with room."""
    sums = (states[:, :, None] + options[:, None, :]).reshape(3, -1)
    return sums, np.flatnonzero((sums[BYTES] <= room[BYTES]) & (sums[MS] <= room[MS]))


def _walk_back(count: int, units: Ints, back: Sequence[tuple[Ints, Ints]]) -> Ints:
    """The choices [n u] of the last states, from those back to the first; units as they were decided."""
    chosen, state = np.zeros((count, len(units)), np.int64), np.arange(count)
    for u, (parent, level) in zip(units[::-1], reversed(back), strict=True):
        chosen[:, u] = level[state]
        state = parent[state]
    return chosen


def _useful(costs: Floats) -> Ints:
    """Levels of a unit [3 l] that no other equals or betters in all three; of equal ones the first."""
    no_worse = (costs[:, :, None] <= costs[:, None, :]).all(0)
    equal = no_worse & no_worse.T
    better = (no_worse & ~equal) | np.triu(equal, 1)
    kept: Ints = np.flatnonzero(np.isfinite(costs).all(0) & ~better.any(0))
    return kept


def _gaps(sums: Floats, limits: Floats, curve: Curve) -> Floats:
    """How far above the Lagrangian bound choices [3 n] leave the best, at each point of the curve [g].

    A choice that is better than these at some size has no more slack at the prices of that size.
    """
    sums = sums[:, undominated(sums[BYTES], sums[DAMAGE])]
    size = np.append(sums[BYTES, 1:], sums[BYTES, -1:])  # just below the next, the last one is the best known
    ms = limits[MS] if np.isfinite(limits[MS]) else 0.0
    bound = curve.bound[:, None] - curve.byte[:, None] * size - curve.milli[:, None] * ms  # [g n]
    gaps = np.zeros(len(curve.byte))
    np.maximum.at(gaps, bound.argmax(0), sums[DAMAGE] - bound.max(0))
    padded = np.pad(gaps, NEARBY, mode="edge")
    widest: Floats = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEARBY + 1).max(1)
    return widest + EPSILON * np.abs(curve.bound)


def _thinned(sums: Floats, curve: Curve, units: Ints, bins: tuple[int, int], gaps: Floats | None) -> Ints:
    """Of the states [3 s] of these units the one of least slack in each bin, none above the gaps."""
    part = Curve(curve.byte, curve.milli, curve.costs[:, :, units])
    bound, (size, ms, _) = part.bound, part.costs.sum(2)
    size = np.maximum.accumulate(size)
    low, high = min(sums[BYTES].min(), size[0]), max(sums[BYTES].max(), size[-1])
    rank = np.arange(1, len(size) + 1) / (len(size) + 1)
    knots = np.concatenate([[low], size, [high]])
    even = (knots - low) / max(high - low, 1e-300)
    place = (even + np.concatenate([[0.0], rank, [1.0]])) / 2  # half the bins by bytes, half by price
    bin_ = np.minimum((np.interp(sums[BYTES], knots, place) * bins[0]).astype(np.int64), bins[0] - 1)
    points = np.concatenate([[0.0], np.arange(len(size)), [len(size) - 1.0]])
    centre = np.interp((np.arange(bins[0]) + 0.5) / bins[0], place, points)
    before, after = np.floor(centre).astype(np.int64), np.ceil(centre).astype(np.int64)
    slack = np.full(len(bin_), np.inf)
    for g in (before, after):  # less memory than both at once
        total = sums[DAMAGE] + curve.byte[g][bin_] * sums[BYTES]
        if bins[1] > 1:
            total += curve.milli[g][bin_] * sums[MS]
        slack = np.minimum(slack, total - bound[g][bin_])
    if bins[1] > 1:
        off = sums[MS] - np.interp(centre, np.arange(len(ms)), ms)[bin_]
        width = MS_BIN * max(float(np.ptp(curve.costs[MS])), 1e-300)
        column = np.clip(bins[1] / 2 + bins[1] / 12 * np.arcsinh(off / width), 0, bins[1] - 1)
        cell = bin_ * bins[1] + column.astype(np.int64)
    else:
        cell = bin_
    if gaps is None:
        return _least_of_each(cell, slack)
    kept = np.flatnonzero(slack <= np.maximum(gaps[before], gaps[after])[bin_])
    return kept[_least_of_each(cell[kept], slack[kept])]


def _least_of_each(cell: Ints, slack: Floats) -> Ints:
    """Index of the state of least slack in each cell that has one; of equal ones the first."""
    least = np.full(int(cell.max(initial=0)) + 1, np.inf)
    np.minimum.at(least, cell, slack)
    winners = np.flatnonzero(slack == least[cell])[::-1]
    first = np.full(len(least), -1)
    first[cell[winners]] = winners
    return first[first >= 0]


def _cells(sums: Floats, bins: tuple[int, int]) -> Ints:
    """Cell of states [3 s] in an even grid over their bytes and milliseconds, rows of bytes [s]."""
    low = sums[:2].min(1, keepdims=True)
    width = np.maximum(np.ptp(sums[:2], axis=1, keepdims=True), 1e-300)
    number = np.array(bins)[:, None]
    i, j = np.minimum((sums[:2] - low) / width * number, number - 1).astype(np.int64)
    cells: Ints = i * bins[1] + j
    return cells


def _dominated(sums: Floats, bins: int = 64) -> NDArray[np.bool_]:
    """Whether a state of a lower row and column has no more damage: so for most dominated ones [s]."""
    if sums.shape[1] == 0:
        return np.zeros(0, bool)
    i, j = np.divmod(_cells(sums, (bins, bins)), bins)
    least = np.full((bins + 1, bins + 1), np.inf)
    np.minimum.at(least, (i + 1, j + 1), sums[DAMAGE])
    least = np.minimum.accumulate(np.minimum.accumulate(least, 0), 1)
    out: NDArray[np.bool_] = least[i, j] <= sums[DAMAGE]
    return out


def _within(costs: Floats, limits: Floats, prices: Floats, gap: float) -> Solutions:
    """Choices within limits [2] of slack up to `gap` at these prices [2] of a byte and a millisecond.

    What is left of a limit counts as slack too, at its price. The least damaged choice is among them
    when `gap` is what a known one is above the Lagrangian bound. Sums [1 n] of slack in place of costs.
    """
    offered = np.isfinite(costs).all(0)
    priced = np.tensordot(prices, np.where(offered, costs[:2], 0.0), 1)
    total = np.where(offered, costs[DAMAGE] + priced, np.inf)
    slack = total - total.min(1, keepdims=True)
    options = [
        np.intersect1d(_useful(costs[:, u]), np.flatnonzero(slack[u] <= gap)) for u in range(len(slack))
    ]
    costs = np.where(slack <= gap, np.stack([costs[BYTES], costs[MS], slack]), np.inf)
    least, wide = costs[:2].min(2), spread(costs)[:2]
    order = np.argsort(-wide[BYTES], kind="stable")
    room, beyond = limits + EPSILON * np.abs(limits) - least.sum(1), (least + wide).sum(1)
    bins = (128, 128) if wide[MS].any() else (2 * CAP, 1)
    states, back, exact = np.zeros((3, 1)), [], True
    for u in order:
        room, beyond = room + least[:, u], beyond - (least + wide)[:, u]
        sums, kept = _sums(states, costs[:, u, options[u]], room)
        unused = np.maximum((limits - beyond)[:, None] - sums[:2, kept], 0.0)
        kept = kept[sums[DAMAGE, kept] + prices @ unused <= gap]
        if len(kept) > CAP:
            kept, exact = kept[_least_of_each(_cells(sums[:, kept], bins), sums[DAMAGE, kept])], False
        states = sums[:, kept]
        parent, level = np.divmod(kept, len(options[u]))
        back.append((parent, options[u][level]))
    chosen = _walk_back(states.shape[1], order, back)
    slack = states[DAMAGE] + prices @ np.maximum(limits[:, None] - states[:2], 0.0)
    return Solutions(chosen, slack[None], exact)
