"""Codebooks chosen for a weight, and its codes, their error compensated.

The values are those of weighted k-means (`kmeans`), codes are assigned as GPTQ does (`gptq`); then the values
are solved for anew with the codes as they are, by least squares under the moment, and the codes once more.

Shapes: o output features (rows), i input features (columns), k values of a codebook, n storages at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from autoprune.compress.codebooks import Shared, as_scale, nearest
from autoprune.compress.gptq import ROWS_AT_ONCE, damped_moment, descend, importance_of, round_on_grids
from autoprune.compress.kmeans import cluster_values
from autoprune.compress.stored import Parts, StoredWeight
from autoprune.space.named_storages import Codebook
from autoprune.space.storage import Storage

COLUMNS = 128
"""Columns whose codes are chosen before all later ones are told."""

MOST_NUMBERS = 2**18
"""Weights of a matrix, evenly spread, that its one codebook is clustered from."""

SOLVER_STEPS = 8
"""Of conjugate gradients, whose equations are nearly solved where values are few."""


@dataclass(frozen=True)
class TableGrid:
    """Values of each row, in tables of as many columns; middles: what divides a code from the next."""

    table: Float[Tensor, "n o k"]
    middles: Float[Tensor, "n o k-1"]

    @classmethod
    def of(cls, tables: Sequence[Float[Tensor, "o k"]]) -> TableGrid:
        """Of several storages at once; codes of a shorter table stay below its length."""
        most = max(table.shape[1] for table in tables)
        wide, middles = [], []
        for table in tables:
            fill = most - table.shape[1]
            wide.append(torch.nn.functional.pad(table, (0, fill)))
            between = (table[:, 1:] + table[:, :-1]) / 2
            middles.append(torch.nn.functional.pad(between, (0, fill), value=torch.inf))
        return cls(torch.stack(wide), torch.stack(middles))

    def nearest(self, exact: Float[Tensor, "n o"], column: int) -> Float[Tensor, "n o"]:
        return torch.searchsorted(self.middles, exact[..., None].contiguous())[..., 0].to(exact.dtype)

    def values(self, codes: Float[Tensor, "*s n o"]) -> Float[Tensor, "*s n o"]:
        table = self.table.expand(*codes.shape, -1)
        return table.gather(-1, codes.long()[..., None])[..., 0]

    def moved(
        self, codes: Float[Tensor, "n o"], pull: Float[Tensor, "n o"], bend: float, column: int
    ) -> tuple[Float[Tensor, "n o"], Float[Tensor, "n o"]]:
        old = self.values(codes)
        new = self.nearest(old + pull / bend, column)
        return new, self.values(new) - old


class CodebookWay:
    """Weights in the values of codebooks: see `ways.Way`."""

    def compensated(
        self,
        weight: Float[Tensor, "o i"],
        moment: Float[Tensor, "i i"],
        storages: Sequence[Storage],
        *,
        group_size: int,
    ) -> dict[Storage, StoredWeight | None]:
        """The weight in each storage."""
        importance, damped = importance_of(moment), damped_moment(moment).to(moment.dtype)
        chosen = [_chosen(weight, importance, cast(Codebook, storage)) for storage in storages]
        count = len(storages)

        def first(part: Float[Tensor, "r i"], grid: TableGrid, _: Tensor) -> Float[Tensor, "i n r"]:
            return round_on_grids(part, moment, lambda *_: grid, size=COLUMNS, count=count, sweeps=1)

        def better(part: Float[Tensor, "r i"], grid: TableGrid, old: Tensor) -> Float[Tensor, "i n r"]:
            return descend(old, part, moment, grid, sweeps=1)

        codes = _each_part(weight, chosen, first)
        solved = [
            _solved(replace(shared, codes=own), weight, damped)
            for shared, own in zip(chosen, codes, strict=True)
        ]
        codes = _each_part(weight, solved, better)
        return {
            storage: replace(shared, codes=own)
            for storage, shared, own in zip(storages, solved, codes, strict=True)
        }

    def nearest(self, weight: Float[Tensor, "o i"], storage: Storage, *, group_size: int) -> StoredWeight:
        """Each weight at the nearest value of its codebook."""
        ones = torch.ones(weight.shape[1], device=weight.device)
        return _chosen(weight, ones, cast(Codebook, storage))

    def again(
        self, stored: StoredWeight, weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"]
    ) -> StoredWeight | None:
        """Another weight stored as one was."""
        return self.compensated(weight, moment, [stored.storage], group_size=0)[stored.storage]

    def read(self, parts: Parts, storage: Storage, shape: tuple[int, int]) -> StoredWeight:
        """What was written."""
        told = storage.parts(*shape, group_size=0)
        values = parts.tensor("values")
        scale = parts.tensor("scale") if "scale" in told else None
        for name, tensor in {"values": values, "scale": scale}.items():
            if tensor is not None and (tensor.dtype, tuple(tensor.shape)) != (torch.half, told[name].shape):
                raise ValueError(f"{name} of {storage.name} are {tensor.dtype} of {tuple(tensor.shape)}")
        return Shared(parts.codes("codes", storage.bits, shape), values, scale)


def _chosen(weight: Float[Tensor, "o i"], importance: Float[Tensor, " i"], storage: Codebook) -> Shared:
    """Codebooks by k-means, and each weight at its nearest value."""
    if storage.is_shared:
        power = (weight.square() @ importance) / importance.sum()
        scale = as_scale(power.sqrt())
        unit = scale.float()[:, None]
        step = -(-weight.numel() // MOST_NUMBERS)
        while math.gcd(step, weight.shape[1]) > 1:  # else some columns would be left out
            step += 1
        numbers = (weight / unit).flatten()[::step]
        heavy = (importance * unit.square()).flatten()[::step]
        values = cluster_values(numbers[None], heavy[None], storage.values)
    else:
        scale = None
        values = cluster_values(weight, importance[None], storage.values)
    codebook = Shared(torch.empty(0), values.half(), scale)
    codes = nearest(codebook.table.expand(len(weight), -1), weight)
    return replace(codebook, codes=codes.to(torch.uint8))


def _each_part(
    weight: Float[Tensor, "o i"],
    chosen: Sequence[Shared],
    rounded: Callable[[Float[Tensor, "r i"], TableGrid, Float[Tensor, "i n r"]], Float[Tensor, "i n r"]],
) -> list[UInt8[Tensor, "o i"]]:
    """Codes [o i] of each storage; rows are rounded apart from each other, some at a time."""
    out: list[list[Tensor]] = [[] for _ in chosen]
    for start in range(0, len(weight), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        grid = TableGrid.of([one.table[rows] for one in chosen])
        old = torch.stack([one.codes[rows].T.to(weight.dtype) for one in chosen], 1)  # [i n o]
        codes = rounded(weight[rows], grid, old)
        for k, own in enumerate(out):
            own.append(codes[:, k].T.to(torch.uint8))
    return [torch.cat(own) for own in out]


def _solved(shared: Shared, weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"]) -> Shared:
    """Values, then scales, of the least error under the moment, with the codes as they are.

    By conjugate gradients, as a product with the moment is all that the equations of a row are needed for.
    """
    codes, wanted = shared.codes.long(), weight @ moment
    scale = None if shared.scale is None else shared.scale.float()[:, None]

    def gathered(rows: Float[Tensor, "o i"]) -> Float[Tensor, "c k"]:
        sums = torch.zeros(len(rows), shared.values.shape[1], device=rows.device)
        sums.scatter_add_(1, codes, rows if scale is None else rows * scale)
        return sums if scale is None else sums.sum(0, keepdim=True)

    def spread(values: Float[Tensor, "c k"]) -> Float[Tensor, "o i"]:
        each = values.expand(len(codes), -1).gather(1, codes)
        return each if scale is None else each * scale

    values = shared.values.float()
    bend = gathered(moment.diagonal().expand_as(weight) * (1.0 if scale is None else scale))
    rest = gathered(wanted) - gathered(spread(values) @ moment)
    step = eased = torch.where(bend > 0, rest / bend.clamp(min=1e-30), 0.0)
    slope = (rest * eased).sum(1, keepdim=True)
    for _ in range(SOLVER_STEPS):
        pushed = gathered(spread(step) @ moment)
        curve = (step * pushed).sum(1, keepdim=True)
        far = torch.where(curve > 0, slope / curve.clamp(min=1e-30), 0.0)
        values, rest = values + far * step, rest - far * pushed
        eased = torch.where(bend > 0, rest / bend.clamp(min=1e-30), 0.0)
        new = (rest * eased).sum(1, keepdim=True)
        step = eased + torch.where(slope > 0, new / slope.clamp(min=1e-30), 0.0) * step
        slope = new
    if shared.scale is None:
        return replace(shared, values=values.half()).sorted()
    plain = values.half().float().expand(len(codes), -1).gather(1, codes)
    power = (plain * (plain @ moment)).sum(1)
    best = torch.where(power > 0, (plain * wanted).sum(1) / power.clamp(min=1e-30), shared.scale.float())
    return replace(shared, values=values.half(), scale=as_scale(best)).sorted()
