"""Weights as the product of two thin factors, of the least error that a rank allows under the input's moment.

The singular value decomposition of the weight times a Cholesky factor of the moment is cut off, which is best
for the layer's output (SVD-LLM: Wang et al., arXiv 2403.07378; ASVD and FWSVD weigh by a
diagonal: arXiv 2312.05821, arXiv 2207.00112). Factors are integers with a scale a row: the right one is
rounded, the left one is then solved for anew by least squares, and rounded.

Shapes: o output features (rows), i input features (columns), r rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from autoprune.compress.gptq import damped_moment, round_compensated
from autoprune.compress.integers import IntegerRounding, Integers
from autoprune.compress.stored import Parts, Rounding, StoredWeight
from autoprune.space.low_rank_storages import FACTOR_BITS, LowRank
from autoprune.space.storage import Storage

LEAST_POWER = 1e-14
"""Of the largest squared singular value: what is below is noise of the arithmetic."""

LARGEST_CODE = 127
"""Of 8 bits with a sign: by so much of a scale a fine-tune counts how far numbers of factors shift."""


@dataclass(frozen=True)
class Factors:
    """Two factors as stored: symmetric integers with a scale a row."""

    left: Integers
    right: Integers

    @property
    def rank(self) -> int:
        """Columns of the left factor."""
        return self.left.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """Codes and scales, by the names of `Storage.parts`."""
        return {
            "left": self.left.codes,
            "left_scale": self.left.scale,
            "right": self.right.codes,
            "right_scale": self.right.scale,
        }

    def widths(self) -> dict[str, int]:
        """Bits of the codes."""
        return {"left": FACTOR_BITS, "right": FACTOR_BITS}

    def product(self) -> Float[Tensor, "o i"]:
        """What they stand for. Sums are exact in double precision, so that their order does not matter."""
        whole = self.left.codes.double() - self.left.zero.double()
        return (whole @ self.right.dequantize().double() * self.left.scale.double()).float()

    def rows(self, at: Int[Tensor, " k"], rank: int) -> Factors:
        """Those of rows `at`; rows so few that they have a smaller rank are decomposed anew."""
        few = Factors(self.left.rows(at), self.right)
        if rank == self.rank:
            return few
        ones = torch.eye(self.right.shape[1], device=self.right.codes.device)
        return fitted_factors(few.product(), ones, rank)

    def stacked_on(self, below: Factors, rank: int) -> Factors | None:
        """Both as one; None where their right factors differ, or the rank of both together does."""
        is_alike = self.rank == below.rank == rank
        if not is_alike or not all(torch.equal(self.tensors()[k], below.tensors()[k]) for k in _RIGHT):
            return None
        return Factors(Integers.stacked([self.left, below.left]), self.right)

    @classmethod
    def read(cls, parts: Parts, shape: tuple[int, int], rank: int) -> Factors:
        """What was written; `ValueError` where it is of another shape or type."""
        rows, columns = shape
        return cls(_factor(parts, "left", (rows, rank)), _factor(parts, "right", (rank, columns)))


_RIGHT = ("right", "right_scale")


def _factor(parts: Parts, name: str, shape: tuple[int, int]) -> Integers:
    scale = parts.tensor(f"{name}_scale")
    if (scale.dtype, tuple(scale.shape)) != (torch.half, (shape[0], 1)):
        raise ValueError(f"scales of {name} are {scale.dtype} of {tuple(scale.shape)}")
    zero = torch.full(scale.shape, 2 ** (FACTOR_BITS - 1), dtype=torch.uint8)
    return Integers(parts.codes(name, FACTOR_BITS, shape), scale, zero, FACTOR_BITS)


def fitted_factors(weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"], rank: int) -> Factors:
    """Rounded factors of a weight, of little error under its input's second moment."""
    damped = damped_moment(moment)
    _, exact = best_factors(weight, damped, rank)
    right = _rounded(exact.float(), moment)
    value = right.dequantize().double()
    own = value @ damped @ value.T
    held = own + LEAST_POWER * torch.eye(rank, device=own.device) * own.diagonal().mean().clamp(min=1e-30)
    left = torch.linalg.solve(held, value @ damped @ weight.double().T).T
    rounded = _rounded(left.float(), own.float())
    return Factors(rounded, right)


def _rounded(factor: Float[Tensor, "o i"], moment: Float[Tensor, "i i"]) -> Integers:
    """A factor with a scale a row."""
    size = factor.shape[1]
    [integers] = round_compensated(factor, moment, bits=[FACTOR_BITS], group_size=size, reach=LARGEST_CODE)
    return integers


def best_factors(
    weight: Float[Tensor, "o i"], moment: Float64[Tensor, "i i"], rank: int
) -> tuple[Float64[Tensor, "o r"], Float64[Tensor, "r i"]]:
    """The factors of a rank whose product is off by the least tr(E M E^T), under an invertible moment M.

    The rows of the right one are uncorrelated under M and of equal power; the largest numbers of both factors
    are about equal.
    """
    rows, columns = weight.shape
    wide = weight.double()
    factor = torch.linalg.cholesky(moment)
    seen = wide @ factor
    if rows <= columns:
        power, vectors = torch.linalg.eigh(seen @ seen.T)
        power, vectors = power[-rank:].flip(0), vectors[:, -rank:].flip(1)
        root = power.clamp(min=LEAST_POWER * float(power[0]) + 1e-60).sqrt()
        left, right = vectors * root, (vectors.T @ wide) / root[:, None]
    else:
        _, vectors = torch.linalg.eigh(seen.T @ seen)
        vectors = vectors[:, -rank:].flip(1)
        left = seen @ vectors
        right = torch.linalg.solve_triangular(factor, vectors.T, upper=False, left=False)
    high, low = float(left.abs().max()), float(right.abs().max())
    even = (low / high) ** 0.5 if high > 0 and low > 0 else 1.0
    return left * even, right / even


