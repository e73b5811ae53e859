"""A search space as a file: its schema, and all of its errors at once.

`read_space(path)` gives the rules of `search_spaces/*.yaml` or of a file of the user's own."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_within
from autoprune.core.yaml_text import MOST_YAML_BYTES, NO_YAML, errors_text, parse_yaml
from autoprune.space.storage import FLOAT_BITS, OPTIONAL, STATIC8, Storage, storage_of, storages_of


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, field: pydantic.ValidationInfo) -> Any:
        """True and false are no numbers, though Python takes them for 1 and 0."""
        is_yes_or_no = cls.model_fields[str(field.field_name)].annotation is bool
        if not is_yes_or_no and any(
            isinstance(x, bool) for x in (value if isinstance(value, list) else [value])
        ):
            raise ValueError("true and false are not allowed here")
        return value


Ratio = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
Bits = Literal[2, 3, 4, 6, 8, 16]


Importance = Literal["l1", "l2", "activation", "taylor", "obs", "gates", "random", "hybrid"]
"""What says which heads, neurons or channels go first; each is a function of `compress/importance`."""

SECOND_ORDER: tuple[Importance, ...] = ("obs",)
"""The importance of a space file that names none."""


Fallback = Literal["nearest", "centroid"]
"""What a removed token is looked up as."""

NEAREST: Fallback = "nearest"
"""The fallback of a space file that names none."""

CENTROID: Fallback = "centroid"


class Prune(_Strict):
    """What is removed from a unit, and how much of it may go: 1.0 is all of it.

    by: head takes whole groups of query heads where several share a key and value head; token takes rows
    of an embedding, whose ids then stand for the nearest row that stays. fallback: of tokens: nearest leaves
    the rows that stay as they are; centroid makes the rows of rarely used tokens those of weighted k-means,
    as many as would stay. importance: what says which heads,
    neurons or channels go first, one name or several; of several each unit has at each ratio the one whose
    removal harms the answers to training rows least.
    """

    by: Literal["head", "neuron", "channel", "token"]
    ratios: Annotated[tuple[Ratio, ...], pydantic.Field(min_length=1)]

    @pydantic.field_validator("ratios")
    @classmethod
    def _with_zero(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted({0.0, *ratios}))

    fallback: Fallback = NEAREST
    importance: Annotated[tuple[Importance, ...], pydantic.Field(min_length=1)] = SECOND_ORDER

    @pydantic.field_validator("importance", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @pydantic.field_validator("importance")
    @classmethod
    def _once_each(cls, names: tuple[Importance, ...]) -> tuple[Importance, ...]:
        if len(set(names)) < len(names):
            raise ValueError("`importance` names one of them twice")
        return names

    @pydantic.model_validator(mode="after")
    def _tokens_by_use(self) -> Prune:
        if self.by == "token" and "importance" in self.model_fields_set:
            raise ValueError("`importance` is for heads, neurons and channels: tokens go by their use")
        if self.by != "token" and "fallback" in self.model_fields_set:
            raise ValueError("`fallback` is for tokens: what else is removed has nothing in its place")
        return self

    @pydantic.model_validator(mode="after")
    def _some_tokens(self) -> Prune:
        if self.by == "token" and max(self.ratios) >= 1.0:
            raise ValueError("`ratios` of tokens are below 1: some must stay")
        return self


class Quantize(_Strict):
    """Bits a unit's weights may be stored in; `group_size` weights of a row share a scale.

    activations: 8 also offers 8-bit weights that are multiplied with 8-bit activations. also: further ways of
    storing by name, such as codebook16, of which a target offers those that it has.
    """

    bits: Annotated[tuple[Bits, ...], pydantic.Field(min_length=1)]
    group_size: Literal[8, 16, 32, 64, 128] = 64
    activations: Literal[8] | None = None
    also: tuple[str, ...] = ()

    @pydantic.field_validator("also")
    @classmethod
    def _known(cls, also: tuple[str, ...]) -> tuple[str, ...]:
        known = [storage.name for storage in OPTIONAL]
        if unknown := [name for name in also if name not in known]:
            raise ValueError(f"no way of storing is named {unknown[0]!r}; choose from {', '.join(known)}")
        return also

    @pydantic.field_validator("bits")
    @classmethod
    def _with_float(cls, bits: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted({FLOAT_BITS, *bits}, key=storage_of))

    @pydantic.model_validator(mode="after")
    def _coupled(self) -> Quantize:
        if self.activations is not None and self.activations not in self.bits:
            raise ValueError("`activations: 8` goes with 8-bit weights, and `bits` has no 8")
        return self

    @property
    def storages(self) -> tuple[Storage, ...]:
        """How a unit's weights may be stored, the widest first."""
        static = [] if self.activations is None else [STATIC8.written]
        return storages_of([*self.bits, *static, *self.also])


class UnitRule(_Strict):
    """Which modules form a unit: `rows` lose output features, `cols` the matching input features.

    at: path of a module below the model, in which `*` is one part; not the model itself, whose own layers go
    into a Sequential to be a unit. rows, cols: paths below `at`, or self for it. tied: path of the output
    layer that shares an embedding's weight. optional: whether models of the family may be without it, as
    heads differ from task to task. common: of an embedding: its tokens that make up this share of the
    training text are a unit of their own, stored apart from the rare ones, which alone are removed.
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
    """The brief fine-tune of a trial.

    weight_decay: share of the weights, times the learning rate, that each step takes away (AdamW).
    dropout: of the model's own dropout layers.
    """

    steps: Annotated[int, pydantic.Field(ge=0)] = 60
    batch_size: Annotated[int, pydantic.Field(ge=1)] = 32
    learning_rate: Annotated[float, pydantic.Field(gt=0.0)] = 3e-5
    weight_decay: Annotated[float, pydantic.Field(ge=0.0)] = 0.0
    dropout: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.0


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
        text = read_within(path, MOST_YAML_BYTES)
    except (OSError, ValueError) as error:
        raise AutopruneError(f"space file {path} cannot be read: {error}") from error
    try:
        data, lines = parse_yaml(text)
    except NO_YAML as error:
        raise AutopruneError(f"space file {path} is not YAML: {error}") from error
    cause: pydantic.ValidationError | None = None
    try:
        space = SpaceFile.model_validate(data)
    except pydantic.ValidationError as error:
        lines += [_explain(dict(problem)) for problem in error.errors() if not _follows(dict(problem))]
        cause = error
    if lines:
        raise AutopruneError(errors_text(f"space file {path}", lines)) from cause
    return space


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
    return f"{where or 'file'}: {message[:1].lower()}{message[1:]}, got {_shown(error['input'])}"


def _shown(value: object) -> str:
    """A value in a message: all of one that is short, and no more of one that is not."""
    try:
        return repr(value) if isinstance(value, str | float | bool | None) else reprlib.repr(value)
    except ValueError:  # Python prints no integer of thousands of digits
        return "a number of very many digits"
