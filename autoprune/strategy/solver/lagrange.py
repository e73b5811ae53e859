"""Lagrange multipliers of a multiple-choice knapsack: prices of a byte and of a millisecond. Arrays only.

Generalized Lagrange multipliers (Everett, Operations Research 11, 1963): at given prices each unit chooses
its level alone, and no other candidate of the same size and latency does less damage.
The same prices solve the linear relaxation of the multiple-choice knapsack, by the convex hull of each
unit (Kellerer, Pferschy and Pisinger, Knapsack Problems, 2004, ch. 11.2).

Shapes: u units, l levels, s steps of a hull, w weights, g points of a curve. Axis 3: the planes `BYTES`,
`MS`, `DAMAGE`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoprune.strategy.solver.planes import BYTES, DAMAGE, MS, Floats, Ints

POINTS = {1: 256, 2: 64}
"""Points of a curve of prices, by the number of limits: enough for gaps of 0.1 % on 100 units."""


@dataclass(frozen=True)
class Curve:
    """Lagrangian optima along a curve of prices, from the dearest byte to a free one.

    byte, milli: damage a byte and a millisecond [g]. costs: what each unit takes then [3 g u].
    """

    byte: Floats
    milli: Floats
    costs: Floats

    @property
    def bound(self) -> Floats:
        """The least damage + byte * bytes + milli * ms of any choice [g]."""
        return self.priced(self.costs.sum(2))

    def priced(self, sums: Floats) -> Floats:
        """Damage and the price of the rest, of sums [3 g]."""
        total: Floats = sums[DAMAGE] + self.byte * sums[BYTES] + self.milli * sums[MS]
        return total


def hulls(size: Floats, cost: Floats) -> tuple[Ints, Floats, Floats]:
    """Each unit's levels on the lower convex hull of cost [w u l] over bytes [u l], smallest first.

    Returns level indices [w u s+1], and of the steps between them what each saves a byte and the
    bytes it adds [w u s]; a hull with fewer steps ends in steps that save and add nothing.
    """
    size = np.broadcast_to(size, cost.shape)
    first = np.lexsort((cost, size), axis=2)[..., 0]
    path, slopes, grown = [first], [np.zeros((*first.shape, 0))], [np.zeros((*first.shape, 0))]
    for _ in range(size.shape[2] - 1):
        now = path[-1][..., None]
        more, less = size - np.take_along_axis(size, now, 2), np.take_along_axis(cost, now, 2) - cost
        slope = np.divide(less, more, out=np.zeros_like(cost), where=(more > 0) & (less > 0))
        best = slope.argmax(2)[..., None]
        top = np.take_along_axis(slope, best, 2)
        if not (top > 0).any():
            break
        path.append(np.where(top > 0, best, now)[..., 0])
        slopes.append(top)
        grown.append(np.where(top > 0, np.take_along_axis(more, best, 2), 0.0))
    slope = np.concatenate(slopes, 2)
    falling = np.minimum.accumulate(slope, 2) if slope.size else slope  # rounding swaps no steps
    return np.stack(path, 2), falling, np.concatenate(grown, 2)


def price_curve(costs: Floats, limit_ms: float, byte: Floats | None = None) -> Curve:
    """Optima at prices of a byte, at even steps along the hull where none are given.

    The price of a millisecond is the one that meets the limit; then a mixture of the two optima on
    either side, as in the linear relaxation, takes exactly the limit.
    """
    if byte is None:
        _, slope, _ = hulls(costs[BYTES], costs[DAMAGE][None])
        steps = np.append(np.sort(slope[slope > 0])[::-1], 0.0)
        picked = steps[np.linspace(0, len(steps) - 1, POINTS[1 + bool(np.isfinite(limit_ms))]).astype(int)]
        byte = np.concatenate([[picked[0] * 1e3], picked])
    low, high = np.full(len(byte), -30.0), np.full(len(byte), 30.0)  # logarithms
    under = _optima(costs, byte, np.zeros(len(byte)))
    over = under[MS].sum(1) > limit_ms
    if not over.any():
        return Curve(byte, np.zeros(len(byte)), under)
    ms, damage = np.maximum(spread(costs)[[MS, DAMAGE]].max(1), 1e-12)
    unit = damage / ms
    for _ in range(40):
        middle = (low + high) / 2
        meets = _optima(costs, byte, unit * np.exp(middle))[MS].sum(1) <= limit_ms
        low, high = np.where(meets, low, middle), np.where(meets, middle, high)
    milli = np.where(over, unit * np.exp(high), 0.0)
    above, under = _optima(costs, byte, np.where(over, unit * np.exp(low), 0.0)), _optima(costs, byte, milli)
    most, least = above[MS].sum(1), under[MS].sum(1)
    share = np.divide(most - limit_ms, most - least, out=np.ones_like(most), where=over & (most > least))
    share = np.clip(share, 0.0, 1.0)[:, None]
    return Curve(byte, milli, share * under + (1 - share) * above)


def _optima(costs: Floats, byte: Floats, milli: Floats) -> Floats:
    """What each unit takes at each pair of prices [3 g u]."""
    priced = np.where(np.isfinite(costs), costs, np.finfo(float).max / 1e30)
    total = priced[DAMAGE] + byte[:, None, None] * priced[BYTES] + milli[:, None, None] * priced[MS]
    taken: Floats = costs[:, np.arange(costs.shape[1]), total.argmin(2)]
    return taken


def spread(costs: Floats) -> Floats:
    """Largest less least of each unit's finite costs [3 u]."""
    finite = np.isfinite(costs)
    most, least = np.where(finite, costs, -np.inf).max(2), np.where(finite, costs, np.inf).min(2)
    wide: Floats = most - least
    return wide
