"""Pareto front of trials, its hypervolume, and the points to ship. Pure Python; imports no torch.

Objectives, in this order everywhere: size_bytes (less is better), latency_ms (less is better),
accuracy in percent (more is better).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from autoprune.space.budget import Budget
from autoprune.space.trial import ORIGINAL, Measurement, Trial, finished

SAME_SIZE = 1.01
"""A model up to this much larger than another counts as being of its size, and so with milliseconds."""


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


def best(trials: Iterable[Trial], budget: Budget, *, answers: int) -> Trial | None:
    """The trial to ship: a member of the front within the budget that gains most for the same accuracy.

    Accuracy on `answers` validation answers is noisy, so the highest of many is partly luck. All members
    within one standard error of the highest count as equally accurate (the one-standard-error rule:
    Breiman et al., Classification and Regression Trees, 1984, section 3.4.3). Of those the trial wins
    that costs least of what the budget does not limit: milliseconds where bytes are limited, bytes
    where milliseconds are, and the product of both where neither is. Where both are limited, or
    costs are the same within `SAME_SIZE`, the least divergence from the teacher wins.

    A trial is not offered where a uniform baseline of its size (where milliseconds alone are limited, of
    its time) is more accurate. The original is never offered; models that it dominates are offered only
    where there is no other.
    """
    done = list(trials)
    compressed = [trial for trial in done if trial.name != ORIGINAL]
    offered = _offered(front(done), compressed, budget) or _offered(front(compressed), compressed, budget)
    if not offered:
        return None
    top = max(m.accuracy for _, m in offered) / 100.0
    error = 100.0 * math.sqrt(max(top * (1.0 - top), 0.0) / max(answers, 1))
    near = [(trial, m) for trial, m in offered if m.accuracy >= 100.0 * top - error]
    least = min(_unlimited_cost(m, budget) for _, m in near)
    near = [(trial, m) for trial, m in near if _unlimited_cost(m, budget) <= SAME_SIZE * least]
    return min(near, key=lambda pair: (_rank(pair[1].kl), pair[1].size_bytes, pair[0].number))[0]


def _offered(
    members: Iterable[Trial], compressed: Iterable[Trial], budget: Budget
) -> list[tuple[Trial, Measurement]]:
    """The members of a front that may be shipped under a budget, with their measurements."""
    uniform = [m for trial, m in finished(within(compressed, budget)) if trial.is_baseline]
    return [
        (trial, m)
        for trial, m in finished(within(members, budget))
        if trial.name != ORIGINAL
        and (trial.is_baseline or not any(_beats(other, m, budget) for other in uniform))
    ]


def _beats(uniform: Measurement, searched: Measurement, budget: Budget) -> bool:
    """Whether a uniform model that costs no more of what is limited is more accurate."""
    costs = [m.latency_ms if budget.limits_latency_alone else m.size_bytes for m in (uniform, searched)]
    return costs[0] <= SAME_SIZE * costs[1] and uniform.accuracy > searched.accuracy


def _unlimited_cost(m: Measurement, budget: Budget) -> float:
    """What a model costs of what the budget does not limit: bytes, milliseconds, or their product."""
    size = float(m.size_bytes) if budget.size_bytes is None else 1.0
    return size * (m.latency_ms if budget.latency_ms is None else 1.0)


def _rank(kl: float) -> float:
    return math.inf if math.isnan(kl) else kl


def knee(members: Sequence[Trial]) -> Trial | None:
    """The member farthest above the line between the front's smallest and most accurate.

    Size is taken as its logarithm, since halving is one step wherever it happens (Satopaa et al.,
    Finding a "Kneedle" in a Haystack, 2011, with log x).
    """
    done = finished(members)
    if not done:
        return None
    xs = [math.log(m.size_bytes) for _, m in done]
    ys = [m.accuracy for _, m in done]
    width, height = (max(xs) - min(xs)) or 1.0, (max(ys) - min(ys)) or 1.0
    lift = [(y - min(ys)) / height - (x - min(xs)) / width for x, y in zip(xs, ys, strict=True)]
    return done[max(range(len(done)), key=lambda k: (lift[k], -xs[k]))][0]


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
