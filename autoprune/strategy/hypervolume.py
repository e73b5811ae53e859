"""Hypervolume on arrays: areas in the unit square, points of a lattice in the unit cube.

Coordinates are scaled so that 0 is ideal and 1 is as bad as counts. Letters: n known points, m new
points, q points of a lattice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from autoprune.strategy.solver.planes import Choice, Floats


@dataclass(frozen=True)
class ByteRange:
    """Bytes between which size counts: those of the smallest model and of the largest that counts."""

    low: float
    high: float


KL_FLOOR = 1e-5
"""Nats a row below which a model is as good as the original: uniform 8-bit is about here."""

KL_CEILING = 1.0
"""Nats a row at which nothing is left of the original; twice as bad counts the same."""


UNRESOLVED_SHARE = 0.1
"""Share of a scale that divergences too small to be resolved by accuracy have together."""

MOST_UNRESOLVED_KL = 1e-2
"""Nats a row that count in full however few answers there are."""

LATTICE = 2048
"""Points by which volume in three dimensions is counted (Sobol', the first 2^11)."""


def kl_scale(kl: Floats, *, resolved: float = KL_FLOOR) -> Floats:
    """Divergence (nats) on the scale that resolves the good end: its logarithm, 0 at the floor.

    resolved: what is below counts little (`UNRESOLVED_SHARE`); see `resolved_kl`.

    >>> kl_scale(np.array([1e-6, 1e-5, 10**-2.5, 1.0, 3.0])).round(3).tolist()
    [0.0, 0.0, 0.5, 1.0, 1.0]
    >>> kl_scale(np.array([1e-5, 1e-4, 1e-3, 1.0]), resolved=1e-3).round(3).tolist()
    [0.0, 0.05, 0.1, 1.0]
    """
    scaled: Floats = np.clip(np.log(np.maximum(kl, 1e-12) / KL_FLOOR) / np.log(KL_CEILING / KL_FLOOR), 0, 1)
    corner = math.log(max(resolved, KL_FLOOR) / KL_FLOOR) / math.log(KL_CEILING / KL_FLOOR)
    if corner <= UNRESOLVED_SHARE:
        return scaled
    bent: Floats = np.interp(scaled, [0.0, corner, 1.0], [0.0, UNRESOLVED_SHARE, 1.0])
    return bent


def resolved_kl(answers: int) -> float:
    """Divergence (nats a row) from which accuracy on so many answers may tell a model from the original.

    By Pinsker's inequality (Cover and Thomas, Elements of Information Theory, 2006, lemma 11.6.1) a share of
    at most sqrt(KL / 2) of the answers changes, and one standard error of accuracy p is
    sqrt(p (1 - p) / answers), at most 1 / (2 sqrt(answers)). They are equal at 1 / (2 answers).

    >>> [round(resolved_kl(answers), 5) for answers in (10, 360, 1263, 10**6)]
    [0.01, 0.00139, 0.0004, 1e-05]
    """
    return min(max(0.5 / max(answers, 1), KL_FLOOR), MOST_UNRESOLVED_KL)


@cache
def unit_lattice() -> Floats:
    """Points of the unit cube [q 3], evenly spread, by which volume is counted; not to be written to."""
    points: Floats = qmc.Sobol(3, seed=0).random(LATTICE)
    points.flags.writeable = False
    return points


def unit_scale(values: Floats, *, low: float, high: float) -> Floats:
    """Bytes or milliseconds scaled so that 0 is the least, 1 the most that counts."""
    scaled: Floats = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return scaled


def area(points: Floats) -> float:
    """Share of the unit square that points [n 2] dominate.

    >>> area(np.array([[0.5, 0.5], [0.75, 0.25], [0.8, 0.9]]))
    0.3125
    """
    if not len(points):
        return 0.0
    order = np.lexsort((points[:, 1], points[:, 0]))
    x, y = points[order, 0], np.minimum.accumulate(points[order, 1])
    return float(((np.append(x[1:], 1.0) - x) * (1.0 - y)).sum())


def kl_area(size_bytes: Floats, kl: Floats, byte_range: ByteRange) -> float:
    """Share of the box of bytes (`byte_range`) and log KL (floor to ceiling) that is dominated."""
    scaled = unit_scale(size_bytes, low=byte_range.low, high=byte_range.high)
    return area(np.stack([scaled, kl_scale(kl)], 1))


def added_area(points: Floats, known: Floats) -> Floats:
    """Area in the unit square that each point [m 2] dominates and the known [n 2] do not.

    >>> added_area(np.array([[0.5, 0.5], [0.9, 0.9]]), np.array([[0.75, 0.25]])).tolist()
    [0.125, 0.0]
    """
    order = np.lexsort((known[:, 1], known[:, 0]))
    x, y = known[order, 0], np.minimum.accumulate(known[order, 1]) if len(known) else known[:, 1]
    left, right = np.concatenate([[0.0], x]), np.concatenate([x, [1.0]])
    ceiling = np.concatenate([[1.0], y])  # height that is still open above each stretch of x
    width = np.clip(right - np.maximum(left, points[:, :1]), 0, None)
    out: Floats = (width * np.clip(ceiling - points[:, 1:], 0, None)).sum(1)
    return out


def covered(points: Floats, lattice: Floats) -> NDArray[np.bool_]:
    """Whether any of many points dominates a point of the lattice [q].

    The best are looked at first, so that few points of the lattice are left for the others.
    """
    out = np.zeros(len(lattice), bool)
    order = np.argsort(points.sum(1), kind="stable")
    for start in range(0, len(order), 64):
        left = np.flatnonzero(~out)
        out[left] = covers(points[order[start : start + 64]], lattice[left]).any(0)
    return out


def covers(points: Floats, lattice: Floats) -> NDArray[np.bool_]:
    """Whether a point dominates a point of the lattice [m q]."""
    out = np.ones((len(points), len(lattice)), bool)
    for axis in range(points.shape[1]):
        out &= points[:, axis, None] <= lattice[:, axis]
    return out


def staircase(points: Floats) -> Choice:
    """Numbers of the points [n 2] that are the best in the second of all that are no larger in the first."""
    order = np.lexsort((points[:, 1], points[:, 0]))
    best = np.minimum.accumulate(points[order, 1]) if len(order) else points[:, 1]
    members: Choice = order[points[order, 1] <= best].astype(np.intp)
    return members
