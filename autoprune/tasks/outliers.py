"""Rows that are far from all others in a model's embedding. No torch.

A row is as far off as its tenth nearest neighbour (Ramaswamy, Rastogi and Shim, Efficient algorithms for
mining outliers from large data sets, 2000), by the angle between the vectors. An outlier has a modified
z-score above 3.5 (Iglewicz and Hoaglin, How to detect and handle outliers, 1993): by medians, which the
outliers themselves do not move.

Shapes: n rows, r reference rows, f features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEIGHBOUR = 10
"""Which neighbour's distance counts: so many copies of an odd row do not hide it."""

LEAST_SCORE = 3.5
"""Modified z-score from which a row is an outlier."""

MOST_REFERENCES = 20_000
"""Rows that neighbours are sought among at most, drawn by the seed: all pairs take quadratic time."""

_ROWS = 512
"""Rows whose distances are worked out at a time."""


def neighbour_distances(vectors: NDArray[np.float32], *, seed: int = 0) -> NDArray[np.float64]:
    """How far the tenth nearest other row is [n]: 1 minus the cosine, of vectors [n f] about their mean.

    Of fewer rows the farthest counts; 0 of a row alone.
    """
    count = len(vectors)
    if count < 2:
        return np.zeros(count)
    centred = vectors - vectors.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    drawn = np.sort(np.random.default_rng(seed).permutation(count)[:MOST_REFERENCES])
    place = np.full(count, -1)
    place[drawn] = np.arange(len(drawn))
    neighbour = min(NEIGHBOUR, len(drawn) - 1)
    out = np.empty(count)
    for start in range(0, count, _ROWS):
        rows = np.arange(start, min(start + _ROWS, count))
        distances = 1.0 - unit[rows] @ unit[drawn].T
        own = np.flatnonzero(place[rows] >= 0)
        distances[own, place[rows][own]] = np.inf
        out[rows] = np.partition(distances, neighbour - 1, axis=1)[:, neighbour - 1]
    return out


def outliers(distances: NDArray[np.float64]) -> list[tuple[int, float]]:
    """The rows that are too far off, by distances [n], and their scores; the farthest first.

    >>> outliers(np.array([0.1, 0.11, 0.09, 0.1, 0.12, 0.9]))[0][0]
    5
    """
    middle = np.median(distances)
    spread = float(np.median(np.abs(distances - middle)))
    if spread <= 0:
        return []
    scores = 0.6745 * (distances - middle) / spread
    far = np.flatnonzero(scores > LEAST_SCORE)
    return [(int(k), float(scores[k])) for k in far[np.argsort(-scores[far], kind="stable")]]
