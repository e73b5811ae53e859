"""What every way of storing a weight promises, and the names by which the library keeps one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from autoprune.compress.codebooks import Shared
from autoprune.compress.fixed_grids import FixedGridWeight
from autoprune.compress.integers import NEAR, PRODUCT_REACH, Integers, round_nearest
from autoprune.compress.low_rank import LowRankWeight
from autoprune.compress.low_rank_correction import CorrectedIntegers
from autoprune.compress.sparsity import SparseIntegers
from autoprune.compress.stored import HalfFloats, StoredWeight
from autoprune.compress.ternary import Trits
from autoprune.compress.vectors import SharedVectors
from autoprune.compress.ways import way_of
from autoprune.space.storage import FLOAT16, OPTIONAL, GroupedIntegers, Storage
from tests.support.tiny import Tiny

WEIGHT = torch.randn(40, 32, generator=torch.manual_seed(0))


def nearest_in(storage: Storage) -> StoredWeight:
    stored = way_of(storage).nearest(WEIGHT, storage, group_size=16)
    assert stored is not None
    return stored


WEIGHTS: dict[str, StoredWeight] = {
    "half": HalfFloats(WEIGHT),
    "4 bits": round_nearest(WEIGHT, bits=4, group_size=16),
    "static 8 bits": round_nearest(WEIGHT, bits=8, group_size=32, reach=PRODUCT_REACH),
    **{storage.name: nearest_in(storage) for storage in OPTIONAL},
}
every = pytest.mark.parametrize("stored", WEIGHTS.values(), ids=WEIGHTS)


class TestContract:
    @every
    def test_its_values_are_near_the_weight_and_in_its_shape(self, stored: StoredWeight) -> None:
        assert stored.shape == WEIGHT.shape
        assert stored.dequantize().dtype == torch.float32
        if isinstance(stored, LowRankWeight):
            return  # a random weight is of no small rank
        off = (stored.dequantize() - WEIGHT).abs()
        if stored.storage.bits >= 4 and not isinstance(stored, SparseIntegers):
            assert off.max() < (0.3 if stored.storage not in OPTIONAL else 0.6)
        assert off.square().mean() < 0.25 * WEIGHT.square().mean()

    @every
    def test_rows_are_those_of_the_whole(self, stored: StoredWeight) -> None:
        at = torch.arange(40).flip(0).clamp(max=38)
        assert torch.equal(stored.rows(at).dequantize(), stored.dequantize()[at])

    @every
    def test_two_of_a_kind_are_one_weight_and_of_two_kinds_are_not(self, stored: StoredWeight) -> None:
        both = stored.stacked_on(stored.rows(torch.arange(1, 36)))
        assert both is not None
        assert torch.equal(both.dequantize(), torch.cat([stored.dequantize(), stored.dequantize()[1:36]]))
        other: StoredWeight = HalfFloats(WEIGHT) if isinstance(stored, Integers) else WEIGHTS["4 bits"]
        assert stored.stacked_on(other) is None

    @every
    @pytest.mark.parametrize("shape", [(40, 32), (40, 8, 2, 2)])
    def test_what_is_trained_is_stored_as_it_is_computed(
        self, stored: StoredWeight, shape: tuple[int, ...]
    ) -> None:
        rounding = stored.rounding()
        weight = (WEIGHT * 1.1).reshape(shape).requires_grad_()
        value = rounding(weight)
        value.sum().backward()
        after = rounding.stored(weight)
        assert after.storage == stored.storage
        assert torch.allclose(after.dequantize().reshape(shape), value, atol=1e-6)
        if isinstance(stored, LowRankWeight):
            assert weight.grad is None  # its factors are trained
            return
        assert weight.grad is not None
        # Straight-through: as if the weight, which is in units of its scale, were not rounded.
        one_more: Tensor | float = 1.0
        if isinstance(stored, Integers):
            one_more = stored.scale.float().repeat_interleave(stored.group_size, dim=1)
        elif isinstance(stored, Shared):
            one_more = stored.unit
        elif isinstance(stored, SharedVectors):
            one_more = stored.scale.float()[:, None]
        elif isinstance(stored, Trits):
            one_more = stored.scale.float().repeat_interleave(stored.integers.group_size, dim=1)
        elif isinstance(stored, SparseIntegers):
            one_more = stored.integers.scale.float().repeat_interleave(stored.integers.group_size, dim=1)
            one_more = one_more * stored.mask
        elif isinstance(stored, FixedGridWeight):
            one_more = stored.unit
        elif isinstance(stored, CorrectedIntegers):
            one_more = stored.integers.scale.float().repeat_interleave(stored.integers.group_size, dim=1)
        assert torch.allclose(weight.grad, (torch.ones(40, 32) * one_more).reshape(shape), rtol=1e-5)

    @every
    def test_a_fine_tune_starts_from_what_is_stored(self, stored: StoredWeight) -> None:
        for unrounded in (None, WEIGHT):
            again = stored.rounding().stored(stored.start(unrounded))
            assert torch.equal(again.dequantize(), stored.dequantize())


def test_integers_start_near_the_weight_before_rounding() -> None:
    stored = round_nearest(WEIGHT, bits=4, group_size=16)
    scale = stored.scale.float().repeat_interleave(16, dim=1)
    start = stored.start(WEIGHT) * scale
    off = (start - stored.dequantize()).abs()
    assert (off <= (NEAR + 1e-4) * scale).all()
    assert (start - WEIGHT).abs().mean() < 0.1 * (stored.dequantize() - WEIGHT).abs().mean()


@pytest.mark.parametrize(
    ("bits", "codes"),
    [
        (4, [[0, 9, 15], [4, 8, 12]]),
        (8, [[63, 130, 140], [64, 128, 192]]),
        (8, [[64, 128, 193], [65, 128, 70]]),
    ],
)
def test_integers_beyond_the_reach_of_products_are_not_symmetric_wherever_their_zero_points_are(
    bits: int, codes: list[list[int]]
) -> None:
    middle = torch.full((2, 1), 2 ** (bits - 1), dtype=torch.uint8)
    stored = Integers(
        torch.tensor(codes, dtype=torch.uint8), torch.ones(2, 1, dtype=torch.half), middle, bits
    )
    assert not stored.is_symmetric
    assert torch.equal(stored.rounding().stored(stored.start(None)).dequantize(), stored.dequantize())


def test_more_bits_change_no_value() -> None:
    stored = round_nearest(WEIGHT, bits=3, group_size=16)
    wide = stored.widened(GroupedIntegers(4))
    assert (stored.storage, wide.storage) == (GroupedIntegers(3), GroupedIntegers(4))
    assert torch.equal(wide.dequantize(), stored.dequantize())
    assert HalfFloats(WEIGHT).widened(FLOAT16).storage == FLOAT16


def test_half_floats_copy_nothing_and_the_library_keeps_no_second_weight() -> None:
    assert HalfFloats(WEIGHT).weight is WEIGHT
    assert not HalfFloats(WEIGHT).tensors()


# ---- the library's files --------------------------------------------------------------------------


def names_of(path: Path) -> set[str]:
    with safe_open(path, "pt") as file:
        return set(file.keys())


def test_the_library_names_tensors_as_ever(tiny_bert: Tiny) -> None:
    unit = tiny_bert.unit("feed_forward")
    tiny_bert.library.build(unit, 0.5)
    weights = [weight.path for weight in unit.weights]
    bits = ("2", "3", "4", "6", "8", "w8a8")
    wanted = {"keep", *(f"{path}.weight" for path in weights)}
    wanted |= {f"{path}@{b}.{part}" for path in weights for b in bits for part in ("codes", "scale", "zero")}
    wanted |= {f"{path}@{b}.bias" for path in weights for b in (*bits, "16", "32")}
    wanted |= {f"{path}@w8a8.activations" for path in weights}
    assert names_of(tiny_bert.library.path(unit, 0.5)) == wanted


def test_a_variant_is_stored_as_its_level_says(tiny_bert: Tiny) -> None:
    unit = tiny_bert.unit("feed_forward")
    for level in unit.levels(0.5):
        for variant in tiny_bert.library.variants(unit, level).values():
            stored: Tensor | StoredWeight | None = variant.stored
            kind = {32: type(None), 16: HalfFloats}.get(level.storage.bits, Integers)
            assert isinstance(stored, kind)
            assert (variant.activations is not None) == level.storage.rounds_inputs
