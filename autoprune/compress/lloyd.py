"""Weighted k-means of points: Lloyd's algorithm (Least squares quantization in PCM, 1982).

Shapes: n points, k centroids, d features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

POINTS_AT_ONCE = 2048
"""Whose distances from all centroids are in memory at once."""


@dataclass(frozen=True)
class Clusters:
    """Centroids, the place of each point's among them, and weighted squared distances from it."""

    centroids: Float[Tensor, "k d"]
    places: Int[Tensor, " n"]
    distances: Float[Tensor, " n"]

    @property
    def error(self) -> float:
        """The sum that k-means makes small."""
        return float(self.distances.sum())

    def sizes(self) -> Int[Tensor, " k"]:
        """How many points each centroid has."""
        return torch.bincount(self.places, minlength=len(self.centroids))


def cluster(
    points: Float[Tensor, "n d"],
    weights: Float[Tensor, "n _"],
    start: Float[Tensor, "k d"],
    *,
    rounds: int,
    fixed: int = 0,
) -> Clusters:
    """Clusters of no larger error than those around `start`, after so many rounds or when nothing changes.

    A centroid without points goes to the point that is worst off.

    Args:
        weights: of the points [n 1], or of each of their features [n d], above zero.
        fixed: how many centroids, the first ones, stay where they are.
    """
    held = _nearest(points, weights, start[:fixed]) if fixed else None

    def dealt(centroids: Float[Tensor, "k d"]) -> Clusters:
        """Each point to the nearest centroid; distances from fixed ones are known."""
        if held is None or len(centroids) == fixed:
            return held or _nearest(points, weights, centroids)
        free = _nearest(points, weights, centroids[fixed:])
        stays = held.distances <= free.distances
        places = torch.where(stays, held.places, free.places + fixed)
        return Clusters(centroids, places, torch.where(stays, held.distances, free.distances))

    clusters = dealt(start)
    for _ in range(rounds):
        moved = dealt(_means(points, weights, clusters, fixed))
        if not moved.error < clusters.error:  # rounding alone may move the last bits
            break
        clusters = moved
    return clusters


def spread_out(
    points: Float[Tensor, "n d"], weights: Float[Tensor, "n _"], k: int, draws: torch.Generator
) -> Float[Tensor, "k d"]:
    """Points to begin with, each drawn by its distance from those before (k-means++).

    Source: Arthur and Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007.
    """
    far = weights.expand_as(points).sum(1).double()
    chosen = torch.empty(k, dtype=torch.long)
    for j in range(k):
        chances = far if float(far.sum()) > 0 else torch.ones_like(far)
        chosen[j] = torch.multinomial(chances, 1, generator=draws)
        off = (weights * (points - points[chosen[j]]).square()).sum(1).double()
        far = off if j == 0 else torch.minimum(far, off)
    return points[chosen]


def _nearest(
    points: Float[Tensor, "n d"], weights: Float[Tensor, "n _"], centroids: Float[Tensor, "k d"]
) -> Clusters:
    """Each point with the nearest of some centroids."""
    places = torch.empty(len(points), dtype=torch.long, device=points.device)
    squares = centroids.square()
    for first in range(0, len(points), POINTS_AT_ONCE):
        part = slice(first, first + POINTS_AT_ONCE)
        if weights.shape[1] == 1:  # the same for all centroids
            places[part] = torch.addmm(squares.sum(1), points[part], centroids.T, alpha=-2.0).argmin(1)
        else:
            heavy = weights[part]
            places[part] = torch.addmm(
                heavy @ squares.T, heavy * points[part], centroids.T, alpha=-2.0
            ).argmin(1)
    off = (points - centroids[places]).square()  # again: a difference of large squares has few digits
    return Clusters(centroids, places, (weights * off).sum(1, dtype=torch.float64))


def _means(
    points: Float[Tensor, "n d"], weights: Float[Tensor, "n _"], clusters: Clusters, fixed: int
) -> Float[Tensor, "k d"]:
    """The centroids that are best for the points as they are dealt out."""
    heavy = weights.double()
    count = len(clusters.centroids)
    mass = torch.zeros(count, heavy.shape[1], dtype=torch.float64, device=points.device)
    mass.index_add_(0, clusters.places, heavy)
    pull = torch.zeros_like(clusters.centroids, dtype=torch.float64)
    pull.index_add_(0, clusters.places, points.double() * heavy)
    means = (pull / mass.clamp(min=1e-300)).to(points.dtype)
    free = torch.arange(count, device=points.device) >= fixed
    sizes = clusters.sizes()
    moved = torch.where((free & (sizes > 0))[:, None], means, clusters.centroids)
    empty = (free & (sizes == 0)).nonzero()[:, 0]
    worst = clusters.distances.topk(min(len(empty), len(points))).indices
    moved[empty[: len(worst)]] = points[worst]
    return moved
