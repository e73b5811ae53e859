"""How a weight is stored: bits, bytes, and what it does to the inputs. Plain data and arithmetic on shapes.

A `Storage` says nothing of values: `compress` makes a weight of it, and each target writes that weight.
Files, studies and caches hold a storage as a number of bits (4) or as a name ("w8a8"): `Storage.written`
gives what they hold, and `storage_of` reads it.

Shapes: o output features (rows), i input features (columns) of a weight as a matrix [o i].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import total_ordering

FLOAT_BITS = 32
"""Bits of a weight that is left as it came, and of an input that is not rounded."""

_FEWEST_FLOAT_BITS = 16
"""Bits from which a number stands for floats; below it stands for integers."""

_STATIC8 = "w8a8"


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
    def size_bytes(self, rows: int, columns: int, *, group_size: int) -> int:
        """Bytes of a weight [o i]; `group_size` weights of a row should share a scale."""

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Storage):
            return NotImplemented
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, int, str]:
        return self.bits, self.input_bits, self.name


@dataclass(frozen=True)
class Floats(Storage):
    """Floats of 32 or 16 bits."""

    @property
    def is_float(self) -> bool:
        return True

    def size_bytes(self, rows: int, columns: int, *, group_size: int) -> int:
        return rows * columns * self.bits // 8


@dataclass(frozen=True)
class GroupedIntegers(Storage):
    """Integers with a half-float scale and a zero point for each group of a row (weight-only quantization).

    >>> GroupedIntegers(4).size_bytes(384, 384, group_size=64)  # 73728 codes, 4608 scales, 1152 zeros
    79488
    """

    def fits_into(self, other: Storage) -> bool:
        return isinstance(other, GroupedIntegers) and other.bits > self.bits

    def size_bytes(self, rows: int, columns: int, *, group_size: int) -> int:
        return _integer_bytes(rows, columns, self.bits, group_size_for(columns, group_size))


@dataclass(frozen=True)
class StaticIntegers(Storage):
    """8-bit integers with a scale a row, multiplied with inputs on a static 8-bit grid (w8a8)."""

    bits: int = 8

    @property
    def name(self) -> str:
        return _STATIC8

    @property
    def label(self) -> str:
        return _STATIC8

    @property
    def words(self) -> str:
        return "8-bit weights and activations"

    @property
    def input_bits(self) -> int:
        return 8

    def size_bytes(self, rows: int, columns: int, *, group_size: int) -> int:
        return _integer_bytes(rows, columns, self.bits, columns)


FLOAT32, FLOAT16 = Floats(FLOAT_BITS), Floats(16)

STATIC8 = StaticIntegers()

_NAMED: dict[str, Storage] = {storage.name: storage for storage in (STATIC8,)}
"""Storages that a number of bits does not tell."""


def storage_of(written: object) -> Storage:
    """The storage that a file or a study holds (inverse of `Storage.written` and of `Storage.name`).

    >>> storage_of(4), storage_of("8").name, storage_of("w8a8") == STATIC8
    (GroupedIntegers(bits=4), '8', True)

    Raises:
        ValueError: when it is no storage.
    """
    if isinstance(written, str) and written in _NAMED:
        return _NAMED[written]
    try:
        bits = int(written)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        named = " or ".join(repr(name) for name in _NAMED)
        raise ValueError(f"{written!r} is no storage; a number of bits or {named} is one") from error
    return Floats(bits) if bits >= _FEWEST_FLOAT_BITS else GroupedIntegers(bits)


def storages_of(written: Iterable[object]) -> tuple[Storage, ...]:
    """Several storages as files hold them, each once, the widest first.

    >>> [storage.name for storage in storages_of((4, 8, "w8a8", 32, 4))]
    ['32', '8', 'w8a8', '4']
    """
    return widest_first(storage_of(storage) for storage in written)


def widest_first(storages: Iterable[Storage]) -> tuple[Storage, ...]:
    """Each storage once, from the most bits to the fewest."""
    return tuple(sorted(set(storages), reverse=True))


def group_size_for(columns: int, wanted: int) -> int:
    """Weights per scale in a row of `columns`: the largest divisor both numbers share.

    Rows that share less than 8 with the wanted size get one scale each.

    >>> group_size_for(384, 64), group_size_for(288, 64), group_size_for(50, 64)
    (64, 32, 50)
    """
    shared = math.gcd(columns, wanted)
    return shared if shared >= 8 else columns


def _integer_bytes(rows: int, columns: int, bits: int, group_size: int) -> int:
    """Bytes of codes, and of a scale and a zero point for each group."""
    groups = rows * (columns // group_size)
    return math.ceil(rows * columns * bits / 8) + 2 * groups + math.ceil(groups * bits / 8)
