"""Weights of three values, -1, 0 and 1 times a scale: 1.6 bits of each, five to a byte.

Ternary weights are those of Li et al. (Ternary Weight Networks, arXiv 1605.04711); here each group of a row
has its scale, and the error of rounding is compensated as that of integers is (`gptq`).

Shapes: o output features (rows), i input features (columns), g groups in a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float16, Int, UInt8
from torch import Tensor

from autoprune.compress.gptq import round_compensated
from autoprune.compress.integers import SHRINKS, IntegerRounding, Integers, check_scales, round_nearest
from autoprune.compress.packing import pack_trits, unpack_trits
from autoprune.compress.stored import Parts, Rounding, StoredWeight
from autoprune.space.named_storages import Ternary
from autoprune.space.storage import Storage

_SHRINKS = (*SHRINKS, 0.5, 0.44, 0.38)
"""The best scale of normal numbers is 1.22 of their deviation, half of the largest of 64."""


@dataclass(frozen=True)
class Trits:
    """A weight as stored: 0, 1 and 2 stand for -1, 0 and 1 times the scale of a group."""

    codes: UInt8[Tensor, "o i"]
    scale: Float16[Tensor, "o g"]

    @property
    def storage(self) -> Storage:
        return Ternary()

    @property
    def shape(self) -> tuple[int, int]:
        o, i = self.codes.shape
        return o, i

    @property
    def integers(self) -> Integers:
        """The same as integers of two bits, whose largest code is not used."""
        return Integers(self.codes, self.scale, torch.ones_like(self.scale, dtype=torch.uint8), 2)

    def tensors(self) -> Mapping[str, Tensor]:
        return {"codes": torch.from_numpy(pack_trits(self.codes.cpu().numpy())), "scale": self.scale}

    def widths(self) -> Mapping[str, int]:
        return {}

    def dequantize(self) -> Float[Tensor, "o i"]:
        return self.integers.dequantize()

    def rows(self, at: Int[Tensor, " k"]) -> Trits:
        return Trits(self.codes[at], self.scale[at])

    def stacked_on(self, below: StoredWeight) -> StoredWeight | None:
        if not isinstance(below, Trits):
            return None
        return Trits(torch.cat([self.codes, below.codes]), torch.cat([self.scale, below.scale]))

    def widened(self, storage: Storage) -> Trits:
        return self

    def start(self, unrounded: Float[Tensor, "o i"] | None) -> Float[Tensor, "o i"]:
        return self.integers.start(unrounded)

    def rounding(self) -> Rounding:
        return _TritRounding(self)


class _TritRounding(IntegerRounding):
    """Keeps a weight on three values; scales are trained."""

    def __init__(self, trits: Trits) -> None:
        super().__init__(trits.integers)
        self.top = 2

    def stored(self, trained: Float[Tensor, "o ..."]) -> StoredWeight:
        integers = self.integers(trained)
        return Trits(integers.codes, integers.scale)


class TernaryWay:
    """Weights of three values: see `ways.Way`."""

    def compensated(
        self,
        weight: Float[Tensor, "o i"],
        moment: Float[Tensor, "i i"],
        storages: Sequence[Storage],
        *,
        group_size: int,
    ) -> dict[Storage, StoredWeight | None]:
        """The weight in the one storage there is of the kind."""
        [integers] = round_compensated(
            weight, moment, bits=[2], group_size=group_size, reach=1, shrinks=_SHRINKS
        )
        return dict.fromkeys(storages, _without_lowest(integers))

    def nearest(self, weight: Float[Tensor, "o i"], storage: Storage, *, group_size: int) -> StoredWeight:
        """Each weight at the nearest of the three values."""
        integers = round_nearest(weight, bits=2, group_size=group_size, reach=1, shrinks=_SHRINKS)
        return _without_lowest(integers)

    def again(
        self, stored: StoredWeight, weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"]
    ) -> StoredWeight | None:
        """Another weight in groups of the same size."""
        assert isinstance(stored, Trits)
        size = stored.integers.group_size
        return self.compensated(weight, moment, [stored.storage], group_size=size)[stored.storage]

    def read(self, parts: Parts, storage: Storage, shape: tuple[int, int]) -> StoredWeight:
        """What was written."""
        scale = parts.tensor("scale")
        check_scales(scale, shape)
        codes = torch.from_numpy(unpack_trits(parts.tensor("codes").numpy(), shape[0] * shape[1]))
        return Trits(codes.reshape(shape), scale)


def _without_lowest(symmetric: Integers) -> Trits:
    """Symmetric integers of two bits, which use the codes 1 to 3."""
    return Trits(symmetric.codes - 1, symmetric.scale)
