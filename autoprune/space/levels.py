"""Levels, candidates and the search space: what may be tried, as plain data.

A *unit* is what is compressed together; a *level* says how hard; a *candidate* is a level for every
unit. A space file (YAML) says which modules of a model form units and which levels they may take.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from autoprune.core.errors import AutopruneError
from autoprune.space.storage import FLOAT32, Storage, storage_of


@dataclass(frozen=True, order=True)
class Level:
    """How hard one unit is compressed: share of its rows removed, and how its weights are stored.

    >>> str(Level.of(0.5, "w8a8")), str(Level.of(0.5, 8)), Level.of(0.0, 32) == Level()
    ('0.5xw8a8', '0.5x8b', True)
    """

    ratio: float = 0.0
    storage: Storage = FLOAT32

    @classmethod
    def of(cls, ratio: float, written: object) -> Level:
        """The level of a ratio and a storage as files and studies hold it."""
        return cls(ratio, storage_of(written))

    def __str__(self) -> str:
        return f"{self.ratio:g}x{self.storage.label}"


UNTOUCHED = Level()


@dataclass(frozen=True)
class Candidate:
    """A level for every unit, in the order of the search space. Hashable.

    >>> candidate = Candidate((("a", Level.of(0.5, 4)), ("b", UNTOUCHED)))
    >>> candidate.params()
    {'a.ratio': 0.5, 'a.bits': 4, 'b.ratio': 0.0, 'b.bits': 32}
    >>> Candidate.from_params(candidate.params()) == candidate
    True
    """

    items: tuple[tuple[str, Level], ...]

    def __hash__(self) -> int:
        try:
            return self.__dict__["_hash"]  # type: ignore[no-any-return]
        except KeyError:
            object.__setattr__(self, "_hash", hash(self.items))
            return hash(self.items)

    def __reduce__(self) -> tuple[type[Candidate], tuple[object, ...]]:
        return Candidate, (self.items,)  # a hash of texts is another in each process

    def __getitem__(self, unit: str) -> Level:
        return dict(self.items)[unit]

    def with_level(self, unit: str, level: Level) -> Candidate:
        """The same candidate with another level for one unit."""
        return Candidate(tuple((name, level if name == unit else old) for name, old in self.items))

    def params(self) -> dict[str, float | int | str]:
        """The parameters of an Optuna trial: `<unit>.ratio` and `<unit>.bits`."""
        pairs: dict[str, float | int | str] = {}
        for name, level in self.items:
            pairs[f"{name}.ratio"] = level.ratio
            pairs[f"{name}.bits"] = level.storage.written
        return pairs

    @classmethod
    def from_params(cls, params: Mapping[str, float | int | str]) -> Candidate:
        """The candidate of an Optuna trial's parameters (inverse of `params`)."""
        names = dict.fromkeys(key.rpartition(".")[0] for key in params)
        return cls(
            tuple((name, Level.of(float(params[f"{name}.ratio"]), params[f"{name}.bits"])) for name in names)
        )


@dataclass(frozen=True)
class Choices:
    """What one unit may be set to: every ratio with every storage. `storages`: the widest first."""

    unit: str
    ratios: tuple[float, ...]
    storages: tuple[Storage, ...]

    def levels(self) -> Iterator[Level]:
        """All levels, untouched first."""
        for ratio, storage in itertools.product(sorted(self.ratios), self.storages):
            yield Level(ratio, storage)

    def nearest(self, level: Level) -> Level:
        """The offered level nearest to another, ratio and storage apart; of equally near storages the wider.

        A storage that is not offered is replaced by one that leaves inputs as they are; of those with as many
        bits by the one that a number stands for.
        """
        ratio = min(self.ratios, key=lambda r: (abs(r - level.ratio), r))
        if level.storage in self.storages:
            return Level(ratio, level.storage)
        plain = (storage for storage in self.storages if not storage.rounds_inputs)
        wanted = level.storage.bits
        nearest = min(plain, key=lambda s: (abs(s.bits - wanted), -s.bits, isinstance(s.written, str)))
        return Level(ratio, nearest)


@dataclass(frozen=True)
class SearchSpace:
    """The units of one model with their choices, in the model's order."""

    units: tuple[Choices, ...]

    def uniform(self, level: Level) -> Candidate:
        """Every unit at the level nearest to `level` that it offers (ratio and storage apart)."""
        return Candidate(tuple((choices.unit, choices.nearest(level)) for choices in self.units))

    def untouched(self) -> Candidate:
        """The original model."""
        return Candidate(tuple((choices.unit, UNTOUCHED) for choices in self.units))

    def only(self, storages: AbstractSet[Storage]) -> SearchSpace:
        """The same units with no other storages than these and float32."""
        kept = storages | {FLOAT32}
        return SearchSpace(
            tuple(
                replace(choices, storages=tuple(storage for storage in choices.storages if storage in kept))
                for choices in self.units
            )
        )

    def check(self, candidate: Candidate) -> None:
        """Raise `AutopruneError` where a candidate is not one of this space."""
        if [name for name, _ in candidate.items] != [choices.unit for choices in self.units]:
            raise AutopruneError("the candidate's units are not those of this search space")
        for (name, level), choices in zip(candidate.items, self.units, strict=True):
            if level.ratio not in choices.ratios or level.storage not in choices.storages:
                bits = [storage.written for storage in reversed(choices.storages)]
                raise AutopruneError(
                    f"{name}: level {level} is not offered; ratios {list(choices.ratios)}, bits {bits}"
                )


def is_untouched(candidate: Candidate) -> bool:
    """Whether a candidate is the original."""
    return all(level == UNTOUCHED for _, level in candidate.items)