class FactorRounding(nn.Module):
    """Keeps two factors on their integers. Trained are the scales, and how far each number shifts."""

    left_start: Float[Tensor, "o r"]
    right_start: Float[Tensor, "r i"]

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        self.left, self.right = IntegerRounding(factors.left), IntegerRounding(factors.right)
        self.register_buffer("left_start", factors.left.start(None), persistent=False)
        self.register_buffer("right_start", factors.right.start(None), persistent=False)
        self.left_shift = nn.Parameter(torch.zeros_like(self.left_start))
        self.right_shift = nn.Parameter(torch.zeros_like(self.right_start))

    def forward(self) -> Float[Tensor, "o i"]:
        left, right = self._trained()
        product: Tensor = self.left(left) @ self.right(right)
        return product

    def stored(self) -> Factors:
        """The factors as they are stored."""
        left, right = self._trained()
        return Factors(self.left.integers(left), self.right.integers(right))

    def _trained(self) -> tuple[Float[Tensor, "o r"], Float[Tensor, "r i"]]:
        """Both in units of their scales."""
        return (
            self.left_start + LARGEST_CODE * self.left_shift,
            self.right_start + LARGEST_CODE * self.right_shift,
        )


@dataclass(frozen=True)
class LowRankWeight:
    """A weight that is stored as two factors alone."""

    factors: Factors
    kind: LowRank

    @property
    def storage(self) -> Storage:
        return self.kind

    @property
    def shape(self) -> tuple[int, int]:
        return self.factors.left.shape[0], self.factors.right.shape[1]

    def tensors(self) -> Mapping[str, Tensor]:
        return self.factors.tensors()

    def widths(self) -> Mapping[str, int]:
        return self.factors.widths()

    def dequantize(self) -> Float[Tensor, "o i"]:
        return self.factors.product()

    def rows(self, at: Int[Tensor, " k"]) -> LowRankWeight:
        rank = self.kind.rank_of(len(at), self.shape[1])
        return LowRankWeight(self.factors.rows(at, rank), self.kind)

    def stacked_on(self, below: StoredWeight) -> StoredWeight | None:
        if not isinstance(below, LowRankWeight) or below.kind != self.kind:
            return None
        rank = self.kind.rank_of(self.shape[0] + below.shape[0], self.shape[1])
        both = self.factors.stacked_on(below.factors, rank)
        return None if both is None else LowRankWeight(both, self.kind)

    def widened(self, storage: Storage) -> LowRankWeight:
        return self

    def start(self, unrounded: Float[Tensor, "o i"] | None) -> Float[Tensor, "o i"]:
        return self.dequantize()

    def rounding(self) -> Rounding:
        """Trains the factors; the weight itself is nothing but their product."""
        return _LowRankRounding(self)


class _LowRankRounding(Rounding):
    """The product of two trained factors, whatever the weight that they were made of has become."""

    def __init__(self, weight: LowRankWeight) -> None:
        super().__init__()
        self.factors, self.kind = FactorRounding(weight.factors), weight.kind

    def forward(self, trained: Float[Tensor, "o ..."]) -> Float[Tensor, "o ..."]:
        product: Tensor = self.factors()
        return product.reshape(trained.shape)

    def stored(self, trained: Float[Tensor, "o ..."]) -> StoredWeight:
        return LowRankWeight(self.factors.stored(), self.kind)


class LowRankWay:
    """Weights of two factors: see `ways.Way`."""

    def compensated(
        self,
        weight: Float[Tensor, "o i"],
        moment: Float[Tensor, "i i"],
        storages: Sequence[Storage],
        *,
        group_size: int,
    ) -> dict[Storage, StoredWeight | None]:
        """The weight in each storage."""
        return {storage: _decomposed(weight, moment, cast(LowRank, storage)) for storage in storages}

    def nearest(self, weight: Float[Tensor, "o i"], storage: Storage, *, group_size: int) -> StoredWeight:
        """The factors of the least squared error of the weight itself."""
        return _decomposed(weight, torch.eye(weight.shape[1], device=weight.device), cast(LowRank, storage))

    def again(
        self, stored: StoredWeight, weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"]
    ) -> StoredWeight | None:
        """Another weight of as many factors."""
        return _decomposed(weight, moment, cast(LowRank, stored.storage))

    def read(self, parts: Parts, storage: Storage, shape: tuple[int, int]) -> StoredWeight:
        """What was written."""
        kind = cast(LowRank, storage)
        return LowRankWeight(Factors.read(parts, shape, kind.rank_of(*shape)), kind)


def _decomposed(weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"], kind: LowRank) -> LowRankWeight:
    return LowRankWeight(fitted_factors(weight, moment, kind.rank_of(*weight.shape)), kind)
