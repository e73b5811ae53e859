"""Storages of values that are the same in every model, times a scale of their group. Offered by name.

Shapes: o output features (rows), i input features (columns) of a weight as a matrix [o i].
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.space.storage_base import Part, Storage, dense_codes, group_size_for

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""NormalFloat of 4 bits, as published (Dettmers et al., QLoRA, arXiv 2305.14314, appendix E)."""

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Floats of two bits of exponent and one of mantissa; a code is the place here, and 8 more for a negative one
(OCP Microscaling Formats v1.0)."""

MICROSCALING_BLOCK = 32
"""Weights of a row that share a scale (OCP Microscaling Formats v1.0)."""


@dataclass(frozen=True)
class FixedGrid(Storage):
    """One of a few fixed values, times a scale for each group of a row; no zero point."""

    @property
    @abstractmethod
    def values(self) -> tuple[float, ...]:
        """The grid, ascending."""

    @property
    def codes(self) -> tuple[int, ...]:
        """The code that a file has of each value."""
        return tuple(range(len(self.values)))

    @property
    def scale_kind(self) -> str:
        """Type of a scale: F16, or U8 for a power of two (E8M0: 2^(byte - 127))."""
        return "F16"

    @property
    def is_integer(self) -> bool:
        """Whether the values are neighbouring integers. Their scales may be below zero, so that either end of
        the grid is the upper one."""
        return False

    @property
    def label(self) -> str:
        return self.name

    def columns_of_scale(self, columns: int, group_size: int) -> int:
        """How many weights of a row share a scale; the last group of a row may have fewer."""
        return group_size_for(columns, group_size)

    def parts(self, rows: int, columns: int, *, group_size: int) -> Mapping[str, Part]:
        groups = -(-columns // self.columns_of_scale(columns, group_size))
        return {
            "codes": dense_codes(rows * columns, self.bits),
            "scale": Part(self.scale_kind, (rows, groups)),
        }


@dataclass(frozen=True)
class NormalFloats(FixedGrid):
    """NF4: 16 quantiles of a normal distribution, times a half float (QLoRA, arXiv 2305.14314).

    >>> NormalFloats().size_bytes(384, 384, group_size=64)  # 73728 of codes, 4608 of scales
    78336
    """

    bits: int = 4

    @property
    def name(self) -> str:
        return "nf4"

    @property
    def words(self) -> str:
        return "16 quantiles of a normal distribution"

    @property
    def sign(self) -> str:
        return "nf"

    @property
    def values(self) -> tuple[float, ...]:
        return NF4


@dataclass(frozen=True)
class MicroscalingFloats(FixedGrid):
    """MXFP4: 4-bit floats (E2M1), times a power of two for each 32 weights of a row, whatever their unit.

    Source: OCP Microscaling Formats v1.0; Rouhani et al., arXiv 2310.10537. The last block of a row has what
    is left over.

    >>> MicroscalingFloats().size_bytes(384, 384, group_size=64)  # 73728 of codes, 4608 of scales
    78336
    """

    bits: int = 4

    @property
    def name(self) -> str:
        return "mxfp4"

    @property
    def words(self) -> str:
        return "4-bit floats with a power of two for 32 weights"

    @property
    def sign(self) -> str:
        return "mx"

    @property
    def values(self) -> tuple[float, ...]:
        return (*(-value for value in _E2M1[:0:-1]), *_E2M1)

    @property
    def codes(self) -> tuple[int, ...]:
        """Those of the standard. -0 has one too, 8, which is not written."""
        return (*range(15, 8, -1), *range(8))

    @property
    def scale_kind(self) -> str:
        return "U8"

    def columns_of_scale(self, columns: int, group_size: int) -> int:
        return MICROSCALING_BLOCK


@dataclass(frozen=True)
class SymmetricIntegers(FixedGrid):
    """Integers from -2^(bits - 1) to 2^(bits - 1) - 1 times a half float, which may be below zero.

    So the end that has one value more is the larger weight's, as in Q4_0 of GGML and INT4_SYM of NNCF.
    Source: Krishnamoorthi, arXiv 1806.08342, section 2.2, where scales are above zero.

    >>> SymmetricIntegers(4).name, SymmetricIntegers(2).values
    ('4sym', (-2.0, -1.0, 0.0, 1.0))
    >>> SymmetricIntegers(4).size_bytes(384, 384, group_size=64)  # 73728 of codes, 4608 of scales
    78336
    """

    @property
    def name(self) -> str:
        return f"{self.bits}sym"

    @property
    def words(self) -> str:
        return f"{self.bits} bits without a zero point"

    @property
    def sign(self) -> str:
        return f"{self.bits}y"

    @property
    def values(self) -> tuple[float, ...]:
        half = 2 ** (self.bits - 1)
        return tuple(float(value) for value in range(-half, half))

    @property
    def is_integer(self) -> bool:
        return True
