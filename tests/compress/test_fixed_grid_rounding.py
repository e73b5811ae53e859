"""Scales and codes of weights on fixed grids: NF4, MXFP4 and symmetric integers."""

from __future__ import annotations

import itertools

import hypothesis
import hypothesis.strategies as some
import pytest
import torch
from torch import Tensor

from autoprune.compress.fixed_grid_rounding import choose_scale
from autoprune.compress.fixed_grids import FixedGridWeight, scale_values, table_of
from autoprune.compress.gptq import ROWS_AT_ONCE, damped_moment
from autoprune.compress.stored import StoredWeight
from autoprune.compress.ways import stored_in_each
from autoprune.space.fixed_grid_storages import (
    FixedGrid,
    SymmetricIntegers,
)
from tests.support.drawn import random_moment, random_weight
from tests.support.fixed_grids import KINDS, MXFP4, WAY, each

FOUR = SymmetricIntegers(4)
quick = hypothesis.settings(deadline=None, max_examples=40)


def error(stored: StoredWeight | None, weight: Tensor, moment: Tensor) -> float:
    assert stored is not None
    off = (stored.dequantize() - weight).double()
    return float((off @ damped_moment(moment) * off).sum())


def nearest(weight: Tensor, kind: FixedGrid, group_size: int = 16) -> FixedGridWeight:
    stored = WAY.nearest(weight, kind, group_size=group_size)
    assert isinstance(stored, FixedGridWeight)
    return stored


# ---- scales -------------------------------------------------------------------------------------


@quick
@hypothesis.given(exponent=some.integers(0, 254))
def test_a_byte_is_the_power_of_two_that_the_standard_says(exponent: int) -> None:
    byte = torch.tensor([exponent], dtype=torch.uint8)
    assert float(scale_values(byte)) == 2.0 ** (exponent - 127)


@each
def test_a_scale_leaves_no_more_error_than_the_published_one(kind: FixedGrid) -> None:
    """That of the largest weight: over the largest value, or the standard's power of two."""
    group = random_weight(200, 32)
    largest = group.abs().amax(1)
    if kind == MXFP4:
        published = torch.exp2(largest.log2().floor() - 2)
    else:
        published = (largest / max(abs(value) for value in kind.values)).half().float()

    def squared(scale: Tensor) -> Tensor:
        off = (group[..., None] - table_of(kind) * scale[:, None, None]).abs().amin(-1)
        return off.square().sum(1)

    chosen = choose_scale(group, torch.ones(32), kind)
    if not kind.is_integer:
        assert (squared(chosen) <= squared(published) * (1 + 1e-5)).all()
    assert squared(chosen).sum() < squared(published).sum()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_longer_end_of_symmetric_integers_is_the_larger_weight_s(bits: int) -> None:
    kind = SymmetricIntegers(bits)
    weight = torch.tensor([[1.0, -0.4, 0.2, 0.0, 0.1, 0.1, 0.0, 0.0]])
    for sign in (1, -1):
        stored = nearest(sign * weight, kind, 8)
        assert float(stored.scale.sign()) == -sign
        assert torch.equal(stored.dequantize(), sign * nearest(weight, kind, 8).dequantize())


@each
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 3e4])
def test_weights_of_any_size_are_stored(kind: FixedGrid, size: float) -> None:
    weight = random_weight(4, 32) * size
    value = nearest(weight, kind).dequantize()
    assert torch.isfinite(value).all()
    if size > 1e-6 or kind == MXFP4:  # the smallest half float that is a scale is 6e-5
        assert (value - weight).abs().max() < 0.6 * weight.abs().max()


