"""Weights written given others: they come back bit for bit, and take few bits where they are alike."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest

from autoprune.compress.given_reference import (
    IntegerArrays,
    WrittenWeight,
    read_given,
    rows_like,
    write_given,
)


def rounded(weight: np.ndarray, bits: int, groups: int) -> IntegerArrays:
    """A weight rounded to the nearest code, a scale and a zero point a group."""
    o, i = weight.shape
    grouped = weight.reshape(o, groups, -1)
    low, high = np.minimum(grouped.min(2), 0), np.maximum(grouped.max(2), 0)
    scale = np.maximum((high - low) / (2**bits - 1), 1e-4).astype(np.float16)
    zero = np.clip(np.rint(-low / scale.astype(np.float32)), 0, 2**bits - 1).astype(np.uint8)
    codes = np.rint(grouped / scale[..., None].astype(np.float32)) + zero[..., None]
    return IntegerArrays(codes.clip(0, 2**bits - 1).astype(np.uint8).reshape(o, i), scale, zero, bits)


def numbers(seed: int, o: int, i: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(o, i)).astype(np.float32)


def same(one: IntegerArrays, other: IntegerArrays) -> bool:
    pairs = [(one.codes, other.codes), (one.scale, other.scale), (one.zero, other.zero)]
    return one.bits == other.bits and all(np.array_equal(a, b) for a, b in pairs)


@hypothesis.given(
    seed=some.integers(0, 1000),
    rows=some.integers(1, 40),
    width=some.sampled_from([4, 16]),
    groups=some.integers(1, 4),
    bits=some.sampled_from([2, 3, 4, 6, 8]),
    finer=some.sampled_from([None, 2, 4, 8]),
)
@hypothesis.settings(deadline=None)
def test_a_weight_comes_back_bit_for_bit(
    seed: int, rows: int, width: int, groups: int, bits: int, finer: int | None
) -> None:
    exact = numbers(seed, rows, groups * width)
    weight = rounded(exact, bits, groups)
    like = None if finer is None else rounded(exact, finer, 1).dequantize()
    streams = write_given(weight, like)
    (found,) = read_given([WrittenWeight(streams, like, exact.shape, groups, bits)])
    assert same(found, weight)


def test_a_rounding_is_nearly_known_from_a_finer_one() -> None:
    exact = numbers(0, 256, 256)
    weight, finer = rounded(exact, 4, 4), rounded(exact, 8, 4).dequantize()
    alone, given = write_given(weight, None).size, write_given(weight, finer).size
    assert alone < 1.05 * 256 * 256 * 4 / 8
    assert given < 0.3 * alone


def test_what_is_not_like_it_costs_little_more_than_nothing_known() -> None:
    weight = rounded(numbers(0, 128, 128), 4, 2)
    other = numbers(1, 128, 128)
    assert write_given(weight, other).size < 1.3 * write_given(weight, None).size


def test_rows_are_found_again_after_rounding_and_removal() -> None:
    exact = numbers(0, 64, 48)
    kept = np.sort(np.random.default_rng(2).choice(64, 20, replace=False))
    found = rows_like(rounded(exact[kept], 3, 1).dequantize(), rounded(exact, 8, 1).dequantize())
    assert found is not None
    assert found.tolist() == kept.tolist()


@pytest.mark.parametrize(("groups", "bits"), [(3, 4), (0, 4), (2, 9), (2, 0)])
def test_shapes_that_no_weight_has_are_refused(groups: int, bits: int) -> None:
    streams = write_given(rounded(numbers(0, 8, 8), 4, 2), None)
    with pytest.raises(ValueError, match="no integers have"):
        read_given([WrittenWeight(streams, None, (8, 8), groups, bits)])
