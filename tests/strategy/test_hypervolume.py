"""Hypervolume: areas by counting cells, what a point adds, and scales."""

from __future__ import annotations

import itertools

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as some
import numpy as np
import pytest
from numpy.typing import NDArray

from autoprune.strategy.hypervolume import (
    KL_CEILING,
    KL_FLOOR,
    ByteRange,
    added_area,
    area,
    covers,
    kl_area,
    kl_scale,
)

Array = NDArray[np.float64]

quick = hypothesis.settings(deadline=None, max_examples=60)

CELLS = 12


def points(most: int) -> some.SearchStrategy[Array]:
    """Points on a lattice of the unit square, so that ties and edges are common."""
    shape = some.tuples(some.integers(0, most), some.just(2))
    return arrays.arrays(np.int64, shape, elements=some.integers(0, CELLS)).map(lambda x: x / CELLS)


def counted(known: Array) -> float:
    """Share of the cells of the lattice that some point dominates."""
    low = np.stack(np.meshgrid(np.arange(CELLS), np.arange(CELLS)), -1).reshape(-1, 2) / CELLS + 0.5 / CELLS
    return float(covers(known, low).any(0).mean()) if len(known) else 0.0


@quick
@hypothesis.given(points(9))
def test_area_is_the_share_of_cells_dominated(known: Array) -> None:
    assert area(known) == pytest.approx(counted(known), abs=1e-12)


@quick
@hypothesis.given(points(5), points(9))
def test_what_a_point_adds_is_the_area_with_it_less_that_without(new: Array, known: Array) -> None:
    found = added_area(new, known)
    assert found.shape == (len(new),)
    for point, gain in zip(new, found, strict=True):
        more = area(np.concatenate([known, point[None]])) - area(known)
        assert gain == pytest.approx(more, abs=1e-12)


@quick
@hypothesis.given(points(9), some.integers(0, 99))
def test_area_knows_no_order_and_no_point_lowers_it(known: Array, seed: int) -> None:
    mixed = np.random.default_rng(seed).permutation(known)
    assert area(mixed) == pytest.approx(area(known), abs=1e-12)
    values = [area(known[:k]) for k in range(len(known) + 1)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))


@quick
@hypothesis.given(some.lists(some.floats(0, 10), min_size=2, max_size=9))
def test_the_scale_of_divergence_grows_and_stays_in_the_unit_interval(kl: list[float]) -> None:
    scaled = kl_scale(np.sort(kl))
    assert (np.diff(scaled) >= 0).all()
    assert (scaled >= 0).all()
    assert (scaled <= 1).all()
    inside = np.linspace(KL_FLOOR, KL_CEILING, 9)
    assert (np.diff(kl_scale(inside)) > 0).all()


def test_kl_area_is_in_shares_of_the_box() -> None:
    size, kl = np.array([100.0, 150.0]), np.array([(KL_FLOOR * KL_CEILING) ** 0.5, KL_FLOOR])
    assert kl_area(size, kl, ByteRange(100, 200)) == pytest.approx(0.5 * 0.5 + 0.5)
    assert kl_area(size + 100, kl, ByteRange(100, 200)) == 0.0  # at or beyond the largest that counts
    assert kl_area(size[:0], kl[:0], ByteRange(100, 200)) == 0.0


def test_covers_is_domination_with_equality() -> None:
    lattice = np.array([[0.5, 0.5, 0.5], [0.5, 0.4, 0.9]])
    assert covers(np.full((1, 3), 0.5), lattice).tolist() == [[True, False]]