# ---- codes --------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("columns", [32, 48, 50, 1])
def test_a_weight_is_the_value_of_its_code_times_the_scale_of_its_group(
    kind: FixedGrid, columns: int
) -> None:
    stored = nearest(random_weight(5, columns), kind)
    assert (stored.storage, stored.shape) == (kind, (5, columns))
    codes, value, scale = stored.tensors()["codes"], stored.dequantize(), scale_values(stored.scale)
    of_code = dict(zip(kind.codes, kind.values, strict=True))
    for o, i in itertools.product(range(5), range(columns)):
        told = of_code[int(codes[o, i])] * float(scale[o, i // stored.size])
        assert float(value[o, i]) == pytest.approx(told, rel=1e-6)


@each
@quick
@hypothesis.given(seed=some.integers(0, 10**6), columns=some.integers(1, 70))
def test_no_value_of_the_grid_is_nearer(kind: FixedGrid, seed: int, columns: int) -> None:
    weight = random_weight(3, columns, seed)
    stored = nearest(weight, kind)
    scale = scale_values(stored.scale).repeat_interleave(stored.size, 1)[:, :columns]
    grid = torch.tensor(kind.values) * scale[..., None]
    least = (grid - weight[..., None]).abs().amin(-1)
    assert torch.allclose((stored.dequantize() - weight).abs(), least, rtol=1e-5, atol=1e-6)


@each
@pytest.mark.parametrize("columns", [32, 50, 96])
def test_compensated_codes_have_less_error_than_nearest_ones(kind: FixedGrid, columns: int) -> None:
    for seed in range(5):
        weight, moment = random_weight(24, columns, seed), random_moment(columns, seed + 1)
        stored = WAY.compensated(weight, moment, [kind], group_size=32)[kind]
        assert error(stored, weight, moment) < error(nearest(weight, kind, 32), weight, moment)


@each
def test_compensation_pays_and_all_are_made_in_one_pass(kind: FixedGrid) -> None:
    weight, moment = random_weight(24, 96), random_moment(96)
    together = stored_in_each(weight, moment, KINDS, group_size=32)[kind]
    alone = stored_in_each(weight, moment, [kind], group_size=32)[kind]
    assert error(alone, weight, moment) < 0.6 * error(nearest(weight, kind, 32), weight, moment)
    assert error(together, weight, moment) == pytest.approx(error(alone, weight, moment), rel=0.05)


def test_each_code_is_the_best_with_all_others_as_they_are() -> None:
    """After the coordinate descent, of the last column, whose turn came last."""
    weight, moment = random_weight(6, 16), random_moment(16)
    for kind in KINDS:
        stored = WAY.compensated(weight, moment, [kind], group_size=16)[kind]
        assert isinstance(stored, FixedGridWeight)
        for place in range(len(kind.values)):
            codes = stored.codes.clone()
            codes[:, -1] = place
            other = FixedGridWeight(codes, stored.scale, kind, stored.size)
            for row in range(6):
                mine, others = (error(one.rows(torch.tensor([row])), weight[[row]], moment)
                                for one in (stored, other))  # fmt: skip
                assert mine <= others * (1 + 1e-4) + 1e-6


def test_rows_are_rounded_apart_from_each_other() -> None:
    weight, moment = random_weight(ROWS_AT_ONCE + 3, 8), random_moment(8)
    whole = stored_in_each(weight, moment, [FOUR], group_size=8)[FOUR]
    last = stored_in_each(weight[-3:], moment, [FOUR], group_size=8)[FOUR]
    assert whole is not None
    assert last is not None
    assert torch.equal(whole.dequantize()[-3:], last.dequantize())


@each
def test_columns_that_a_block_lacks_change_nothing(kind: FixedGrid) -> None:
    """A row of 40 is a block of 32 and one of 8 where blocks are of 32."""
    weight, moment = random_weight(6, 40), torch.eye(40)
    stored = WAY.compensated(weight, moment, [kind], group_size=32)[kind]
    assert stored is not None
    assert torch.equal(stored.dequantize(), nearest(weight, kind, 32).dequantize())


@each
def test_another_weight_is_stored_likewise(kind: FixedGrid) -> None:
    weight, moment = random_weight(8, 48), random_moment(48)
    stored = nearest(weight, kind)
    other = WAY.again(stored, weight * 1.1, moment)
    assert isinstance(other, FixedGridWeight)
    assert (other.storage, other.shape, other.size) == (kind, stored.shape, stored.size)
    assert error(other, weight * 1.1, moment) < error(stored, weight * 1.1, moment)


@each
def test_a_matrix_of_few_or_equal_numbers_is_stored(kind: FixedGrid) -> None:
    for weight in (torch.zeros(3, 9), torch.ones(2, 3), random_weight(3, 2)):
        stored = WAY.compensated(weight, torch.eye(weight.shape[1]), [kind], group_size=8)[kind]
        assert stored is not None
        assert torch.isfinite(stored.dequantize()).all()
        assert (stored.dequantize() - weight).abs().max() <= 0.5 * weight.abs().max()
