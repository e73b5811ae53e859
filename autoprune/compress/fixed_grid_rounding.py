"""Scales chosen for weights on a fixed grid, and their codes, the error compensated (`gptq`).

A scale is the one of least weighted squared error among a few: of half floats shares of the one at which no
weight is beyond the grid (1 is the absmax scale of QLoRA, arXiv 2305.14314), of powers of two the one of OCP
Microscaling Formats v1.0 (the largest weight's exponent less the largest value's) and its neighbours.

Shapes: o output features (rows), i input features (columns), s columns of a group, k values of a grid, n
storages at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from autoprune.compress.codebooks import as_scale
from autoprune.compress.fixed_grids import (
    FixedGridWeight,
    as_exponents,
    as_scales,
    nearest,
    scale_values,
    table_of,
)
from autoprune.compress.gptq import ROWS_AT_ONCE, Grid, importance_of, round_on_grids
from autoprune.compress.integers import SHRINKS, check_scales
from autoprune.compress.stored import Parts, StoredWeight
from autoprune.space.fixed_grid_storages import FixedGrid
from autoprune.space.storage import Storage

SHARES_OF_TWO_BITS = (*SHRINKS, 0.5, 0.44, 0.38, 0.32)
"""The best step of -2 .. 1 for normal numbers is 1.05 of their deviation, 0.44 of the largest of 64."""

LARGEST_POWER = 2
"""The exponent of the largest float of E2M1, which is 6."""

POWERS = (0, 1, -1)
"""Exponents that are tried beside the standard's, which itself lets weights of 6 to 8 scales be cut off."""


@dataclass(frozen=True)
class ValueGrid:
    """Fixed values of several storages, times a scale a row; middles: what divides a code from the next."""

    scale: Float[Tensor, "n o"]
    table: Float[Tensor, "n k"]
    middles: Float[Tensor, "n k-1"]

    @classmethod
    def of(cls, scale: Float[Tensor, "n o"], kinds: Sequence[FixedGrid]) -> ValueGrid:
        """Codes of a shorter table stay below its length."""
        tables = [table_of(kind).to(scale) for kind in kinds]
        most = max(len(table) for table in tables)
        wide = [pad(table, (0, most - len(table))) for table in tables]
        between = [pad((t[1:] + t[:-1]) / 2, (0, most - len(t)), value=torch.inf) for t in tables]
        return cls(scale, torch.stack(wide), torch.stack(between))

    def nearest(self, exact: Float[Tensor, "n o"], column: int) -> Float[Tensor, "n o"]:
        return torch.searchsorted(self.middles, exact / self.scale).to(exact.dtype)

    def values(self, codes: Float[Tensor, "*s n o"]) -> Float[Tensor, "*s n o"]:
        table = self.table.expand(*codes.shape[:-1], -1)
        return table.gather(-1, codes.long()) * self.scale

    def moved(
        self, codes: Float[Tensor, "n o"], pull: Float[Tensor, "n o"], bend: float, column: int
    ) -> tuple[Float[Tensor, "n o"], Float[Tensor, "n o"]]:
        old = self.values(codes)
        new = self.nearest(old + pull / bend, column)
        return new, self.values(new) - old


