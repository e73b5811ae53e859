"""Levels, candidates and the search space: what may be tried, as plain data.

A *unit* is what is compressed together; a *level* says how hard; a *candidate* is a level for every
unit. A space file (YAML) says which modules of a model form units and which levels they may take.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

from autoprune.core.errors import AutopruneError

FLOAT_BITS = 32
"""Bits of a weight that is left as it came."""

STORED_BITS = (2, 3, 4, 6, 8, 16)
"""Bits a weight can be stored in; below 16 they are integers with a scale per group."""

INTEGER = "w8a8"
"""How files and studies write 8-bit weights that are multiplied with 8-bit activations."""

Width = int | str
"""Bits of a weight, or `INTEGER`."""


@dataclass(frozen=True, order=True)
class Level:
    """How hard one unit is compressed: share of its rows removed, and bits of each weight kept.

    activations: bits of what the weights are multiplied with: 8, with 8-bit weights alone, or float.

    >>> str(Level(0.5, 8, 8)), Level.of(0.5, "w8a8") == Level(0.5, 8, 8), Level(0.5, 8).width
    ('0.5xw8a8', True, 8)
    """

    ratio: float = 0.0
    bits: int = FLOAT_BITS
    activations: int = FLOAT_BITS

    @property
    def is_integer(self) -> bool:
        """Whether integers are multiplied with integers."""
        return self.activations < FLOAT_BITS

    @property
    def width(self) -> Width:
        """Bits, of weights and activations, as files and studies write them."""
        return INTEGER if self.is_integer else self.bits

    @classmethod
    def of(cls, ratio: float, width: Width) -> Level:
        """The level of a ratio and a width (inverse of `width`)."""
        return cls(ratio, 8, 8) if width == INTEGER else cls(ratio, int(width))

    def __str__(self) -> str:
        return f"{self.ratio:g}x{INTEGER}" if self.is_integer else f"{self.ratio:g}x{self.bits}b"


UNTOUCHED = Level()


@dataclass(frozen=True)
class Candidate:
    """A level for every unit, in the order of the search space. Hashable.

    >>> one = Candidate((("a", Level(0.5, 4)), ("b", UNTOUCHED)))
    >>> one.params()
    {'a.ratio': 0.5, 'a.bits': 4, 'b.ratio': 0.0, 'b.bits': 32}
    >>> Candidate.from_params(one.params()) == one
    True
    """

    items: tuple[tuple[str, Level], ...]

    def __getitem__(self, unit: str) -> Level:
        return dict(self.items)[unit]

    def with_level(self, unit: str, level: Level) -> Candidate:
        """The same candidate with another level for one unit."""
        return Candidate(tuple((name, level if name == unit else old) for name, old in self.items))

    def params(self) -> dict[str, float | Width]:
        """The parameters of an Optuna trial: `<unit>.ratio` and `<unit>.bits`."""
        pairs: dict[str, float | Width] = {}
        for name, level in self.items:
            pairs[f"{name}.ratio"] = level.ratio
            pairs[f"{name}.bits"] = level.width
        return pairs

    @classmethod
    def from_params(cls, params: Mapping[str, float | Width]) -> Candidate:
        """The candidate of an Optuna trial's parameters (inverse of `params`)."""
        names = dict.fromkeys(key.rpartition(".")[0] for key in params)
        return cls(
            tuple(
                (name, Level.of(float(params[f"{name}.ratio"]), cast(Width, params[f"{name}.bits"])))
                for name in names
            )
        )


@dataclass(frozen=True)
class Choices:
    """What one unit may be set to: every ratio with every width. `integer`: 8-bit activations too."""

    unit: str
    ratios: tuple[float, ...]
    bits: tuple[int, ...]
    integer: bool = False

    @property
    def widths(self) -> tuple[Width, ...]:
        """Widths of a level, the widest first."""
        bits = sorted(self.bits, reverse=True)
        after = sum(b >= 8 for b in bits)
        return (*bits[:after], *([INTEGER] if self.integer else []), *bits[after:])

    def levels(self) -> Iterator[Level]:
        """All levels, untouched first."""
        for ratio, width in itertools.product(sorted(self.ratios), self.widths):
            yield Level.of(ratio, width)

    def nearest(self, level: Level) -> Level:
        """The offered level nearest to another, ratio and bits apart; of equal ones the wider."""
        ratio = min(self.ratios, key=lambda r: (abs(r - level.ratio), r))
        bits = min(self.bits, key=lambda b: (abs(b - level.bits), -b))
        return Level.of(ratio, INTEGER if level.is_integer and self.integer else bits)


@dataclass(frozen=True)
class SearchSpace:
    """The units of one model with their choices, in the model's order."""

    units: tuple[Choices, ...]

    def uniform(self, level: Level) -> Candidate:
        """Every unit at the level nearest to `level` that it offers (ratio and bits apart)."""
        return Candidate(tuple((one.unit, one.nearest(level)) for one in self.units))

    def untouched(self) -> Candidate:
        """The original model."""
        return Candidate(tuple((one.unit, UNTOUCHED) for one in self.units))

    def only(self, widths: frozenset[Width]) -> SearchSpace:
        """The same units with no other widths than these and float."""
        kept, integer = widths | {FLOAT_BITS}, INTEGER in widths
        pairs = ((u, tuple(b for b in u.bits if b in kept)) for u in self.units)
        return SearchSpace(tuple(replace(u, bits=bits, integer=u.integer and integer) for u, bits in pairs))

    def check(self, candidate: Candidate) -> None:
        """Raise `AutopruneError` where a candidate is not one of this space."""
        if [name for name, _ in candidate.items] != [one.unit for one in self.units]:
            raise AutopruneError("the candidate's units are not those of this search space")
        for (name, level), one in zip(candidate.items, self.units, strict=True):
            if level.ratio not in one.ratios or level.width not in one.widths:
                offered = f"ratios {list(one.ratios)}, bits {list(one.widths[::-1])}"
                raise AutopruneError(f"{name}: level {level} is not offered; {offered}")


def is_untouched(candidate: Candidate) -> bool:
    """Whether a candidate is the original."""
    return all(level == UNTOUCHED for _, level in candidate.items)
