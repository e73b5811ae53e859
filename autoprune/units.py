"""A model and a space file -> the ordered units of that model.

A unit's weights are named by module path. `rows` lose output features when heads or neurons are
removed, `cols` the matching input features; a unit that is only quantized has `rows` alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from autoprune.compress.integers import stored_bytes
from autoprune.errors import AutopruneError
from autoprune.space import Choices, Level, SearchSpace, SpaceFile, UnitRule

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Weight:
    """One matrix of a unit: its module's path, and shape as it came [o i]; a look-up or a product."""

    path: str
    rows: int
    columns: int
    has_bias: bool
    is_embedding: bool = False


@dataclass(frozen=True)
class Unit:
    """What is compressed together. `block` rows go at a time (a head's size; 1 for neurons)."""

    name: str
    kind: str
    rows: tuple[Weight, ...]
    cols: tuple[Weight, ...]
    block: int
    keep_multiple: int
    group_size: int
    ratios: tuple[float, ...]
    bits: tuple[int, ...]
    integer: bool = False
    """Whether 8-bit weights may be multiplied with 8-bit activations."""

    @property
    def weights(self) -> tuple[Weight, ...]:
        """All matrices of the unit."""
        return self.rows + self.cols

    @property
    def choices(self) -> Choices:
        """What the unit may be set to, whatever the target."""
        return Choices(self.name, self.ratios, self.bits, self.integer)

    def levels(self, ratio: float | None = None) -> list[Level]:
        """All levels, or those of one ratio, untouched first."""
        return [one for one in self.choices.levels() if ratio is None or one.ratio == ratio]

    @property
    def prunable(self) -> bool:
        """Whether rows can be removed."""
        return bool(self.cols)

    def kept(self, ratio: float) -> int:
        """Output features that stay: whole blocks, rounded to `keep_multiple`, never none; or all."""
        total = self.rows[0].rows
        step = max(self.block, self.keep_multiple)
        return total if ratio == 0 else min(total, max(step, round(total * (1 - ratio) / step) * step))

    def shapes(self, ratio: float) -> dict[str, tuple[int, int]]:
        """Shape [o i] of each matrix once `ratio` of the rows is gone."""
        kept = self.kept(ratio)
        out = {w.path: (kept if self.prunable else w.rows, w.columns) for w in self.rows}
        return out | {w.path: (w.rows, kept) for w in self.cols}

    def size_bytes(self, level: Level) -> int:
        """Bytes of the unit's weights and biases at a level, file overhead not counted."""
        shapes = self.shapes(level.ratio)
        weights = sum(
            stored_bytes(o, i, bits=level.bits, group_size=i if level.is_integer else self.group_size)
            for o, i in shapes.values()
        )
        biases = sum(shapes[w.path][0] for w in self.weights if w.has_bias)
        return weights + FLOAT_BYTES * biases


def find_units(model: nn.Module, file: SpaceFile, *, source: str) -> tuple[Unit, ...]:
    """Match a space file's rules against a model's modules, in the model's order.

    Args:
        model: may be on the meta device; only names and shapes are read.
        file: the rules; the first that matches a path takes it.
        source: the space file's name, for messages.

    Raises:
        AutopruneError: with every rule that does not fit the model.
    """
    modules = dict(model.named_modules())
    prefix = str(getattr(model, "base_model_prefix", ""))
    found: list[Unit] = []
    errors: list[str] = []
    taken: set[str] = set()
    for kind, rule in file.units.items():
        pattern = re.compile(re.escape(rule.at).replace(r"\*", r"[^.]+"))
        places = [path for path in modules if pattern.fullmatch(path)]
        if not places:
            errors.append(f"units.{kind}: no module matches {rule.at!r}")
        for place in places:
            try:
                unit = _unit(model, modules, place, kind, rule, prefix)
            except AutopruneError as error:
                errors.append(f"units.{kind}: {error}")
                break
            if not any(w.path in taken for w in unit.weights):
                taken.update(w.path for w in unit.weights)
                found.append(unit)
    if errors:
        raise AutopruneError(
            f"space file {source} does not fit this model ({type(model).__name__}):\n  " + "\n  ".join(errors)
        )
    order = {path: k for k, path in enumerate(modules)}
    return tuple(sorted(found, key=lambda unit: order[unit.rows[0].path]))


def _unit(
    model: nn.Module,
    modules: dict[str, nn.Module],
    place: str,
    kind: str,
    rule: UnitRule,
    prefix: str,
) -> Unit:
    rows = tuple(_weight(modules, _join(place, part)) for part in rule.rows or ("",))
    cols = tuple(_weight(modules, _join(place, part)) for part in rule.cols)
    for one in rows if cols else ():
        if one.rows != rows[0].rows:
            raise AutopruneError(f"{one.path} gives {one.rows} features, but {rows[0].path} {rows[0].rows}")
    for one in cols:
        if one.columns != rows[0].rows:
            raise AutopruneError(
                f"{one.path} takes {one.columns} features, but {rows[0].path} gives {rows[0].rows}"
            )
    name = place.removeprefix(f"{prefix}.") if prefix else place
    name = name if name.rpartition(".")[2] == kind or not rule.cols else f"{name}.{kind}"
    block = _head_size(model) if rule.prune is not None and rule.prune.by == "head" else 1
    if rows[0].rows % block:
        raise AutopruneError(f"{rows[0].path}: {rows[0].rows} rows are not whole heads of {block}")
    size = rule.quantize.group_size
    return Unit(
        name=name,
        kind=kind,
        rows=rows if rule.prune is not None else rows + cols,
        cols=cols if rule.prune is not None else (),
        block=block,
        keep_multiple=block if block > 1 else min(size, rows[0].rows),
        group_size=size,
        ratios=rule.prune.ratios if rule.prune is not None else (0.0,),
        bits=rule.quantize.bits,
        integer=rule.quantize.activations is not None,
    )


def _join(place: str, part: str) -> str:
    return f"{place}.{part}" if part else place


def _weight(modules: dict[str, nn.Module], path: str) -> Weight:
    module = modules.get(path)
    if module is None:
        raise AutopruneError(f"the model has no module {path!r}")
    if not isinstance(module, nn.Linear | nn.Embedding):
        raise AutopruneError(f"{path} is a {type(module).__name__}; a Linear or Embedding is needed")
    rows, columns = module.weight.shape
    has_bias = getattr(module, "bias", None) is not None
    return Weight(path, rows, columns, has_bias, isinstance(module, nn.Embedding))


def _head_size(model: nn.Module) -> int:
    config: Any = getattr(model, "config", None)
    given = getattr(config, "head_dim", None)
    if given:
        return int(given)
    try:
        return int(config.hidden_size) // int(config.num_attention_heads)
    except (AttributeError, TypeError, ZeroDivisionError) as error:
        raise AutopruneError("the model's config does not say how large a head is") from error


def search_space(units: Sequence[Unit], offers: Callable[[Unit, Level], bool]) -> SearchSpace:
    """What may be tried: the units' levels, less what a target does not offer, ratio and width apart."""
    return SearchSpace(
        tuple(
            Choices(
                u.name,
                tuple(r for r in u.ratios if offers(u, Level(r))),
                tuple(b for b in u.bits if offers(u, Level(0.0, b))),
                integer=u.integer and offers(u, Level(0.0, 8, 8)),
            )
            for u in units
        )
    )
