"""Integers of few bits and a product of two thin factors, which are added: low bits with a correction.

The best factors of the weight are taken off first, so that the integers have less to hold; what these leave
over is then decomposed anew, under the input's moment (CALDERA: Saha et al., arXiv 2405.18886;
decomposed once, after rounding: LQER, Zhang et al., arXiv 2402.02446, and QERA, arXiv 2410.06040).

Shapes: o output features (rows), i input features (columns), r rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from autoprune.compress.gptq import damped_moment, round_compensated
from autoprune.compress.integers import IntegerRounding, Integers, read_integers
from autoprune.compress.low_rank import FactorRounding, Factors, best_factors, fitted_factors
from autoprune.compress.stored import Parts, Rounding, StoredWeight
from autoprune.space.low_rank_storages import Corrected
from autoprune.space.storage import Storage


@dataclass(frozen=True)
class CorrectedIntegers:
    """A weight as stored: integers in groups, and the factors whose product is added."""

    integers: Integers
    factors: Factors
    kind: Corrected

    @property
    def storage(self) -> Storage:
        return self.kind

    @property
    def shape(self) -> tuple[int, int]:
        return self.integers.shape

    def tensors(self) -> Mapping[str, Tensor]:
        return {**self.integers.tensors(), **self.factors.tensors()}

    def widths(self) -> Mapping[str, int]:
        return {**self.integers.widths(), **self.factors.widths()}

    def dequantize(self) -> Float[Tensor, "o i"]:
        return self.integers.dequantize() + self.factors.product()

    def rows(self, at: Int[Tensor, " k"]) -> CorrectedIntegers:
        rank = self.kind.rank_of(len(at), self.shape[1])
        return CorrectedIntegers(self.integers.rows(at), self.factors.rows(at, rank), self.kind)

    def stacked_on(self, below: StoredWeight) -> StoredWeight | None:
        if not isinstance(below, CorrectedIntegers) or below.kind != self.kind:
            return None
        rank = self.kind.rank_of(self.shape[0] + below.shape[0], self.shape[1])
        factors = self.factors.stacked_on(below.factors, rank)
        if factors is None:
            return None
        return CorrectedIntegers(Integers.stacked([self.integers, below.integers]), factors, self.kind)

    def widened(self, storage: Storage) -> CorrectedIntegers:
        return self

    def start(self, unrounded: Float[Tensor, "o i"] | None) -> Float[Tensor, "o i"]:
        rest = None if unrounded is None else unrounded - self.factors.product()
        return self.integers.start(rest)

    def rounding(self) -> Rounding:
        """Trains the factors too."""
        return _CorrectedRounding(self)


class _CorrectedRounding(IntegerRounding):
    """Keeps a weight's integers on their grid, and adds the product of two trained factors."""

    def __init__(self, weight: CorrectedIntegers) -> None:
        super().__init__(weight.integers)
        self.factors, self.kind = FactorRounding(weight.factors), weight.kind

    def forward(self, trained: Float[Tensor, "o ..."]) -> Float[Tensor, "o ..."]:
        product: Tensor = self.factors()
        return super().forward(trained) + product.reshape(trained.shape)

    def stored(self, trained: Float[Tensor, "o ..."]) -> StoredWeight:
        return CorrectedIntegers(self.integers(trained), self.factors.stored(), self.kind)


class CorrectedWay:
    """Integers with a correction: see `ways.Way`."""

    def compensated(
        self,
        weight: Float[Tensor, "o i"],
        moment: Float[Tensor, "i i"],
        storages: Sequence[Storage],
        *,
        group_size: int,
    ) -> dict[Storage, StoredWeight | None]:
        """The weight in each storage; those of one rank share a pass."""
        by_rank: dict[int, list[Corrected]] = {}
        for storage in storages:
            kind = cast(Corrected, storage)
            by_rank.setdefault(kind.rank, []).append(kind)
        return {
            stored.kind: stored
            for kinds in by_rank.values()
            for stored in _corrected(weight, moment, kinds, group_size)
        }

    def nearest(self, weight: Float[Tensor, "o i"], storage: Storage, *, group_size: int) -> StoredWeight:
        """The same with all columns of the weight alike."""
        ones = torch.eye(weight.shape[1], device=weight.device)
        return _corrected(weight, ones, [cast(Corrected, storage)], group_size)[0]

    def again(
        self, stored: StoredWeight, weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"]
    ) -> StoredWeight | None:
        """Another weight in groups of the same size, with a correction of the same rank."""
        assert isinstance(stored, CorrectedIntegers)
        return _corrected(weight, moment, [stored.kind], stored.integers.group_size)[0]

    def read(self, parts: Parts, storage: Storage, shape: tuple[int, int]) -> StoredWeight:
        """What was written."""
        kind = cast(Corrected, storage)
        factors = Factors.read(parts, shape, kind.rank_of(*shape))
        return CorrectedIntegers(read_integers(parts, kind.bits, shape), factors, kind)


def _corrected(
    weight: Float[Tensor, "o i"], moment: Float[Tensor, "i i"], kinds: Sequence[Corrected], group_size: int
) -> list[CorrectedIntegers]:
    """A weight in storages of one rank."""
    rank = kinds[0].rank_of(*weight.shape)
    left, right = best_factors(weight, damped_moment(moment), rank)
    rest = weight - (left @ right).float()
    rounded = round_compensated(rest, moment, bits=[kind.bits for kind in kinds], group_size=group_size)
    return [
        CorrectedIntegers(integers, fitted_factors(weight - integers.dequantize(), moment, rank), kind)
        for kind, integers in zip(kinds, rounded, strict=True)
    ]
