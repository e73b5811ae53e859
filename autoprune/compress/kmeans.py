"""The few values that stand for many numbers at the least squared error: weighted k-means on a line.

On a line clusters are stretches of the sorted numbers, so dynamic programming finds the best ones (Wang and
Song, Ckmeans.1d.dp, The R Journal 3/2, 2011). Of many numbers it joins small stretches, and Lloyd's algorithm
(1982) settles the bounds.

Shapes: c lines at once, n numbers of each, m stretches, k values.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

STRETCHES = 48
"""From which clusters are joined, twice as many as clusters at least; so many numbers or fewer are clustered
exactly."""

ROUNDS = 8
"""Of Lloyd's algorithm, where numbers were joined before."""

LINES_AT_ONCE = 512
"""Lines whose tables, the square of STRETCHES numbers each, are in memory at once."""


def cluster_values(
    numbers: Float[Tensor, "c n"], weights: Float[Tensor, "#c n"], k: int
) -> Float[Tensor, "c k"]:
    """The k values of least weighted squared distance to the numbers, ascending; equal ones where fewer do.

    weights: of the numbers, above zero.
    """
    if len(numbers) > LINES_AT_ONCE:
        each = weights.expand_as(numbers)
        parts = [slice(start, start + LINES_AT_ONCE) for start in range(0, len(numbers), LINES_AT_ONCE)]
        return torch.cat([cluster_values(numbers[part], each[part], k) for part in parts])
    points, order = numbers.double().sort(dim=1)
    heavy = weights.double().expand_as(points).gather(1, order)
    mass, pull = _sums(heavy), _sums(heavy * points)
    edges = _edges(points, max(STRETCHES, 2 * k))
    bounds = _best_bounds(mass.gather(1, edges), pull.gather(1, edges), k)
    bounds = edges.gather(1, bounds)
    values = _means(mass, pull, bounds, points)
    if edges.shape[1] <= points.shape[1]:
        for _ in range(ROUNDS):
            inner = torch.searchsorted(points, (values[:, 1:] + values[:, :-1]) / 2)
            bounds = torch.cat([bounds[:, :1], inner, bounds[:, -1:]], 1)
            values = _means(mass, pull, bounds, points)
    return values.to(numbers.dtype)


def _sums(numbers: Float[Tensor, "c n"]) -> Float[Tensor, "c n+1"]:
    """Sums of the first 0 .. n numbers."""
    return torch.nn.functional.pad(numbers.cumsum(1), (1, 0))


def _edges(points: Float[Tensor, "c n"], m: int) -> Int[Tensor, "c m+1"]:
    """Where m stretches begin and end: half of them hold as many points each, half are as long each."""
    lines, n = points.shape
    if n <= m:
        return torch.arange(n + 1, device=points.device).expand(lines, -1)
    half = m // 2
    shares = torch.linspace(0, 1, half + 1, dtype=points.dtype, device=points.device)
    by_count = (shares * n).round().long().expand(lines, -1)
    span = points[:, :1] + (points[:, -1:] - points[:, :1]) * shares[1:]
    return torch.cat([by_count, torch.searchsorted(points, span)], 1).sort(1).values


def _best_bounds(mass: Float[Tensor, "c m+1"], pull: Float[Tensor, "c m+1"], k: int) -> Int[Tensor, "c k+1"]:
    """Bounds of the k clusters of stretches that leave the least squared error.

    The error is a constant less the sum of (sum of weight times number)^2 / (sum of weights) over clusters.
    """
    m = mass.shape[1]
    weight = mass[:, None, :] - mass[:, :, None]  # [c from to]
    gain = (pull[:, None, :] - pull[:, :, None]).square() / weight.clamp(min=1e-300)
    gain = torch.where(weight > 0, gain, 0.0)
    gain.masked_fill_(torch.ones(m, m, dtype=torch.bool, device=mass.device).tril(-1), -torch.inf)
    best, came = gain[:, 0], []
    for _ in range(k - 1):
        best, last = (best[:, :, None] + gain).max(1)
        came.append(last)
    bounds = [torch.full_like(came[0][:, :1], m - 1) if came else torch.full((len(mass), 1), m - 1)]
    for last in reversed(came):
        bounds.append(last.gather(1, bounds[-1]))
    bounds.append(torch.zeros_like(bounds[0]))
    return torch.cat(bounds[::-1], 1)


def _means(
    mass: Float[Tensor, "c n+1"],
    pull: Float[Tensor, "c n+1"],
    bounds: Int[Tensor, "c k+1"],
    points: Float[Tensor, "c n"],
) -> Float[Tensor, "c k"]:
    """Means between bounds; of an empty stretch the number where it lies."""
    weight = mass.gather(1, bounds).diff(dim=1)
    means = pull.gather(1, bounds).diff(dim=1) / weight.clamp(min=1e-300)
    there = points.gather(1, bounds[:, :-1].clamp(max=points.shape[1] - 1))
    return torch.where(weight > 0, means, there).sort(1).values
