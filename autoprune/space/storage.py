"""How a weight is stored: bits, bytes, and what it does to the inputs. Plain data and arithmetic on shapes.

A `Storage` says nothing of values: `compress` makes a weight of it, and each target writes that weight.
Files, studies and caches hold a storage as a number of bits (4) or as a name ("w8a8"): `Storage.written`
gives what they hold, and `storage_of` reads it.

Shapes: o output features (rows), i input features (columns) of a weight as a matrix [o i].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autoprune.space.fixed_grid_storages import MicroscalingFloats, NormalFloats, SymmetricIntegers
from autoprune.space.low_rank_storages import Corrected, LowRank
from autoprune.space.named_storages import Codebook, Sparse, Ternary, Vectors
from autoprune.space.storage_base import FLOAT_BITS as FLOAT_BITS
from autoprune.space.storage_base import Part as Part
from autoprune.space.storage_base import Storage as Storage
from autoprune.space.storage_base import dense_codes
from autoprune.space.storage_base import group_size_for as group_size_for

_FEWEST_FLOAT_BITS = 16
"""Bits from which a number stands for floats; below it stands for integers."""

_STATIC8 = "w8a8"

WHOLE_ROW = -1
"""Stands for all weights of a row, however many."""

_GROUP_WORDS = {32: "32 weights", 64: "64 weights", 128: "128 weights", WHOLE_ROW: "each row"}
_GROUP_SIGNS = {32: "f", 64: "m", 128: "w", WHOLE_ROW: "r"}


@dataclass(frozen=True)
class Floats(Storage):
    """Floats of 32 or 16 bits."""

    @property
    def is_float(self) -> bool:
        return True

    def parts(self, rows: int, columns: int, *, group_size: int) -> Mapping[str, Part]:
        return {"": Part(f"F{self.bits}", (rows, columns))}


@dataclass(frozen=True)
class GroupedIntegers(Storage):
    """Integers with a half-float scale and a zero point for each group of a row (weight-only quantization).

    group: weights of a row that should share a scale, `WHOLE_ROW` for all; 0 as the unit's space file says.

    >>> GroupedIntegers(4).size_bytes(384, 384, group_size=64)  # 73728 codes, 4608 scales, 1152 zeros
    79488
    >>> GroupedIntegers(4, 128).name, GroupedIntegers(4, WHOLE_ROW).name
    ('4g128', '4row')
    """

    group: int = 0

    @property
    def name(self) -> str:
        if not self.group:
            return str(self.bits)
        return f"{self.bits}row" if self.group == WHOLE_ROW else f"{self.bits}g{self.group}"

    @property
    def label(self) -> str:
        return self.name if self.group else super().label

    @property
    def words(self) -> str:
        if not self.group:
            return super().words
        return f"{self.bits} bits with a scale for {_GROUP_WORDS[self.group]}"

    @property
    def sign(self) -> str:
        return f"{self.bits}{_GROUP_SIGNS[self.group]}" if self.group else self.name

    def columns_of_scale(self, columns: int, group_size: int) -> int:
        """How many weights of a row share a scale."""
        return columns if self.group == WHOLE_ROW else group_size_for(columns, self.group or group_size)

    def fits_into(self, other: Storage) -> bool:
        return isinstance(other, GroupedIntegers) and other.bits > self.bits and other.group == self.group

    def parts(self, rows: int, columns: int, *, group_size: int) -> Mapping[str, Part]:
        return _integer_parts(rows, columns, self.bits, self.columns_of_scale(columns, group_size))


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
    def sign(self) -> str:
        return "8a"

    @property
    def input_bits(self) -> int:
        return 8

    def parts(self, rows: int, columns: int, *, group_size: int) -> Mapping[str, Part]:
        return _integer_parts(rows, columns, self.bits, columns)


FLOAT32, FLOAT16 = Floats(FLOAT_BITS), Floats(16)

STATIC8 = StaticIntegers()

OPTIONAL: tuple[Storage, ...] = (
    *(Codebook(bits, is_shared) for is_shared in (False, True) for bits in (2, 3, 4)),
    Codebook(8, is_shared=True),
    *(Vectors.of(length, values) for length, values in ((2, 16), (2, 64), (2, 256), (4, 256))),
    *(GroupedIntegers(bits, group) for bits in (2, 3, 4) for group in _GROUP_WORDS),
    Ternary(),
    *(Sparse.of_kept(bits, kept, of) for kept, of in ((2, 4), (32, 64)) for bits in (3, 4, 6)),
    *(LowRank.of_percent(percent) for percent in (12, 25, 50)),
    *(Corrected(bits, rank) for bits in (2, 3) for rank in (4, 8)),
    NormalFloats(),
    MicroscalingFloats(),
    *(SymmetricIntegers(bits) for bits in (2, 3, 4, 6, 8)),
)
"""Storages that a space file offers by their names."""

_NAMED: dict[str, Storage] = {storage.name: storage for storage in (STATIC8, *OPTIONAL)}
"""Storages that a number of bits does not tell."""


def storage_of(written: object) -> Storage:
    """The storage that a file or a study holds (inverse of `Storage.written` and of `Storage.name`).

    >>> storage_of(4), storage_of("8").name, storage_of("w8a8") == STATIC8
    (GroupedIntegers(bits=4, group=0), '8', True)

    Raises:
        ValueError: when it is no storage.
    """
    if isinstance(written, str) and written in _NAMED:
        return _NAMED[written]
    try:
        bits = int(written)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        named = ", ".join(repr(name) for name in _NAMED)
        raise ValueError(f"{written!r} is no storage; a number of bits is one, and {named}") from error
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


def _integer_parts(rows: int, columns: int, bits: int, group_size: int) -> dict[str, Part]:
    """Codes, and a scale and a zero point for each group."""
    groups = columns // group_size
    scale = Part("F16", (rows, groups))
    return {
        "codes": dense_codes(rows * columns, bits),
        "scale": scale,
        "zero": dense_codes(rows * groups, bits),
    }
