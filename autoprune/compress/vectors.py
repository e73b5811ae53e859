"""Weights that share vectors of a few neighbouring weights: codes into a codebook, and training with them.

Product quantization of weights is that of Stock et al. (And the bit goes down, arXiv 1907.05686): a row is
cut into vectors, each of which is one of a codebook. Here the codebook is the matrix's, and each row has a
scale.

Shapes: o output features (rows), i input features (columns), m = ceil(i / d) vectors of d weights in a row, k
vectors of a codebook, n vectors of whatever rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float16, Int, UInt8
from torch import Tensor, nn

from autoprune.compress.codebooks import NEAR, as_scale
from autoprune.compress.integers import LARGEST_GROWTH, SMALLEST_SCALE
from autoprune.compress.stored import Rounding, StoredWeight, straight_through
from autoprune.space.named_storages import Vectors
from autoprune.space.storage import Storage

VECTORS_AT_ONCE = 2**15
"""Whose distances from a codebook are in memory at once."""


@dataclass(frozen=True)
class SharedVectors:
    """A weight as stored: each vector of a row is one of the codebook, times the row's scale.

    columns: weights of a row; what the last vector has beyond them stands for nothing.
    """

    codes: UInt8[Tensor, "o m"]
    values: Float16[Tensor, "k d"]
    scale: Float16[Tensor, " o"]
    columns: int

    @property
    def storage(self) -> Storage:
        k, d = self.values.shape
        return Vectors.of(d, k)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.codes), self.columns

    def tensors(self) -> Mapping[str, Tensor]:
        return {"codes": self.codes, "values": self.values, "scale": self.scale}

    def widths(self) -> Mapping[str, int]:
        return {"codes": (len(self.values) - 1).bit_length()}

    def unscaled(self) -> Float[Tensor, "o i"]:
        """The weight in units of the rows' scales."""
        return self.values.float()[self.codes.long()].flatten(1)[:, : self.columns]

    def dequantize(self) -> Float[Tensor, "o i"]:
        return self.unscaled() * self.scale.float()[:, None]

    def rows(self, at: Int[Tensor, " k"]) -> SharedVectors:
        return SharedVectors(self.codes[at], self.values, self.scale[at], self.columns)

    def stacked_on(self, below: StoredWeight) -> StoredWeight | None:
        if not isinstance(below, SharedVectors) or below.columns != self.columns:
            return None
        if not torch.equal(self.values, below.values):
            return None
        codes, scale = torch.cat([self.codes, below.codes]), torch.cat([self.scale, below.scale])
        return SharedVectors(codes, self.values, scale, self.columns)

    def widened(self, storage: Storage) -> SharedVectors:
        return self

    def start(self, unrounded: Float[Tensor, "o i"] | None) -> Float[Tensor, "o i"]:
        """In units of the rows' scales, as near to the weight before rounding as its codes allow."""
        value = self.unscaled()
        if unrounded is None:
            return value
        d, table = self.values.shape[1], self.values.float()
        ways = _cut(unrounded / self.scale.float()[:, None] - value, d)
        moved = []
        for at, way in zip(_cut(value, d), ways, strict=True):
            flat = at.flatten(0, 1), way.flatten(0, 1)
            short = table[:, : at.shape[2]]
            share = [_free_share(start, gone, short) for start, gone in _parts(*flat)]
            moved.append((at + way * torch.cat(share).view(*at.shape[:2], 1) * NEAR).flatten(1))
        return torch.cat(moved, 1)

    def rounding(self) -> Rounding:
        """Trains the codebook and the rows' scales."""
        return _VectorRounding(self)


