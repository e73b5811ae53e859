"""What every way of storing a weight says of itself: names, bits, and the tensors that a file has of it.

Shapes: o output features (rows), i input features (columns) of a weight as a matrix [o i].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import total_ordering

FLOAT_BITS = 32
"""Bits of a weight that is left as it came, and of an input that is not rounded."""

_BYTES = {"F32": 4, "F16": 2, "U8": 1}


@dataclass(frozen=True)
class Part:
    """A tensor that a file holds of a weight. kind: of its numbers, as safetensors names it."""

    kind: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * _BYTES[self.kind]


@total_ordering
@dataclass(frozen=True)
class Storage(ABC):
    """How a weight is stored. `bits`: of each weight, scales not counted.

    Storages are ordered by bits; of those with equal bits the one that rounds its inputs comes first.
    """

    bits: int

    @property
    def name(self) -> str:
        """The storage as text, as in `weight@8.codes`."""
        return str(self.bits)

    @property
    def label(self) -> str:
        """The storage in a level's name, as in `0.5x8b`."""
        return f"{self.bits}b"

    @property
    def words(self) -> str:
        """The storage in a sentence."""
        return f"{self.bits} bit{'' if self.bits == 1 else 's'}"

    @property
    def sign(self) -> str:
        """The storage in a cell of two or three characters."""
        return self.name

    @property
    def written(self) -> int | str:
        """What files and studies hold: a number where the name is one."""
        return int(self.name) if self.name.isdecimal() else self.name

    @property
    def is_float(self) -> bool:
        """Whether weights are stored as floats: no codes, no scales."""
        return False

    @property
    def input_bits(self) -> int:
        """Bits that the layer's input is rounded to; those of a float where it is not rounded."""
        return FLOAT_BITS

    @property
    def rounds_inputs(self) -> bool:
        """Whether the layer's input is rounded to a static grid (static activation quantization)."""
        return self.input_bits < FLOAT_BITS

    def fits_into(self, other: Storage) -> bool:
        """Whether another storage holds every value of this one exactly, with more bits."""
        return False

    @abstractmethod
    def parts(self, rows: int, columns: int, *, group_size: int) -> Mapping[str, Part]:
        """What a file holds of a weight [o i], by name; of floats the weight itself, without a name.

        group_size: weights of a row that should share a scale.
        """

    def size_bytes(self, rows: int, columns: int, *, group_size: int) -> int:
        """Bytes of a weight [o i]; `group_size` weights of a row should share a scale."""
        return sum(part.size_bytes for part in self.parts(rows, columns, group_size=group_size).values())

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Storage):
            return NotImplemented
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, int, str]:
        return self.bits, self.input_bits, self.name


def group_size_for(columns: int, wanted: int) -> int:
    """Weights per scale in a row of `columns`: the largest divisor both numbers share.

    Rows that share less than 8 with the wanted size get one scale each.

    >>> group_size_for(384, 64), group_size_for(288, 64), group_size_for(50, 64)
    (64, 32, 50)
    """
    shared = math.gcd(columns, wanted)
    return shared if shared >= 8 else columns


def dense_codes(count: int, bits: int) -> Part:
    """So many codes laid out without gaps."""
    return Part("U8", (math.ceil(count * bits / 8),))
