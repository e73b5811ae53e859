"""Weights on fixed grids, NF4, MXFP4 and symmetric integers: the grids, files and training."""

from __future__ import annotations

import itertools
import statistics

import pytest
import torch
from torch import Tensor

from autoprune.compress.codebooks import NEAR
from autoprune.compress.fixed_grids import FixedGridWeight, scale_values, table_of
from autoprune.space.fixed_grid_storages import (
    FixedGrid,
    SymmetricIntegers,
)
from tests.support.drawn import random_moment, random_weight
from tests.support.fixed_grids import KINDS, MXFP4, NF4, WAY, each


def nearest(weight: Tensor, kind: FixedGrid, group_size: int = 16) -> FixedGridWeight:
    stored = WAY.nearest(weight, kind, group_size=group_size)
    assert isinstance(stored, FixedGridWeight)
    return stored


class AsWritten:
    """What a file has of a weight, given back (`stored.Parts`)."""

    def __init__(self, scale: Tensor, codes: Tensor) -> None:
        self.parts = {"scale": scale, "codes": codes}

    def tensor(self, name: str) -> Tensor:
        return self.parts[name]

    def codes(self, name: str, bits: int, shape: tuple[int, ...]) -> Tensor:
        return self.parts[name].reshape(shape)


# ---- the grids ----------------------------------------------------------------------------------


def test_nf4_has_the_quantiles_that_the_paper_derives() -> None:
    """Quantiles of a normal distribution, 8 above zero and 7 below, over the largest (section 3)."""
    inverse, offset = statistics.NormalDist().inv_cdf, (1 - 1 / 30 + 1 - 1 / 32) / 2
    sides = []
    for count in (8, 7):
        step = (offset - 0.5) / count
        sides.append([inverse(offset - k * step) for k in range(count)])
    above, below = sides
    wanted = [*(-value for value in below), 0.0, *reversed(above)]
    wanted = [value / above[0] for value in wanted]
    assert len(NF4.values) == 16
    assert NF4.values == tuple(sorted(NF4.values))
    assert NF4.values == pytest.approx(wanted, abs=1e-6)


def test_mxfp4_has_the_floats_of_a_sign_two_bits_of_exponent_and_one_of_mantissa() -> None:
    def value_of(code: int) -> float:
        sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
        size = mantissa / 2 if exponent == 0 else (1 + mantissa / 2) * 2.0 ** (exponent - 1)
        return -size if sign else size

    assert [value_of(code) for code in MXFP4.codes] == list(MXFP4.values)
    assert {abs(value) for value in MXFP4.values} == {0, 0.5, 1, 1.5, 2, 3, 4, 6}
    assert len(set(MXFP4.codes)) == 15
    assert value_of(8) == 0  # -0, of which zero's other code is written


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_symmetric_integers_are_those_of_twos_complement(bits: int) -> None:
    values = SymmetricIntegers(bits).values
    assert values == tuple(float(value) for value in range(-(2 ** (bits - 1)), 2 ** (bits - 1)))
    assert len(values) == 2**bits


def test_zero_is_on_every_grid_and_codes_fit_their_bits() -> None:
    for kind in KINDS:
        assert 0.0 in kind.values
        assert len(kind.codes) == len(kind.values) == len(set(kind.codes))
        assert all(0 <= code < 2**kind.bits for code in kind.codes)


