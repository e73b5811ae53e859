"""Weights that share a few values: codes into a codebook, and the rounding that makes them.

Weight sharing is that of Deep Compression (Han et al., arXiv 1510.00149, section 3): values by k-means, which
are trained too. Each row has its codebook, and weights count by the second moment of their input, as in
SqueezeLLM (Kim et al., arXiv 2306.07629, section 4.1); or the matrix has one, and each row a scale.

Shapes: o output features (rows), i input features (columns), k values of a codebook, c codebooks: one a row,
or one; n storages at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float16, Int, UInt8
from torch import Tensor, nn

from autoprune.compress.integers import LARGEST_GROWTH, LARGEST_SCALE, SMALLEST_SCALE
from autoprune.compress.stored import Rounding, StoredWeight, straight_through
from autoprune.space.named_storages import Codebook
from autoprune.space.storage import Storage

NEAR = 0.98
"""Of the way to the next code's weights: how far from its value a trained weight may start."""


@dataclass(frozen=True)
class Shared:
    """A weight as stored: each is a value of a codebook, which ascends.

    scale: of each row, where all rows have one codebook.
    """

    codes: UInt8[Tensor, "o i"]
    values: Float16[Tensor, "c k"]
    scale: Float16[Tensor, " o"] | None = None

    @property
    def storage(self) -> Storage:
        return Codebook((self.values.shape[1] - 1).bit_length(), self.scale is not None)

    @property
    def shape(self) -> tuple[int, int]:
        o, i = self.codes.shape
        return o, i

    @property
    def table(self) -> Float[Tensor, "o k"]:
        """What each code stands for in each row."""
        values = self.values.float()
        return values if self.scale is None else values * self.scale.float()[:, None]

    @property
    def unit(self) -> Float[Tensor, "o 1"]:
        """The mean distance of neighbouring values of each row: what a fine-tune counts weights in."""
        table = self.table
        return ((table[:, -1:] - table[:, :1]) / (table.shape[1] - 1)).clamp(min=SMALLEST_SCALE)

    def tensors(self) -> Mapping[str, Tensor]:
        parts = {"codes": self.codes, "values": self.values}
        return parts if self.scale is None else parts | {"scale": self.scale}

    def widths(self) -> Mapping[str, int]:
        return {"codes": self.storage.bits}

    def dequantize(self) -> Float[Tensor, "o i"]:
        return self.table.gather(1, self.codes.long())

    def rows(self, at: Int[Tensor, " k"]) -> Shared:
        if self.scale is None:
            return Shared(self.codes[at], self.values[at])
        return Shared(self.codes[at], self.values, self.scale[at])

    def stacked_on(self, below: StoredWeight) -> StoredWeight | None:
        if not isinstance(below, Shared) or below.storage != self.storage:
            return None
        codes = torch.cat([self.codes, below.codes])
        if self.scale is None or below.scale is None:
            return Shared(codes, torch.cat([self.values, below.values]))
        if not torch.equal(self.values, below.values):
            return None
        return Shared(codes, self.values, torch.cat([self.scale, below.scale]))

    def widened(self, storage: Storage) -> Shared:
        return self

    def start(self, unrounded: Float[Tensor, "o i"] | None) -> Float[Tensor, "o i"]:
        """The weight in units of `unit`, as near to the weight before rounding as its code allows."""
        value = self.dequantize()
        if unrounded is not None:
            gaps = self.table.diff(dim=1) * (NEAR / 2)
            outer = nn.functional.pad(gaps, (1, 1), mode="replicate") if gaps.shape[1] else gaps
            codes = self.codes.long()
            below, above = outer[:, :-1].gather(1, codes), outer[:, 1:].gather(1, codes)
            value = value + (unrounded - value).clamp(min=-below, max=above)
        return value / self.unit

    def rounding(self) -> Rounding:
        """Trains values, and the rows' scales."""
        return _SharedRounding(self)

    def sorted(self) -> Shared:
        """The same with values that ascend."""
        values, order = self.values.sort(dim=1)
        rank = order.argsort(dim=1).to(torch.uint8)
        codes = rank.expand(len(self.codes), -1).gather(1, self.codes.long())
        return replace(self, codes=codes, values=values)


class _SharedRounding(Rounding):
    """Keeps a weight on the values of its codebook; what is trained is the weight in units of `Shared.unit`.

    Values are trained by how far they shift, in shares of the largest: with codes held, the gradient of one
    is the sum over the weights that share it (Deep Compression, eq. 3).
    """

    values: Float[Tensor, "c k"]
    unit: Float[Tensor, "o 1"]
    scale: Float[Tensor, "o 1"]

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self.register_buffer("values", shared.values.float(), persistent=False)
        self.register_buffer("unit", shared.unit, persistent=False)
        self.shift = nn.Parameter(torch.zeros_like(self.values))
        self.is_shared = shared.scale is not None
        if shared.scale is not None:
            self.register_buffer("scale", shared.scale.float()[:, None], persistent=False)
            self.log_growth = nn.Parameter(torch.zeros_like(self.scale))

    def forward(self, trained: Float[Tensor, "o ..."]) -> Float[Tensor, "o ..."]:
        exact = trained.flatten(1) * self.unit
        values, scale = self._settled()
        table = values if scale is None else values * scale
        rounded = table.gather(1, nearest(table.detach(), exact.detach()))
        return (rounded + (exact - exact.detach())).reshape(trained.shape)

    def stored(self, trained: Float[Tensor, "o ..."]) -> StoredWeight:
        with torch.no_grad():
            values, scale = self._settled()
            table = values if scale is None else values * scale
            codes = nearest(table, trained.flatten(1) * self.unit).to(torch.uint8)
            return Shared(codes, values.half(), None if scale is None else scale[:, 0].half())

    def _settled(self) -> tuple[Float[Tensor, "c k"], Float[Tensor, "o 1"] | None]:
        """Values, which ascend, and scales as half floats."""
        largest = self.values.abs().amax(1, keepdim=True).clamp(min=SMALLEST_SCALE)
        moved = (self.values + self.shift * largest).sort(dim=1).values
        values = straight_through(moved, moved.half().float())
        if not self.is_shared:
            return values, None
        grown = self.scale * self.log_growth.clamp(min=-LARGEST_GROWTH, max=LARGEST_GROWTH).exp()
        return values, straight_through(grown, as_scale(grown).float())


def as_scale(scale: Float[Tensor, "*n"]) -> Float16[Tensor, "*n"]:
    """The nearest half floats that may be scales."""
    return scale.clamp(min=SMALLEST_SCALE, max=LARGEST_SCALE).half()


def nearest(table: Float[Tensor, "*o k"], exact: Float[Tensor, "*o i"]) -> Int[Tensor, "*o i"]:
    """Codes of the values nearest to weights; values ascend, and of equally near ones the lower is taken."""
    middles = ((table[..., 1:] + table[..., :-1]) / 2).contiguous()
    return torch.searchsorted(middles, exact.contiguous())
