"""Weights on a grid of fixed values, times a scale of their group: codes, and training with them.

The grids are those of `FixedGrid`: NF4 (Dettmers et al., QLoRA, arXiv 2305.14314), MXFP4 (Rouhani et al.,
arXiv 2310.10537) and integers without a zero point.

Shapes: o output features (rows), i input features (columns), g groups in a row, k values of a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float16, Int, UInt8
from torch import Tensor, nn

from autoprune.compress.codebooks import NEAR, as_scale
from autoprune.compress.integers import LARGEST_GROWTH
from autoprune.compress.stored import Rounding, StoredWeight
from autoprune.space.fixed_grid_storages import FixedGrid
from autoprune.space.storage import Storage

EXPONENT_BIAS = 127
"""Of E8M0 (OCP Microscaling Formats v1.0); its byte 255 is no number."""

SCALE_BYTES = (1, 252)
"""The smallest and the largest that are written: 2^-126, and 2^125, six times which is a float still."""


@dataclass(frozen=True)
class FixedGridWeight:
    """A weight as stored: each is a value of the grid, times the scale of its group.

    codes: places in `FixedGrid.values`. scale: half floats, or bytes that are powers of two. size: columns
    that share a scale; the last group of a row may have fewer.
    """

    codes: UInt8[Tensor, "o i"]
    scale: Float16[Tensor, "o g"] | UInt8[Tensor, "o g"]
    kind: FixedGrid
    size: int

    @property
    def storage(self) -> Storage:
        return self.kind

    @property
    def shape(self) -> tuple[int, int]:
        o, i = self.codes.shape
        return o, i

    @property
    def unit(self) -> Float[Tensor, "o i"]:
        """What a fine-tune counts each weight in: the mean distance of the grid's values, times the scale."""
        return self._scales() * gap_of(self.kind)

    def tensors(self) -> Mapping[str, Tensor]:
        """With the codes that a file has."""
        numbers = torch.tensor(self.kind.codes, dtype=torch.uint8, device=self.codes.device)
        return {"codes": numbers[self.codes.long()], "scale": self.scale}

    def widths(self) -> Mapping[str, int]:
        return {"codes": self.kind.bits}

    def dequantize(self) -> Float[Tensor, "o i"]:
        return self._unscaled() * self._scales()

    def rows(self, at: Int[Tensor, " k"]) -> FixedGridWeight:
        return replace(self, codes=self.codes[at], scale=self.scale[at])

    @classmethod
    def stacked(cls, parts: Sequence[FixedGridWeight]) -> FixedGridWeight:
        """That of a weight whose rows were rounded in parts."""
        codes, scale = (torch.cat([getattr(part, name) for part in parts]) for name in ("codes", "scale"))
        return replace(parts[0], codes=codes, scale=scale)

    def stacked_on(self, below: StoredWeight) -> StoredWeight | None:
        if not isinstance(below, FixedGridWeight) or (below.kind, below.size) != (self.kind, self.size):
            return None
        return FixedGridWeight.stacked([self, below])

    def widened(self, storage: Storage) -> FixedGridWeight:
        return self

    def start(self, unrounded: Float[Tensor, "o i"] | None) -> Float[Tensor, "o i"]:
        """In units of `unit`, as near to the weight before rounding as its code allows."""
        value = self._unscaled()
        if unrounded is not None:
            gaps = table_of(self.kind).to(value.device).diff() * (NEAR / 2)
            outer, codes = torch.cat([gaps[:1], gaps, gaps[-1:]]), self.codes.long()
            off = unrounded / self._scales() - value
            value = value + off.clamp(min=-outer[codes], max=outer[codes + 1])
        return value / gap_of(self.kind)

    def rounding(self) -> Rounding:
        """Trains scales; the grid stays."""
        return _GridRounding(self)

    def _unscaled(self) -> Float[Tensor, "o i"]:
        return table_of(self.kind).to(self.codes.device)[self.codes.long()]

    def _scales(self) -> Float[Tensor, "o i"]:
        return spread(scale_values(self.scale), self.size, self.shape[1])


