"""Rows far from all others, planted, and the distance against all pairs."""

from __future__ import annotations

import numpy as np

from autoprune.tasks.outliers import NEIGHBOUR, neighbour_distances, outliers


def test_the_distance_is_that_of_the_tenth_nearest_of_all_pairs() -> None:
    vectors = np.random.default_rng(0).normal(size=(700, 8)).astype(np.float32)
    centred = vectors - vectors.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    every = 1 - unit @ unit.T
    np.fill_diagonal(every, np.inf)
    assert np.allclose(neighbour_distances(vectors), np.sort(every, axis=1)[:, NEIGHBOUR - 1], atol=1e-5)


def test_planted_rows_are_the_outliers() -> None:
    """Five of 505 rows point where no other does. Recall is 1, and 1 % of the others at most are told."""
    rng = np.random.default_rng(1)
    directions = np.eye(32)[:4]
    usual = directions[rng.integers(0, 4, 500)] + 0.05 * rng.normal(size=(500, 32))
    odd = np.eye(32)[10:15]
    far = outliers(neighbour_distances(np.vstack([usual, odd]).astype(np.float32)))
    rows = [row for row, _ in far]
    assert set(rows[:5]) == set(range(500, 505))
    assert len(rows) <= 10


def test_few_rows_and_equal_rows_have_no_outlier() -> None:
    assert outliers(neighbour_distances(np.ones((1, 3), np.float32))) == []
    assert outliers(neighbour_distances(np.ones((40, 3), np.float32))) == []
    assert len(neighbour_distances(np.eye(3, dtype=np.float32))) == 3
