"""Weighted k-means of points: never a larger error, and the best there is on tiny sets."""

from __future__ import annotations

import itertools

import hypothesis
import hypothesis.strategies as some
import torch
from torch import Tensor

from autoprune.compress.lloyd import cluster, spread_out

quick = hypothesis.settings(deadline=None, max_examples=40)


def random_points(seed: int, n: int, d: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=draws), torch.rand(n, d, generator=draws) + 0.1


def error_of(points: Tensor, weights: Tensor, centroids: Tensor) -> float:
    off = (points[:, None] - centroids[None]).square() * weights[:, None]
    return float(off.sum(2).amin(1).double().sum())


def best_error(points: Tensor, weights: Tensor, k: int) -> float:
    """By trying every way to deal points out."""
    least = torch.inf
    for places in itertools.product(range(k), repeat=len(points)):
        centroids = [
            (points[at] * weights[at]).sum(0) / weights[at].sum(0)
            for j in range(k)
            if (at := [p for p in range(len(points)) if places[p] == j])
        ]
        least = min(least, error_of(points, weights, torch.stack(centroids)))
    return least


@quick
@hypothesis.given(some.integers(0, 1000), some.integers(1, 30), some.integers(1, 9), some.booleans())
def test_the_error_never_grows_with_rounds(seed: int, n: int, k: int, one_weight: bool) -> None:
    points, weights = random_points(seed, n, 3)
    weights = weights[:, :1] if one_weight else weights
    start = torch.randn(k, 3, generator=torch.Generator().manual_seed(seed + 1))
    errors = []
    for rounds in range(6):
        clusters = cluster(points, weights, start, rounds=rounds)
        errors.append(clusters.error)
        told = error_of(points, weights.expand_as(points), clusters.centroids)
        assert abs(told - clusters.error) <= 1e-4 * max(told, 1e-6)
    assert errors == sorted(errors, reverse=True)


def test_the_best_of_a_few_starts_is_the_best_of_all() -> None:
    for seed in range(3):
        points, weights = random_points(seed, 7, 2)
        draws = torch.Generator().manual_seed(seed)
        found = min(
            cluster(points, weights, spread_out(points, weights, 3, draws), rounds=20).error
            for _ in range(10)
        )
        assert abs(found - best_error(points, weights, 3)) < 1e-5


def test_fixed_centroids_stay_and_as_many_as_points_leave_no_error() -> None:
    points, weights = random_points(5, 20, 4)
    clusters = cluster(points, weights, points[[3, 3, 3, 7]] + 0.1, rounds=8, fixed=2)
    assert torch.equal(clusters.centroids[:2], points[[3, 3]] + 0.1)
    assert clusters.sizes().sum() == 20
    assert cluster(points, weights, torch.zeros(20, 4), rounds=8).error < 1e-9


def test_points_all_alike_are_spread_and_clustered() -> None:
    points, weights = torch.ones(6, 2), torch.ones(6, 1)
    start = spread_out(points, weights, 4, torch.Generator().manual_seed(0))
    assert torch.equal(cluster(points, weights, start, rounds=3).centroids[:1], points[:1])