class FixedGridWay:
    """Weights on fixed grids, all with groups of one size in one pass: see `ways.Way`."""

    def compensated(
        self,
        weight: Float[Tensor, "o i"],
        moment: Float[Tensor, "i i"],
        storages: Sequence[Storage],
        *,
        group_size: int,
    ) -> dict[Storage, StoredWeight | None]:
        """The weight in each storage."""
        passes: dict[int, list[FixedGrid]] = {}
        for storage in storages:
            kind = cast(FixedGrid, storage)
            passes.setdefault(kind.columns_of_scale(weight.shape[1], group_size), []).append(kind)
        out: dict[Storage, StoredWeight | None] = {}
        for size, alike in passes.items():
            out |= zip(alike, _compensated(weight, moment, alike, size), strict=True)
        return out

    def nearest(self, weight: Float[Tensor, "o i"], storage: Storage, *, group_size: int) -> StoredWeight:
        """Each weight at the nearest value of the grid."""
        kind, (rows, columns) = cast(FixedGrid, storage), weight.shape
        size = kind.columns_of_scale(columns, group_size)
        groups = pad(weight, (0, -columns % size)).reshape(-1, size)
        scale = choose_scale(groups, torch.ones(size, device=weight.device), kind)
        codes = nearest(groups / scale[:, None], table_of(kind).to(weight.device))
        codes = codes.reshape(rows, -1)[:, :columns].to(torch.uint8).contiguous()
        return FixedGridWeight(codes, as_scales(scale.reshape(rows, -1), kind), kind, size)

    def again(
        self, stored: StoredWeight, weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"]
    ) -> StoredWeight | None:
        """Another weight in groups of the same size."""
        assert isinstance(stored, FixedGridWeight)
        return _compensated(weight, moment, [stored.kind], stored.size)[0]

    def read(self, parts: Parts, storage: Storage, shape: tuple[int, int]) -> StoredWeight:
        """What was written."""
        kind, (rows, columns) = cast(FixedGrid, storage), shape
        scale = parts.tensor("scale")
        if kind.scale_kind == "U8":
            size = kind.columns_of_scale(columns, 0)
            wanted = (torch.uint8, (rows, -(-columns // size)))
            if (scale.dtype, tuple(scale.shape)) != wanted or bool((scale == 255).any()):
                came = f"{scale.dtype} {tuple(scale.shape)}"
                raise ValueError(f"scales of {came} are no powers of two of blocks of {shape}")
        else:
            check_scales(scale, shape)
            size = columns // scale.shape[1]
        places = torch.full((2**kind.bits,), kind.values.index(0.0), dtype=torch.uint8)  # of MXFP4's -0 too
        places[list(kind.codes)] = torch.arange(len(kind.codes), dtype=torch.uint8)
        return FixedGridWeight(places[parts.codes("codes", kind.bits, shape).long()], scale, kind, size)


def choose_scale(
    group: Float[Tensor, "o s"], weight_of: Float[Tensor, " s"], kind: FixedGrid
) -> Float[Tensor, " o"]:
    """The scale of each row of one group, of those tried the one of the least weighted squared error.

    weight_of: importance of each column.
    """
    table = table_of(kind).to(group.device)
    ends = kind.values[0], kind.values[-1]
    best_error, best = torch.full_like(group[:, 0], torch.inf), torch.ones_like(group[:, 0])
    for scale in _tried(group.amin(1).clamp(max=0.0), group.amax(1).clamp(min=0.0), kind):
        exact = group / scale[:, None]
        value = exact.round().clamp(*ends) if kind.is_integer else table[nearest(exact, table)]
        error = (value * scale[:, None] - group).square() @ weight_of
        best = torch.where(error < best_error, scale, best)
        best_error = torch.minimum(error, best_error)
    return best


def _tried(
    low: Float[Tensor, " o"], high: Float[Tensor, " o"], kind: FixedGrid
) -> Iterator[Float[Tensor, " o"]]:
    """Scales for rows of weights between two ends, as they are stored."""
    if kind.scale_kind == "U8":
        exponent = torch.frexp(torch.maximum(high, -low)).exponent - 1
        for power in POWERS:
            yield scale_values(as_exponents(exponent - LARGEST_POWER + power))
        return
    bottom, top = kind.values[0], kind.values[-1]
    for share in SHARES_OF_TWO_BITS if kind.bits == 2 else SHRINKS:
        yield as_scale(share * torch.maximum(high / top, low / bottom)).float()
        if kind.is_integer:
            yield -as_scale(share * torch.maximum(-high / bottom, -low / top)).float()


def _compensated(
    weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"], kinds: Sequence[FixedGrid], size: int
) -> list[FixedGridWeight]:
    """A weight on each grid, with a scale for each `size` columns of a row."""
    if len(weight) > ROWS_AT_ONCE:
        parts = [
            _compensated(weight[start : start + ROWS_AT_ONCE], moment, kinds, size)
            for start in range(0, len(weight), ROWS_AT_ONCE)
        ]
        return [FixedGridWeight.stacked(one) for one in zip(*parts, strict=True)]
    columns = weight.shape[1]
    more = -columns % size  # columns of zeros, which no input has: all groups are as wide
    weight, moment = pad(weight, (0, more)), pad(moment, (0, more, 0, more))
    importance, scales = importance_of(moment), list[Tensor]()

    def choose(left: Float[Tensor, "s n o"], start: int, spread: Float[Tensor, " s"]) -> Grid:
        groups, own = left.permute(1, 2, 0).contiguous(), importance[start : start + size]
        scale = [choose_scale(group, own, kind) for group, kind in zip(groups, kinds, strict=True)]
        scales.append(torch.stack(scale))
        return ValueGrid.of(scales[-1], kinds)

    codes = round_on_grids(weight, moment, choose, size=size, count=len(kinds))[:columns]
    scale = torch.stack(scales, -1)  # [n o g]
    return [
        FixedGridWeight(
            codes[:, k].T.to(torch.uint8, memory_format=torch.contiguous_format),
            as_scales(scale[k].contiguous(), kind),
            kind,
            size,
        )
        for k, kind in enumerate(kinds)
    ]
