"""Storages that a space file offers by name. They save bytes alone: no runtime computes with them.

Shapes: o output features (rows), i input features (columns) of a weight as a matrix [o i].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.space.storage_base import Part, Storage, dense_codes, group_size_for


@dataclass(frozen=True)
class Codebook(Storage):
    """Codes of a few half floats that weights share (Deep Compression, arXiv 1510.00149, section 3).

    Each row has a codebook of 2^bits values of its own. One that is `is_shared` is the whole matrix's, and
    each row has a scale.

    >>> Codebook(3).name, Codebook(3).size_bytes(384, 384, group_size=64)  # 55296 of codes, 6144 of values
    ('codebook8', 61440)
    >>> Codebook(4, is_shared=True).size_bytes(384, 384, group_size=64)  # codes, 768 of scales, 32 of values
    74528
    """

    is_shared: bool = False

    @property
    def values(self) -> int:
        """How many values a codebook has."""
        return int(2**self.bits)

    @property
    def name(self) -> str:
        return f"{'shared' if self.is_shared else 'codebook'}{self.values}"

    @property
    def label(self) -> str:
        return self.name

    @property
    def words(self) -> str:
        return f"a codebook of {self.values} values for {'the matrix' if self.is_shared else 'each row'}"

    @property
    def sign(self) -> str:
        return f"{self.bits}{'s' if self.is_shared else 'c'}"

    def parts(self, rows: int, columns: int, *, group_size: int) -> Mapping[str, Part]:
        codes = dense_codes(rows * columns, self.bits)
        if self.is_shared:
            return {"codes": codes, "values": Part("F16", (1, self.values)), "scale": Part("F16", (rows,))}
        return {"codes": codes, "values": Part("F16", (rows, self.values))}


@dataclass(frozen=True)
class Ternary(Storage):
    """-1, 0 or 1 times a half-float scale for each group of a row, five weights to a byte.

    >>> Ternary().size_bytes(384, 384, group_size=64)  # 29492 of codes, 4608 of scales
    34100
    """

    bits: int = 2

    @property
    def name(self) -> str:
        return "ternary"

    @property
    def label(self) -> str:
        return self.name

    @property
    def words(self) -> str:
        return "three values, 1.6 bits"

    @property
    def sign(self) -> str:
        return "t"

    @property
    def _order(self) -> tuple[int, int, str]:
        return self.bits - 1, self.input_bits, self.name

    def parts(self, rows: int, columns: int, *, group_size: int) -> Mapping[str, Part]:
        groups = columns // group_size_for(columns, group_size)
        return {"codes": Part("U8", (-(-rows * columns // 5),)), "scale": Part("F16", (rows, groups))}
