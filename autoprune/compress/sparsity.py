"""Weights of which some are zero: a mask of a bit a weight, and integers for those that stay.

Which go is decided, and what stays is compensated, as by SparseGPT (Frantar and Alistarh, arXiv 2301.00774,
algorithm 1), in one pass with the rounding: a weight that goes counts as rounded to zero. Of each stretch of
a row as many stay, so that bytes are known beforehand: 2 of every 4 (Mishra et al., arXiv 2104.08378), or 32
of every 64, which is all but unstructured.

Shapes: o output features (rows), i input features (columns), g groups in a row, s columns of a group; n is 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from autoprune.compress.gptq import ROWS_AT_ONCE, Grid, IntegerGrid, importance_of, round_on_grids
from autoprune.compress.integers import IntegerRounding, Integers, check_scales, choose_scale
from autoprune.compress.stored import Parts, Rounding, StoredWeight
from autoprune.space.named_storages import Sparse
from autoprune.space.storage import Storage

GONE = -1.0
"""Code of a weight that is zero, while codes are chosen."""


@dataclass(frozen=True)
class SparseIntegers:
    """A weight as stored: integers in groups, which outside of the mask are the zero points."""

    integers: Integers
    mask: Bool[Tensor, "o i"]
    kind: Sparse

    @property
    def storage(self) -> Storage:
        return self.kind

    @property
    def shape(self) -> tuple[int, int]:
        return self.integers.shape

    def tensors(self) -> Mapping[str, Tensor]:
        kept = self.integers.codes[self.mask]
        return {
            "mask": self.mask.to(torch.uint8),
            "codes": kept,
            "scale": self.integers.scale,
            "zero": self.integers.zero,
        }

    def widths(self) -> Mapping[str, int]:
        return {"mask": 1, "codes": self.integers.bits, "zero": self.integers.bits}

    def dequantize(self) -> Float[Tensor, "o i"]:
        return self.integers.dequantize()

    def rows(self, at: Int[Tensor, " k"]) -> SparseIntegers:
        return SparseIntegers(self.integers.rows(at), self.mask[at], self.kind)

    def stacked_on(self, below: StoredWeight) -> StoredWeight | None:
        if not isinstance(below, SparseIntegers) or below.kind != self.kind:
            return None
        integers = Integers.stacked([self.integers, below.integers])
        return SparseIntegers(integers, torch.cat([self.mask, below.mask]), self.kind)

    def widened(self, storage: Storage) -> SparseIntegers:
        return self

    def start(self, unrounded: Float[Tensor, "o i"] | None) -> Float[Tensor, "o i"]:
        return self.integers.start(unrounded)

    def rounding(self) -> Rounding:
        return _SparseRounding(self)


class _SparseRounding(IntegerRounding):
    """Keeps a weight's zeros, and the others on their grid of integers."""

    mask: Bool[Tensor, "o i"]

    def __init__(self, weight: SparseIntegers) -> None:
        super().__init__(weight.integers)
        self.register_buffer("mask", weight.mask, persistent=False)
        self.kind = weight.kind

    def forward(self, trained: Float[Tensor, "o ..."]) -> Float[Tensor, "o ..."]:
        return super().forward(trained) * self.mask.reshape(trained.shape)

    def stored(self, trained: Float[Tensor, "o ..."]) -> StoredWeight:
        return _masked(self.integers(trained), self.mask, self.kind)


def _masked(integers: Integers, mask: Bool[Tensor, "o i"], kind: Sparse) -> SparseIntegers:
    zero = integers.zero.repeat_interleave(integers.group_size, 1)
    codes = torch.where(mask, integers.codes, zero)
    return SparseIntegers(Integers(codes, integers.scale, integers.zero, integers.bits), mask, kind)


@dataclass(frozen=True)
class SparseGrid:
    """Integers of a group of columns, and zero for the weights outside of the mask."""

    integers: IntegerGrid
    mask: Bool[Tensor, "s n o"]

    def nearest(self, exact: Float[Tensor, "n o"], column: int) -> Float[Tensor, "n o"]:
        return torch.where(self.mask[column], self.integers.nearest(exact, column), GONE)

    def values(self, codes: Float[Tensor, "*s n o"]) -> Float[Tensor, "*s n o"]:
        return torch.where(codes == GONE, 0.0, self.integers.values(codes))

    def moved(
        self, codes: Float[Tensor, "n o"], pull: Float[Tensor, "n o"], bend: float, column: int
    ) -> tuple[Float[Tensor, "n o"], Float[Tensor, "n o"]]:
        new, far = self.integers.moved(codes, pull, bend, column)
        stays = self.mask[column]
        return torch.where(stays, new, codes), torch.where(stays, far, 0.0)


