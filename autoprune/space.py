"""Levels, candidates and the search space: what may be tried, as plain data.

A *unit* is what is compressed together; a *level* says how hard; a *candidate* is a level for every
unit. A space file (YAML) says which modules of a model form units and which levels they may take.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, cast

import pydantic
import yaml

from autoprune.errors import AutopruneError

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


# ---- the space file -----------------------------------------------------------------------------


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


Ratio = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
Bits = Literal[2, 3, 4, 6, 8, 16]


class Prune(_Strict):
    """What is removed from a unit, and how much of it may go: 1.0 is all of it.

    by: head takes whole groups of query heads where several share a key and value head; token takes rows
    of an embedding, whose ids then stand for the nearest row that stays.
    """

    by: Literal["head", "neuron", "channel", "token"]
    ratios: Annotated[tuple[Ratio, ...], pydantic.Field(min_length=1)]

    @pydantic.field_validator("ratios")
    @classmethod
    def _with_zero(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted({0.0, *ratios}))

    @pydantic.model_validator(mode="after")
    def _some_tokens(self) -> Prune:
        if self.by == "token" and max(self.ratios) >= 1.0:
            raise ValueError("`ratios` of tokens are below 1: some must stay")
        return self


class Quantize(_Strict):
    """Bits a unit's weights may be stored in; `group_size` weights of a row share a scale.

    activations: 8 also offers 8-bit weights that are multiplied with 8-bit activations.
    """

    bits: Annotated[tuple[Bits, ...], pydantic.Field(min_length=1)]
    group_size: Literal[8, 16, 32, 64, 128] = 64
    activations: Literal[8] | None = None

    @pydantic.field_validator("bits")
    @classmethod
    def _with_float(cls, bits: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted({FLOAT_BITS, *bits}))

    @pydantic.model_validator(mode="after")
    def _coupled(self) -> Quantize:
        if self.activations is not None and self.activations not in self.bits:
            raise ValueError("`activations: 8` goes with 8-bit weights, and `bits` has no 8")
        return self


class UnitRule(_Strict):
    """Which modules form a unit: `rows` lose output features, `cols` the matching input features.

    tied: path of the output layer that shares an embedding's weight. optional: whether models of the family
    may be without it, as heads differ from task to task. common: of an embedding: its tokens that make up
    this share of the training text are a unit of their own, stored apart from the rare ones, which alone
    are removed.
    """

    at: Annotated[str, pydantic.Field(min_length=1)]
    rows: tuple[str, ...] = ()
    cols: tuple[str, ...] = ()
    tied: str = ""
    optional: bool = False
    common: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] | None = None
    prune: Prune | None = None
    quantize: Quantize

    @pydantic.model_validator(mode="after")
    def _coupled(self) -> UnitRule:
        by_token = self.prune is not None and self.prune.by == "token"
        if self.prune is not None and not by_token and not (self.rows and self.cols):
            raise ValueError("`prune` needs `rows` and `cols`: what is removed, and where it went")
        if by_token and (self.rows or self.cols or self.tied):
            raise ValueError("`prune: {by: token}` is for an embedding alone: no `rows`, `cols` or `tied`")
        if self.common is not None and (self.rows or self.cols or self.tied):
            raise ValueError("`common` is for an embedding alone: no `rows`, `cols` or `tied`")
        return self


class Finetune(_Strict):
    """The brief fine-tune of a trial."""

    steps: Annotated[int, pydantic.Field(ge=0)] = 60
    batch_size: Annotated[int, pydantic.Field(ge=1)] = 32
    learning_rate: Annotated[float, pydantic.Field(gt=0.0)] = 3e-5


class SpaceFile(_Strict):
    """A search space as written: rules by module path, first match wins.

    types: other types of model (`config.model_type`) that it is for, beside that of its file's name.
    """

    version: Literal[1]
    types: tuple[str, ...] = ()
    units: Annotated[dict[str, UnitRule], pydantic.Field(min_length=1)]
    finetune: Finetune = Finetune()


def read_space(path: Path) -> SpaceFile:
    """Read and check a space file.

    Raises:
        AutopruneError: naming the file and every error in it at once.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise AutopruneError(f"space file {path} cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:  # PyYAML lets them out
        raise AutopruneError(f"space file {path} is not YAML: {error}") from error
    try:
        return SpaceFile.model_validate(data)
    except pydantic.ValidationError as error:
        lines = [_explain(dict(one)) for one in error.errors() if not _follows(dict(one))]
        plural = "error" if len(lines) == 1 else "errors"
        raise AutopruneError(
            f"space file {path} has {len(lines)} {plural}:\n  " + "\n  ".join(lines)
        ) from error


def _follows(error: Mapping[str, object]) -> bool:
    """Whether an error only says that a list is empty once its wrong entries are left out."""
    return error["type"] == "too_short" and bool(error["input"])


def _explain(error: Mapping[str, object]) -> str:
    """One line for one error of pydantic: where, what is allowed, what came."""
    where = ".".join(str(part) for part in error["loc"])  # type: ignore[attr-defined]
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{where}: no such key here; see search_spaces/bert.yaml for those that exist"
    if error["type"] == "missing":
        return f"{where}: is missing"
    return f"{where or 'file'}: {message[:1].lower()}{message[1:]}, got {error['input']!r}"