def test_blocks_of_mxfp4_are_32_whatever_the_unit_s_groups() -> None:
    for group_size, columns in itertools.product((8, 64, 128), (1, 32, 50, 384)):
        stored = nearest(random_weight(3, columns), MXFP4, group_size)
        assert stored.scale.dtype == torch.uint8
        assert stored.scale.shape == (3, -(-columns // 32))
        assert stored.size == 32


# ---- files --------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("columns", [48, 50])
def test_what_is_written_is_read_back(kind: FixedGrid, columns: int) -> None:
    stored = nearest(random_weight(5, columns), kind)
    parts = stored.tensors()
    read = WAY.read(AsWritten(parts["scale"], parts["codes"]), kind, (5, columns))
    assert isinstance(read, FixedGridWeight)
    assert (read.kind, read.size) == (stored.kind, stored.size)
    assert torch.equal(read.codes, stored.codes)
    assert torch.equal(read.dequantize(), stored.dequantize())


@each
def test_any_codes_are_a_weight(kind: FixedGrid) -> None:
    """A file of other making may have all that fit the bits: -0 of MXFP4 too."""
    codes = torch.arange(2**kind.bits, dtype=torch.uint8).repeat(2, 8)[:, :256]
    scale = nearest(torch.ones(2, codes.shape[1]), kind, 32).scale
    value = WAY.read(AsWritten(scale, codes), kind, (2, codes.shape[1])).dequantize()
    assert torch.isfinite(value).all()
    assert len(set(value.flatten().tolist())) == len(kind.values)


@pytest.mark.parametrize(
    "scale",
    [
        torch.full((2, 2), 127.0),
        torch.full((2, 1), 127, dtype=torch.uint8),
        torch.full((4,), 127, dtype=torch.uint8),
        torch.tensor([[127, 255], [127, 127]], dtype=torch.uint8),
    ],
)
def test_what_are_no_powers_of_two_is_refused(scale: Tensor) -> None:
    with pytest.raises(ValueError, match="no powers of two"):
        WAY.read(AsWritten(scale, torch.zeros(2, 64, dtype=torch.uint8)), MXFP4, (2, 64))


# ---- training -----------------------------------------------------------------------------------


@each
def test_training_begins_at_the_library_s_codes_and_near_the_weight(kind: FixedGrid) -> None:
    weight, moment = random_weight(12, 48), random_moment(48)
    stored = WAY.compensated(weight, moment, [kind], group_size=16)[kind]
    assert isinstance(stored, FixedGridWeight)
    near = stored.start(weight)
    again = stored.rounding().stored(near)
    assert isinstance(again, FixedGridWeight)
    assert torch.equal(again.codes, stored.codes)
    assert torch.equal(again.scale, stored.scale)
    assert (near * stored.unit - weight).square().sum() < (stored.dequantize() - weight).square().sum()
    widest = table_of(kind).diff().max() * NEAR / 2 * scale_values(stored.scale).abs().max()
    assert (near * stored.unit - stored.dequantize()).abs().max() <= widest * (1 + 1e-5)


@each
@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_scales_are_trained_and_stay_what_may_be_stored(kind: FixedGrid, factor: float) -> None:
    stored = nearest(random_weight(6, 48), kind)
    rounding, trained = stored.rounding(), stored.start(None)
    optimizer = torch.optim.Adam([*rounding.parameters()], lr=0.05)
    wanted = factor * stored.dequantize()
    errors = []
    for _ in range(20):
        optimizer.zero_grad()
        harm = (rounding(trained) - wanted).square().sum()
        harm.backward()
        optimizer.step()
        errors.append(float(harm.detach()))
    after = rounding.stored(trained)
    assert isinstance(after, FixedGridWeight)
    assert errors[-1] < 0.1 * errors[0]
    assert after.scale.dtype == stored.scale.dtype
    assert torch.equal(scale_values(after.scale).sign(), scale_values(stored.scale).sign())
    grown = (scale_values(after.scale) / scale_values(stored.scale)).log2() * (1 if factor > 1 else -1)
    assert float(grown.min()) > 0.5
    assert torch.equal(after.dequantize(), rounding(trained).detach())


def test_a_power_of_two_that_changes_leaves_the_weight_where_it_is() -> None:
    """The scale that is trained grows past the middle of two powers: weights are on a coarser grid then."""
    stored = nearest(random_weight(6, 32), MXFP4)
    rounding, trained = stored.rounding(), stored.start(None)
    (growth,) = rounding.parameters()
    values = []
    for log_growth in (0.34, 0.36):  # a power of two changes at half of log 2, 0.347
        with torch.no_grad():
            growth.fill_(log_growth)
        values.append(rounding.stored(trained))
    first, second = (value.dequantize() for value in values)
    assert torch.equal(scale_values(values[0].tensors()["scale"]), scale_values(stored.scale))
    assert torch.equal(scale_values(values[1].tensors()["scale"]), 2 * scale_values(stored.scale))
    exact = stored.dequantize() * torch.tensor(0.35).exp()
    for value in (first, second):
        assert (value - exact).square().mean() < 0.1 * exact.square().mean()