class SparseWay:
    """Weights of which some are zero: see `ways.Way`."""

    def compensated(
        self,
        weight: Float[Tensor, "o i"],
        moment: Float[Tensor, "i i"],
        storages: Sequence[Storage],
        *,
        group_size: int,
    ) -> dict[Storage, StoredWeight | None]:
        """The weight in each storage."""
        return {
            storage: _compensated(weight, moment, cast(Sparse, storage), group_size) for storage in storages
        }

    def nearest(self, weight: Float[Tensor, "o i"], storage: Storage, *, group_size: int) -> StoredWeight:
        """The largest weights, each rounded by itself."""
        moment = torch.eye(weight.shape[1], device=weight.device)
        return _compensated(weight, moment, cast(Sparse, storage), group_size)

    def again(
        self, stored: StoredWeight, weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"]
    ) -> StoredWeight | None:
        """Another weight in groups of the same size; which of its weights go is decided anew."""
        assert isinstance(stored, SparseIntegers)
        return _in_groups(weight, moment, stored.kind, stored.integers.group_size)

    def read(self, parts: Parts, storage: Storage, shape: tuple[int, int]) -> StoredWeight:
        """What was written."""
        kind = cast(Sparse, storage)
        scale = parts.tensor("scale")
        check_scales(scale, shape)
        zero = parts.codes("zero", kind.value_bits, tuple(scale.shape))
        mask = parts.codes("mask", 1, shape).bool()
        kept = shape[0] * kind.kept_of(shape[1])
        if int(mask.sum()) != kept:
            raise ValueError(f"{int(mask.sum())} weights stay, and {kind.name} keeps {kept}")
        codes = zero.repeat_interleave(shape[1] // scale.shape[1], 1)
        codes[mask] = parts.codes("codes", kind.value_bits, (kept,))
        return SparseIntegers(Integers(codes, scale, zero, kind.value_bits), mask, kind)


def _compensated(
    weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"], kind: Sparse, group_size: int
) -> SparseIntegers:
    return _in_groups(weight, moment, kind, kind.columns_of_scale(weight.shape[1], group_size))


def _in_groups(
    weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"], kind: Sparse, size: int
) -> SparseIntegers:
    """A weight with a scale for each `size` columns of a row."""
    if len(weight) > ROWS_AT_ONCE:
        parts = [
            _in_groups(weight[start : start + ROWS_AT_ONCE], moment, kind, size)
            for start in range(0, len(weight), ROWS_AT_ONCE)
        ]
        integers = Integers.stacked([part.integers for part in parts])
        return SparseIntegers(integers, torch.cat([part.mask for part in parts]), kind)
    importance = importance_of(moment)
    top = torch.full((1, 1), float(2**kind.value_bits - 1), device=weight.device)
    grids: list[SparseGrid] = []

    def choose(left: Float[Tensor, "s 1 o"], start: int, spread: Float[Tensor, " s"]) -> Grid:
        mask = kept_mask((left[:, 0] / spread[:, None]).abs().T, kind).T[:, None]
        group = (left * mask).permute(1, 2, 0).contiguous()
        scale, zero = choose_scale(group, top, importance[start : start + len(left)])
        grids.append(SparseGrid(IntegerGrid(scale, zero, torch.zeros_like(top), top), mask))
        return grids[-1]

    codes = round_on_grids(weight, moment, choose, size=size, count=1)[:, 0].T
    scale, zero = (
        torch.stack([getattr(grid.integers, name)[0] for grid in grids], 1) for name in ("scale", "zero")
    )
    mask = torch.cat([grid.mask for grid in grids])[:, 0].T.contiguous()
    integers = Integers(
        codes.clamp(min=0).to(torch.uint8).contiguous(), scale.half(), zero.to(torch.uint8), kind.value_bits
    )
    return _masked(integers, mask, kind)


def kept_mask(scores: Float[Tensor, "o i"], kind: Sparse) -> Bool[Tensor, "o i"]:
    """Which weights stay: those of the highest scores in each stretch of a row, as many as `kind` keeps."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for start in range(0, scores.shape[1], kind.of):
        part = scores[:, start : start + kind.of]
        best = part.topk(kind.kept_of(part.shape[1]), dim=1).indices
        mask[:, start : start + kind.of].scatter_(1, best, True)
    return mask
