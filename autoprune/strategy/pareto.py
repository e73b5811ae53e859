"""Pareto front of trials and its hypervolume. Pure Python; imports no torch.

Objectives, in this order everywhere: size_bytes (less is better), latency_ms (less is better),
accuracy in percent (more is better).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from autoprune.space.budget import Budget
from autoprune.space.trial import Measurement, Trial, finished


def dominates(a: Measurement, b: Measurement) -> bool:
    """Whether `a` is nowhere worse than `b` and somewhere better."""
    x, y = _minimised(a), _minimised(b)
    return x != y and all(p <= q for p, q in zip(x, y, strict=True))


def _minimised(m: Measurement) -> tuple[float, float, float]:
    size, latency, accuracy = m.objectives()
    return size, latency, -accuracy


def front(trials: Iterable[Trial]) -> list[Trial]:
    """The trials that none dominates, smallest first; ties stay.

    By a sweep over size that keeps the front of latency and accuracy (Kung, Luccio and Preparata, On Finding
    the Maxima of a Set of Vectors, 1975).
    """
    done = sorted(
        ((_minimised(m), trial.number, trial) for trial, m in finished(trials)), key=lambda row: row[:2]
    )
    members: list[Trial] = []
    stairs, last = Stairs(math.inf, math.inf), None
    for costs, _, trial in done:
        if costs == last or not stairs.covers(costs[1], costs[2]):
            members.append(trial)
            last = costs
            stairs.add(costs[1], costs[2])
    return members


class Stairs:
    """The front of points in a plane where less is better, and the area that it dominates up to a corner."""

    def __init__(self, right: float, top: float) -> None:
        self.xs: list[float] = []
        self.ys: list[float] = []
        self.right, self.top = right, top

    def covers(self, x: float, y: float) -> bool:
        """Whether a point of the front is nowhere worse."""
        place = bisect_right(self.xs, x)
        return place > 0 and self.ys[place - 1] <= y

    def add(self, x: float, y: float) -> float:
        """Add a point; those that it is nowhere worse than go. The area that it adds."""
        if self.covers(x, y):
            return 0.0
        start = end = bisect_left(self.xs, x)
        while end < len(self.xs) and self.ys[end] >= y:
            end += 1
        area, left, floor = 0.0, x, self.ys[start - 1] if start else self.top
        for k in range(start, end):
            area += (self.xs[k] - left) * (floor - y)
            left, floor = self.xs[k], self.ys[k]
        area += ((self.xs[end] if end < len(self.xs) else self.right) - left) * (floor - y)
        self.xs[start:end], self.ys[start:end] = [x], [y]
        return area


def within(trials: Iterable[Trial], budget: Budget) -> list[Trial]:
    """The trials whose measured size and latency the budget allows."""
    return [trial for trial, m in finished(trials) if budget.allows(m.size_bytes, m.latency_ms)]


def hypervolume(trials: Iterable[Trial], reference: Measurement) -> float:
    """Share of the box between `reference` and the ideal (0 bytes, 0 ms, 100 %) that is dominated.

    Exact, by sweeping size and summing the area dominated in (latency, accuracy). Members at or
    beyond the reference add nothing. Always print it with its reference point.
    """
    box = reference.size_bytes * reference.latency_ms * (100.0 - reference.accuracy)
    if box <= 0:
        return 0.0
    inside = [
        m
        for _, m in finished(trials)
        if m.size_bytes < reference.size_bytes
        and m.latency_ms < reference.latency_ms
        and m.accuracy > reference.accuracy
    ]
    inside.sort(key=lambda m: m.size_bytes)
    stairs, area, total = Stairs(reference.latency_ms, -reference.accuracy), 0.0, 0.0
    for k, m in enumerate(inside):
        end = inside[k + 1].size_bytes if k + 1 < len(inside) else reference.size_bytes
        area += stairs.add(m.latency_ms, -m.accuracy)
        total += (end - m.size_bytes) * area
    return total / box