class _VectorRounding(Rounding):
    """Keeps a weight on the vectors of its codebook; what is trained is the weight in units of its scales.

    The codebook is trained by how far it shifts, in shares of the largest value.
    """

    values: Float[Tensor, "k d"]
    scale: Float[Tensor, "o 1"]

    def __init__(self, vectors: SharedVectors) -> None:
        super().__init__()
        self.register_buffer("values", vectors.values.float(), persistent=False)
        self.register_buffer("scale", vectors.scale.float()[:, None], persistent=False)
        self.shift = nn.Parameter(torch.zeros_like(self.values))
        self.log_growth = nn.Parameter(torch.zeros_like(self.scale))
        self.columns = vectors.columns

    def forward(self, trained: Float[Tensor, "o ..."]) -> Float[Tensor, "o ..."]:
        exact = trained.flatten(1)
        values, scale = self._settled()
        codes = nearest_codes(exact.detach(), values.detach())
        rounded = values[codes].flatten(1)[:, : self.columns]
        return ((rounded + (exact - exact.detach())) * scale).reshape(trained.shape)

    def stored(self, trained: Float[Tensor, "o ..."]) -> StoredWeight:
        with torch.no_grad():
            values, scale = self._settled()
            codes = nearest_codes(trained.flatten(1), values)
            return SharedVectors(codes.to(torch.uint8), values.half(), scale[:, 0].half(), self.columns)

    def _settled(self) -> tuple[Float[Tensor, "k d"], Float[Tensor, "o 1"]]:
        """Codebook and scales as half floats."""
        largest = self.values.abs().amax().clamp(min=SMALLEST_SCALE)
        moved = self.values + self.shift * largest
        grown = self.scale * self.log_growth.clamp(min=-LARGEST_GROWTH, max=LARGEST_GROWTH).exp()
        return (
            straight_through(moved, moved.half().float()),
            straight_through(grown, as_scale(grown).float()),
        )


def in_vectors(weight: Float[Tensor, "o i"], length: int) -> Float[Tensor, "o m d"]:
    """Rows cut into vectors, the last of each filled up with zeros."""
    count = -(-weight.shape[1] // length)
    filled = nn.functional.pad(weight, (0, count * length - weight.shape[1]))
    return filled.reshape(len(weight), count, length)


def nearest_codes(exact: Float[Tensor, "o i"], table: Float[Tensor, "k d"]) -> Int[Tensor, "o m"]:
    """Codes of rows, of the last vector by the weights that it has."""
    parts = _cut(exact, table.shape[1])
    return torch.cat([nearest_vectors(part, table[:, : part.shape[2]]) for part in parts], 1)


def nearest_vectors(exact: Float[Tensor, "*s d"], table: Float[Tensor, "k d"]) -> Int[Tensor, "*s"]:
    """Codes of the vectors nearest to some; of equally near ones the first is taken."""
    half, flat = table.square().sum(1) / 2, exact.flatten(0, -2)
    codes = [torch.addmm(half, part, table.T, alpha=-1.0).argmin(1) for (part,) in _parts(flat)]
    return torch.cat(codes).view(exact.shape[:-1])


def _cut(rows: Float[Tensor, "o i"], length: int) -> list[Float[Tensor, "o m _"]]:
    """Rows in vectors, and apart from these the weights that are left over."""
    count = rows.shape[1] // length
    whole = rows[:, : count * length].reshape(len(rows), count, length)
    parts = [whole, rows[:, None, count * length :]]
    return [part for part in parts if part.numel()]


def _free_share(
    at: Float[Tensor, "n d"], way: Float[Tensor, "n d"], table: Float[Tensor, "k d"]
) -> Float[Tensor, " n"]:
    """How much of each way can be gone from a vector of the table before another is nearer; at most all.

    At a share t of the way w from c the vector b is as near as c where 2 t w (b - c) = |b - c|^2.
    """
    toward = 2 * (way @ table.T - (way * at).sum(1, keepdim=True))
    far = torch.cdist(at, table, compute_mode="donot_use_mm_for_euclid_dist").square()
    share = torch.where(toward > 0, far / toward.clamp(min=1e-30), torch.inf)
    return share.amin(1).clamp(max=1.0)


def _parts(*vectors: Float[Tensor, "n d"]) -> Iterator[tuple[Tensor, ...]]:
    """Vectors some at a time."""
    for start in range(0, len(vectors[0]), VECTORS_AT_ONCE):
        yield tuple(part[start : start + VECTORS_AT_ONCE] for part in vectors)
