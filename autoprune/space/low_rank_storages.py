"""Storages of two thin factors, alone and beside integers, that a space file offers by name. They save bytes.

Shapes: o output features (rows), i input features (columns) of a weight as a matrix [o i], r its rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.space.storage_base import Part, Storage, dense_codes, group_size_for

FACTOR_BITS = 8
"""Of each number of a factor."""

_RANK_SIGNS = {4: "n", 8: "e"}


@dataclass(frozen=True)
class LowRank(Storage):
    """Two factors, [o r] and [r i], of 8-bit integers with a half-float scale for each row of either.

    percent: the rank, of the smaller side of the matrix. `bits`: of a weight in a square matrix.

    >>> LowRank.of_percent(25).name, LowRank.of_percent(25).bits
    ('rank25', 4)
    >>> LowRank.of_percent(25).size_bytes(384, 384, group_size=64)  # 73728 codes, 480 scales
    74688
    """

    percent: int

    @classmethod
    def of_percent(cls, percent: int) -> LowRank:
        """The storage with the bits that follow."""
        return cls(max(1, round(2 * FACTOR_BITS * percent / 100)), percent)

    @property
    def name(self) -> str:
        return f"rank{self.percent}"

    @property
    def label(self) -> str:
        return self.name

    @property
    def words(self) -> str:
        return f"two 8-bit factors of {self.percent} % of the rank"

    @property
    def sign(self) -> str:
        return f"{self.percent}k"

    def rank_of(self, rows: int, columns: int) -> int:
        """Columns of the left factor of a weight [o i]; at least one."""
        return max(1, min(rows, columns) * self.percent // 100)

    def parts(self, rows: int, columns: int, *, group_size: int) -> Mapping[str, Part]:
        return factor_parts(rows, columns, self.rank_of(rows, columns))


@dataclass(frozen=True)
class Corrected(Storage):
    """Integers in groups, and two 8-bit factors of a small rank, whose product is added to them.

    >>> Corrected(2, 8).name, Corrected(2, 8).size_bytes(384, 384, group_size=64)  # 42048 and 6928 of factors
    ('2r8', 48976)
    """

    rank: int

    @property
    def name(self) -> str:
        return f"{self.bits}r{self.rank}"

    @property
    def label(self) -> str:
        return self.name

    @property
    def words(self) -> str:
        return f"{self.bits} bits and a correction of rank {self.rank}"

    @property
    def sign(self) -> str:
        return f"{self.bits}{_RANK_SIGNS[self.rank]}"

    def rank_of(self, rows: int, columns: int) -> int:
        """Columns of the left factor of a weight [o i]."""
        return min(self.rank, rows, columns)

    def parts(self, rows: int, columns: int, *, group_size: int) -> Mapping[str, Part]:
        groups = columns // group_size_for(columns, group_size)
        integers = {
            "codes": dense_codes(rows * columns, self.bits),
            "scale": Part("F16", (rows, groups)),
            "zero": dense_codes(rows * groups, self.bits),
        }
        return integers | factor_parts(rows, columns, self.rank_of(rows, columns))


def factor_parts(rows: int, columns: int, rank: int) -> dict[str, Part]:
    """Codes and scales of the factors [o r] and [r i]."""
    return {
        "left": dense_codes(rows * rank, FACTOR_BITS),
        "left_scale": Part("F16", (rows, 1)),
        "right": dense_codes(rank * columns, FACTOR_BITS),
        "right_scale": Part("F16", (rank, 1)),
    }