class _GridRounding(Rounding):
    """Keeps a weight on its grid; what is trained is the weight in units of `FixedGridWeight.unit`.

    Scales are trained by their logarithms, with the gradient that they have while codes are held (LSQ, arXiv
    1902.08153). Where a scale is a power of two, the nearest one is stored: the weight goes with what is
    trained, so that nothing but its rounding changes when the next power is the nearer.
    """

    scale: Float[Tensor, "o g"]
    table: Float[Tensor, " k"]

    def __init__(self, stored: FixedGridWeight) -> None:
        super().__init__()
        self.register_buffer("scale", scale_values(stored.scale), persistent=False)
        self.register_buffer("table", table_of(stored.kind), persistent=False)
        self.log_growth = nn.Parameter(torch.zeros_like(self.scale))
        self.kind, self.size = stored.kind, stored.size

    def forward(self, trained: Float[Tensor, "o ..."]) -> Float[Tensor, "o ..."]:
        exact = trained.flatten(1) * gap_of(self.kind)
        grown = self._grown()
        kept = scale_values(as_scales(grown.detach(), self.kind))
        value = self.table[self._codes(exact.detach(), grown.detach(), kept)]
        value = value + (exact - exact.detach())  # straight-through, and no digit lost of what is stored
        scale = kept + (grown - grown.detach())
        return (value * spread(scale, self.size, exact.shape[1])).reshape(trained.shape)

    def stored(self, trained: Float[Tensor, "o ..."]) -> StoredWeight:
        with torch.no_grad():
            grown = self._grown()
            scale = as_scales(grown, self.kind)
            exact = trained.flatten(1) * gap_of(self.kind)
            codes = self._codes(exact, grown, scale_values(scale))
            return FixedGridWeight(codes.to(torch.uint8), scale, self.kind, self.size)

    def _grown(self) -> Float[Tensor, "o g"]:
        return self.scale * self.log_growth.clamp(min=-LARGEST_GROWTH, max=LARGEST_GROWTH).exp()

    def _codes(
        self, exact: Float[Tensor, "o i"], grown: Float[Tensor, "o g"], kept: Float[Tensor, "o g"]
    ) -> Int[Tensor, "o i"]:
        """Codes of weights in units of the scale that is trained, times the one that is stored."""
        return nearest(exact * spread(grown / kept, self.size, exact.shape[1]), self.table)


def table_of(kind: FixedGrid) -> Float[Tensor, " k"]:
    """The values of a grid, ascending."""
    return torch.tensor(kind.values)


def gap_of(kind: FixedGrid) -> float:
    """The mean distance of neighbouring values of a grid."""
    values = kind.values
    return (values[-1] - values[0]) / (len(values) - 1)


def nearest(exact: Float[Tensor, "*n"], table: Float[Tensor, " k"]) -> Int[Tensor, "*n"]:
    """Places of the values nearest to weights; of equally near ones the lower is taken."""
    return torch.bucketize(exact, (table[1:] + table[:-1]) / 2)


def spread(scale: Float[Tensor, "o g"], size: int, columns: int) -> Float[Tensor, "o i"]:
    """The scale of each weight."""
    return scale.repeat_interleave(size, 1)[:, :columns]


def as_scales(scale: Float[Tensor, "*n"], kind: FixedGrid) -> Tensor:
    """The nearest scales that may be stored, of powers of two by their logarithms."""
    if kind.scale_kind == "U8":
        return as_exponents(scale.log2().round())
    size = as_scale(scale.abs())
    return torch.where(scale < 0, -size, size)


def as_exponents(power: Float[Tensor, "*n"] | Int[Tensor, "*n"]) -> UInt8[Tensor, "*n"]:
    """The bytes of powers of two."""
    least, most = SCALE_BYTES
    return (power + EXPONENT_BIAS).clamp(min=least, max=most).to(torch.uint8)


def scale_values(scale: Float16[Tensor, "*n"] | UInt8[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """What stored scales stand for: half floats themselves, bytes a power of two.

    >>> scale_values(torch.tensor([0, 1, 126, 127, 130], dtype=torch.uint8)).log2().tolist()
    [-127.0, -126.0, -1.0, 0.0, 3.0]
    """
    if scale.dtype != torch.uint8:
        return scale.float()
    exponent = scale.to(torch.int32)  # the exponent of a float, whose smallest is below the normal ones
    return torch.where(exponent == 0, 2**22, exponent << 23).to(torch.int32).view(torch.float32)
