"""The ways of storing a weight: how each is made of a float weight, and read again.

Shapes: o output features (rows), i input features (columns) of a weight as a matrix [o i].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from autoprune.compress.fixed_grid_rounding import FixedGridWay
from autoprune.compress.gptq import round_compensated
from autoprune.compress.integers import PRODUCT_REACH, Integers, read_integers, round_nearest
from autoprune.compress.low_rank import LowRankWay
from autoprune.compress.low_rank_correction import CorrectedWay
from autoprune.compress.sparsity import SparseWay
from autoprune.compress.stored import HalfFloats, Parts, StoredWeight
from autoprune.compress.ternary import TernaryWay
from autoprune.compress.vector_rounding import VectorWay
from autoprune.compress.weight_sharing import CodebookWay
from autoprune.space.fixed_grid_storages import MicroscalingFloats, NormalFloats, SymmetricIntegers
from autoprune.space.low_rank_storages import Corrected, LowRank
from autoprune.space.named_storages import Codebook, Sparse, Ternary, Vectors
from autoprune.space.storage import (
    FLOAT32,
    Floats,
    GroupedIntegers,
    StaticIntegers,
    Storage,
)


class Way(Protocol):
    """How weights get into storages of a kind. None stands for the float weight itself."""

    def compensated(
        self,
        weight: Float[Tensor, "o i"],
        moment: Float[Tensor, "i i"],
        storages: Sequence[Storage],
        *,
        group_size: int,
    ) -> dict[Storage, StoredWeight | None]:
        """A weight in each of several storages, of little error under its input's second moment.

        group_size: weights of a row that should share a scale.
        """

    def nearest(
        self, weight: Float[Tensor, "o i"], storage: Storage, *, group_size: int
    ) -> StoredWeight | None:
        """A weight of which each number is rounded by itself."""

    def again(
        self, stored: StoredWeight, weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"]
    ) -> StoredWeight | None:
        """Another weight in the storage and groups of one, its error compensated."""

    def read(self, parts: Parts, storage: Storage, shape: tuple[int, int]) -> StoredWeight | None:
        """A weight from its tensors; `ValueError` or `KeyError` where they are not such."""


class FloatWay:
    """Floats, which need no rounding."""

    def compensated(
        self,
        weight: Float[Tensor, "o i"],
        moment: Float[Tensor, "i i"],
        storages: Sequence[Storage],
        *,
        group_size: int,
    ) -> dict[Storage, StoredWeight | None]:
        return {storage: as_floats(weight, storage) for storage in storages}

    def nearest(
        self, weight: Float[Tensor, "o i"], storage: Storage, *, group_size: int
    ) -> StoredWeight | None:
        return as_floats(weight, storage)

    def again(
        self, stored: StoredWeight, weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"]
    ) -> StoredWeight | None:
        return HalfFloats(weight)

    def read(self, parts: Parts, storage: Storage, shape: tuple[int, int]) -> StoredWeight | None:
        return as_floats(parts.tensor(""), storage)


class IntegerWay:
    """Integers in groups, several widths of one size in one pass; of w8a8 symmetric ones with a scale a row.

    What is multiplied as integers has one scale a row, which leaves the sum, no zero point, and codes whose
    products can be added in 16 bits (`PRODUCT_REACH`).
    """

    def compensated(
        self,
        weight: Float[Tensor, "o i"],
        moment: Float[Tensor, "i i"],
        storages: Sequence[Storage],
        *,
        group_size: int,
    ) -> dict[Storage, StoredWeight | None]:
        passes: dict[tuple[int, int | None], list[Storage]] = {}
        for storage in storages:
            size = _columns_of_scale(storage, weight, group_size)
            passes.setdefault((size, _reach_of(storage)), []).append(storage)
        out: dict[Storage, StoredWeight | None] = {}
        for (size, reach), alike in passes.items():
            bits = [storage.bits for storage in alike]
            rounded = round_compensated(weight, moment, bits=bits, group_size=size, reach=reach)
            out |= zip(alike, rounded, strict=True)
        return out

    def nearest(
        self, weight: Float[Tensor, "o i"], storage: Storage, *, group_size: int
    ) -> StoredWeight | None:
        size = _columns_of_scale(storage, weight, group_size)
        return round_nearest(weight, bits=storage.bits, group_size=size, reach=_reach_of(storage))

    def again(
        self, stored: StoredWeight, weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"]
    ) -> StoredWeight | None:
        assert isinstance(stored, Integers)
        [rounded] = round_compensated(
            weight,
            moment,
            bits=[stored.bits],
            group_size=stored.group_size,
            reach=PRODUCT_REACH if stored.is_symmetric else None,
        )
        return rounded

    def read(self, parts: Parts, storage: Storage, shape: tuple[int, int]) -> StoredWeight | None:
        return read_integers(parts, storage.bits, shape)


def _reach_of(storage: Storage) -> int | None:
    """How far codes lie from the middle, where they are multiplied as integers."""
    return PRODUCT_REACH if storage.rounds_inputs else None


def _columns_of_scale(storage: Storage, weight: Float[Tensor, "o i"], group_size: int) -> int:
    """How many weights of a row share a scale."""
    columns = weight.shape[1]
    if isinstance(storage, GroupedIntegers):
        return storage.columns_of_scale(columns, group_size)
    return columns


_INTEGERS, _FIXED_GRIDS = IntegerWay(), FixedGridWay()

_WAYS: dict[type[Storage], Way] = {
    Floats: FloatWay(),
    GroupedIntegers: _INTEGERS,
    StaticIntegers: _INTEGERS,
    Codebook: CodebookWay(),
    Vectors: VectorWay(),
    Ternary: TernaryWay(),
    Sparse: SparseWay(),
    LowRank: LowRankWay(),
    Corrected: CorrectedWay(),
    NormalFloats: _FIXED_GRIDS,
    MicroscalingFloats: _FIXED_GRIDS,
    SymmetricIntegers: _FIXED_GRIDS,
}


def way_of(storage: Storage) -> Way:
    """The way of a storage."""
    return _WAYS[type(storage)]


def stored_in_each(
    weight: Float[Tensor, "o i"],
    moment: Float[Tensor, "i i"],
    storages: Sequence[Storage],
    *,
    group_size: int,
) -> dict[Storage, StoredWeight | None]:
    """A weight in several storages, in their order, its error compensated; None for the float weight."""
    by_way: dict[Way, list[Storage]] = {}
    for storage in reversed(storages):
        by_way.setdefault(way_of(storage), []).append(storage)
    rounded: dict[Storage, StoredWeight | None] = {}
    for way, own in by_way.items():
        rounded |= way.compensated(weight, moment, own, group_size=group_size)
    return {storage: rounded[storage] for storage in storages}


def as_floats(weight: Float[Tensor, "o i"], storage: Storage) -> StoredWeight | None:
    """A matrix without codes: a float storage, or one of which nothing is left; None for float32."""
    return None if storage == FLOAT32 else HalfFloats(weight)
