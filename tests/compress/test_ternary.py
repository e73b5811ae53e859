"""Weights of three values: the packing of five to a byte, the values, and the scale."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
import torch

from autoprune.compress.gptq import round_compensated
from autoprune.compress.packing import pack_trits, unpack_trits
from autoprune.compress.ternary import TernaryWay, Trits
from autoprune.space.named_storages import Ternary

WEIGHT = torch.randn(16, 128, generator=torch.manual_seed(0))


@hypothesis.given(some.lists(some.integers(0, 2), max_size=40))
def test_any_trits_come_back_from_bytes(trits: list[int]) -> None:
    codes = np.array(trits, np.uint8)
    packed = pack_trits(codes)
    assert len(packed) == -(-len(codes) // 5)
    assert np.array_equal(unpack_trits(packed, len(codes)), codes)


@pytest.mark.parametrize("packed", [[243], [255], [1, 1, 1], []])
def test_what_are_no_trits_is_refused(packed: list[int]) -> None:
    with pytest.raises(ValueError, match="five"):
        unpack_trits(np.array(packed, np.uint8), 5)


def test_values_are_minus_one_zero_and_one_times_the_scale() -> None:
    stored = TernaryWay().nearest(WEIGHT, Ternary(), group_size=32)
    assert isinstance(stored, Trits)
    value = (stored.codes.float() - 1) * stored.scale.float().repeat_interleave(32, 1)
    assert torch.equal(stored.dequantize(), value)
    assert set(stored.codes.unique().tolist()) == {0, 1, 2}


def test_the_scale_is_nearly_the_best_there_is() -> None:
    """Of normal numbers the best three values leave 0.19 of the variance (Max, 1960, table I)."""
    stored = TernaryWay().nearest(
        torch.randn(64, 64, generator=torch.manual_seed(1)), Ternary(), group_size=64
    )
    off = stored.dequantize() - torch.randn(64, 64, generator=torch.manual_seed(1))
    assert off.square().mean() < 0.2


def test_compensated_codes_are_of_less_error_than_nearest_and_more_than_two_bits() -> None:
    x = torch.randn(512, 128, generator=torch.manual_seed(2)) @ torch.randn(128, 128)
    moment = x.T @ x / len(x)

    def error(value: torch.Tensor) -> float:
        off = value - WEIGHT
        return float((off @ moment * off).sum())

    way = TernaryWay()
    stored = way.compensated(WEIGHT, moment, [Ternary()], group_size=64)[Ternary()]
    assert stored is not None
    [integers] = round_compensated(WEIGHT, moment, bits=[2], group_size=64)
    nearest = way.nearest(WEIGHT, Ternary(), group_size=64)
    assert error(integers.dequantize()) < error(stored.dequantize()) < 0.5 * error(nearest.dequantize())
    again = way.again(stored, WEIGHT, moment)
    assert again is not None
    assert torch.equal(again.dequantize(), stored.dequantize())
