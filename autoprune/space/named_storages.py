"""Storages that a space file offers by name. They save bytes alone: no runtime computes with them.

Shapes: o output features (rows), i input features (columns) of a weight as a matrix [o i].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.space.storage_base import Part, Storage, dense_codes, group_size_for

_VECTOR_SIGNS = {2: "p", 4: "q"}
_SPARSE_SIGNS = {(2, 4): "d", (32, 64): "h"}


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
class Vectors(Storage):
    """Codes of vectors that stand for `length` neighbouring weights of a row: a codebook for the matrix.

    Each row has a half-float scale. The weights of a row that are left over, where `length` does not part it,
    have a code too. `bits`: of a weight; source: product quantization (Stock et al., arXiv 1907.05686).

    >>> Vectors.of(2, 256).name, Vectors.of(2, 256).bits, Vectors.of(4, 256).bits
    ('vector2x256', 4, 2)
    >>> Vectors.of(4, 256).size_bytes(384, 384, group_size=64)  # codes, 2048 of values, 768
    39680
    """

    length: int
    values: int

    @classmethod
    def of(cls, length: int, values: int) -> Vectors:
        """The storage with the bits that follow."""
        return cls(-(-(values - 1).bit_length() // length), length, values)

    @property
    def code_bits(self) -> int:
        """Bits of a code."""
        return (self.values - 1).bit_length()

    @property
    def name(self) -> str:
        return f"vector{self.length}x{self.values}"

    @property
    def label(self) -> str:
        return self.name

    @property
    def words(self) -> str:
        return f"a codebook of {self.values} vectors of {self.length} weights for the matrix"

    @property
    def sign(self) -> str:
        return f"{self.bits}{_VECTOR_SIGNS[self.length]}"

    def codes_of(self, columns: int) -> int:
        """How many codes a row of so many columns has."""
        return -(-columns // self.length)

    def parts(self, rows: int, columns: int, *, group_size: int) -> Mapping[str, Part]:
        return {
            "codes": dense_codes(rows * self.codes_of(columns), self.code_bits),
            "values": Part("F16", (self.values, self.length)),
            "scale": Part("F16", (rows,)),
        }


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


@dataclass(frozen=True)
class Sparse(Storage):
    """A mask of a bit a weight, and integers of `value_bits` for `kept` of every `of` weights of a row.

    A scale is shared by as many weights that stay as in other storages. `bits`: of a weight, mask included.

    >>> Sparse.of_kept(4, 2, 4).name, Sparse.of_kept(4, 32, 64).bits
    ('2of4x4', 3)
    >>> Sparse.of_kept(4, 2, 4).size_bytes(384, 384, group_size=64)  # 18432 are the mask's
    58176
    """

    value_bits: int
    kept: int
    of: int

    @classmethod
    def of_kept(cls, value_bits: int, kept: int, of: int) -> Sparse:
        """The storage with the bits that follow."""
        return cls(1 + round(value_bits * kept / of), value_bits, kept, of)

    @property
    def name(self) -> str:
        return f"{self.kept}of{self.of}x{self.value_bits}"

    @property
    def label(self) -> str:
        return self.name

    @property
    def words(self) -> str:
        return f"{self.kept} of every {self.of} weights, with {self.value_bits} bits"

    @property
    def sign(self) -> str:
        return f"{self.value_bits}{_SPARSE_SIGNS[self.kept, self.of]}"

    def kept_of(self, columns: int) -> int:
        """How many weights of a row of so many columns stay."""
        whole, rest = divmod(columns, self.of)
        return whole * self.kept + -(-rest * self.kept // self.of)

    def columns_of_scale(self, columns: int, group_size: int) -> int:
        """How many columns share a scale."""
        return group_size_for(columns, group_size * self.of // self.kept)

    def parts(self, rows: int, columns: int, *, group_size: int) -> Mapping[str, Part]:
        groups = columns // self.columns_of_scale(columns, group_size)
        return {
            "mask": dense_codes(rows * columns, 1),
            "codes": dense_codes(rows * self.kept_of(columns), self.value_bits),
            "scale": Part("F16", (rows, groups)),
            "zero": dense_codes(rows * groups, self.value_bits),
        }
