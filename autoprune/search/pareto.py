"""Pareto front of trials and its hypervolume. Pure Python; imports no torch.

Objectives, in this order everywhere: size_bytes (less is better), latency_ms (less is better),
accuracy in percent (more is better).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    """The trials that none dominates, smallest first; ties stay."""
    done = finished(trials)
    members = [(trial, m) for trial, m in done if not any(dominates(other, m) for _, other in done)]
    return [trial for trial, _ in sorted(members, key=lambda pair: (_minimised(pair[1]), pair[0].number))]


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
    total = 0.0
    for k, m in enumerate(inside):
        end = inside[k + 1].size_bytes if k + 1 < len(inside) else reference.size_bytes
        total += (end - m.size_bytes) * _area(inside[: k + 1], reference)
    return total / box


def _area(points: Sequence[Measurement], reference: Measurement) -> float:
    """Area in (latency, accuracy) that the points dominate, up to the reference."""
    area, floor = 0.0, reference.accuracy
    for m in sorted(points, key=lambda point: point.latency_ms):
        if m.accuracy > floor:
            area += (reference.latency_ms - m.latency_ms) * (m.accuracy - floor)
            floor = m.accuracy
    return area
