"""A model and a space file -> the ordered units of that model.

A unit's weights are named by module path. `rows` lose output features when pieces (heads, groups of heads,
neurons, channels) are removed, `cols` the matching input features; a unit that is only quantized has `rows`
alone, and so has one of tokens, whose rows are looked up by number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.models.attention import head_size_at
from autoprune.models.row_lookup import lookup_obstacle
from autoprune.models.split_embedding import COMMON, RARE, Parted
from autoprune.models.unit import Unit, Weight
from autoprune.space.levels import Choices, Level, SearchSpace
from autoprune.space.space_file import NEAREST, SECOND_ORDER, SpaceFile, UnitRule

CHANNEL_STEP = 8
"""Channels are kept in multiples of this, which kernels like."""


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
    fitting: list[Unit] = []
    errors: list[str] = []
    taken, tied = set[str](), set[str]()
    for kind, rule in file.units.items():
        places = _places(rule.at, modules, prefix)
        if not places and not rule.optional:
            errors.append(f"units.{kind}: no module matches {rule.at!r}")
        found, shared = len(fitting), set[str]()
        for place in places:
            paths = _paths(place, rule)
            shared |= taken & paths - tied
            if taken & paths or (rule.optional and not paths <= modules.keys()):
                continue
            try:
                units = _units(model, modules, place, kind, rule, prefix)
            except AutopruneError as error:
                errors.append(f"units.{kind}: {error}")
                break
            tied |= {w.tied for unit in units for w in unit.weights}
            taken |= paths | tied
            fitting += units
        if shared and len(fitting) == found and not rule.optional:
            named = ", ".join(sorted(shared)[:3])
            errors.append(
                f"units.{kind}: a rule above has {named}, and a module is in one unit alone; leave one "
                "of the rules out, or say `optional: true`"
            )
    if errors:
        raise AutopruneError(
            f"space file {source} does not fit this model ({type(model).__name__}):\n  " + "\n  ".join(errors)
        )
    order = {path: k for k, path in enumerate(modules)}
    return tuple(sorted(fitting, key=lambda unit: order[unit.rows[0].path]))


def to_part(model: nn.Module, file: SpaceFile) -> dict[str, float]:
    """Paths of embeddings that a space file has in two parts, with the share of look-ups of the common one.

    Those whose weight another layer has too stay whole.
    """
    modules, prefix = dict(model.named_modules()), str(getattr(model, "base_model_prefix", ""))
    return {
        place: rule.common
        for rule in file.units.values()
        if rule.common is not None
        for place in _places(rule.at, modules, prefix)
        if isinstance(modules[place], nn.Embedding) and not _sharers(modules, place)
    }


def _places(selector: str, modules: Mapping[str, nn.Module], prefix: str) -> list[str]:
    """Paths that a rule matches; a model without a head lacks the prefix that the rule is written with."""
    bare = bool(prefix) and prefix not in modules
    selector = selector.removeprefix(f"{prefix}.") if bare else selector
    pattern = re.compile(re.escape(selector).replace(r"\*", r"[^.]+"))
    return [path for path in modules if pattern.fullmatch(path)]


def _paths(place: str, rule: UnitRule) -> set[str]:
    """Paths of the modules that a rule names at a place."""
    return {_join(place, part) for part in (rule.rows or ("",)) + rule.cols}


def _units(
    model: nn.Module,
    modules: dict[str, nn.Module],
    place: str,
    kind: str,
    rule: UnitRule,
    prefix: str,
) -> list[Unit]:
    """The unit of a rule at a place; of a vocabulary in two parts one each, the common whole."""
    if not isinstance(modules.get(place), Parted):
        return [_unit(model, modules, place, kind, rule, prefix)]
    common, rare = (
        _unit(model, modules, _join(place, part), kind, part_rule, prefix)
        for part, part_rule in ((COMMON, rule.model_copy(update={"prune": None})), (RARE, rule))
    )
    return [common, replace(rare, ranked=common.rows[0].rows + rare.rows[0].rows)]


def _unit(
    model: nn.Module,
    modules: dict[str, nn.Module],
    place: str,
    kind: str,
    rule: UnitRule,
    prefix: str,
) -> Unit:
    rows = tuple(_weight(modules, _join(place, part), rule.tied) for part in rule.rows or ("",))
    cols = tuple(_weight(modules, _join(place, part)) for part in rule.cols)
    by = rule.prune.by if rule.prune is not None else ""
    by_token = by == "token"
    if by_token and not rows[0].is_embedding:
        raise AutopruneError(f"{rows[0].path}: tokens are rows of an Embedding, which it is not")
    pieces = _pieces(model, rows, cols, by) if by else rows[0].rows
    name = place.removeprefix(f"{prefix}.") if prefix else place
    name = name if name.rpartition(".")[2] == kind or not rule.cols else f"{name}.{kind}"
    size = rule.quantize.group_size
    step = {"head": 1, "token": 1, "channel": CHANNEL_STEP}.get(by, size)  # nosec B105 # of a vocabulary
    unit = Unit(
        name=name,
        kind=kind,
        rows=rows if rule.prune is not None else rows + cols,
        cols=cols if rule.prune is not None else (),
        pieces=pieces,
        step=min(step, pieces),
        group_size=size,
        ratios=rule.prune.ratios if rule.prune is not None else (0.0,),
        storages=rule.quantize.storages,
        by_token=by_token,
        importance=rule.prune.importance if rule.prune is not None else SECOND_ORDER,
        fallback=rule.prune.fallback if rule.prune is not None else NEAREST,
    )
    return replace(unit, ratios=_unlike(unit))


def _unlike(unit: Unit) -> tuple[float, ...]:
    """Ratios that keep different numbers of pieces; of ratios that keep the same number, the smallest.

    Three heads that others share are two at a quarter and at a half: the same variant twice.
    """
    by_kept: dict[int, float] = {}
    for ratio in unit.ratios:
        by_kept.setdefault(unit.kept(ratio), ratio)
    return tuple(by_kept.values())


def _pieces(model: nn.Module, rows: Sequence[Weight], cols: Sequence[Weight], by: str) -> int:
    """How many heads (or groups that share a key and value head), neurons or channels there are."""
    fewest = min(rows, key=lambda layer: layer.rows)
    block = _head_size(model, fewest.path) if by == "head" else 1
    if block < 1 or fewest.rows < block or fewest.rows % block:
        raise AutopruneError(f"{fewest.path}: {fewest.rows} rows are not whole heads of {block}")
    pieces = fewest.rows // block
    for layer in rows:
        if layer.rows % pieces or (by != "head" and layer.rows != pieces):
            raise AutopruneError(f"{layer.path} gives {layer.rows} features, but {fewest.path} {fewest.rows}")
    most = max(layer.rows for layer in rows)
    for layer in cols:
        taken = layer.columns // max(layer.kernel, 1)
        # A layer after the picture is laid out in a row takes several columns of each channel.
        if layer.depthwise or (taken != most if by != "channel" else taken % pieces):
            raise AutopruneError(f"{layer.path} takes {taken} features, but {rows[0].path} gives {most}")
    return pieces


def _join(place: str, part: str) -> str:
    return f"{place}.{part}" if part and place else part or place


def _weight(modules: dict[str, nn.Module], path: str, tied: str = "") -> Weight:
    module = modules.get(path)
    if module is None:
        raise AutopruneError(f"the model has no module {path!r}")
    has_bias = getattr(module, "bias", None) is not None
    if isinstance(module, nn.Conv2d):
        return _conv(module, path, has_bias)
    if not isinstance(module, nn.Linear | nn.Embedding):
        raise AutopruneError(f"{path} is a {type(module).__name__}; a Linear, Embedding or Conv2d is needed")
    if isinstance(module, nn.Embedding) and (obstacle := lookup_obstacle(module)):
        raise AutopruneError(f"{path} {obstacle}: leave it out of the space file")
    rows, columns = module.weight.shape
    return Weight(
        path, rows, columns, has_bias, isinstance(module, nn.Embedding), tied=_sharer(modules, path, tied)
    )


def _sharer(modules: Mapping[str, nn.Module], path: str, tied: str) -> str:
    """Path of the layer that shares the weight of the one at `path`; empty where none does."""
    others = _sharers(modules, path)
    if not others or others == [tied]:
        return tied if others else ""
    is_embedding = isinstance(modules[path], nn.Embedding)
    what = (
        f"say so by `tied: {others[0]}`" if is_embedding else f"cover {others[0]} first, with `tied: {path}`"
    )
    raise AutopruneError(f"{path} shares its weight with {', '.join(others)}; {what}")


def _sharers(modules: Mapping[str, nn.Module], path: str) -> list[str]:
    """Paths of other layers that share the weight of the one at `path`."""
    weight = modules[path].weight
    return [
        other
        for other, module in modules.items()
        if getattr(module, "weight", None) is weight and other != path
    ]


def _conv(module: nn.Conv2d, path: str, has_bias: bool) -> Weight:
    o, each, *kernel = module.weight.shape
    size = kernel[0] * kernel[1]
    depthwise = module.groups == o == module.in_channels
    if module.groups > 1 and not depthwise:
        raise AutopruneError(
            f"{path} is a convolution in {module.groups} groups; 1, or one a channel, is known"
        )
    return Weight(path, o, size if depthwise else each * size, has_bias, False, size, depthwise)


_HEAD_SIZES = ("head_dim", "attention_head_size", "head_size")
"""What attention calls the size of a head, where it differs from layer to layer, as Swin's."""


def _head_size(model: nn.Module, path: str) -> int:
    """Features of a head of the layer at a path: of torch's own attention, by the model's config, or as the
    module around it says."""
    size = head_size_at(model, path)
    if size is not None:
        return size
    config: Any = getattr(model, "config", None)
    given = getattr(config, "head_dim", None)
    if given:
        return int(given)
    try:
        return int(config.hidden_size) // int(config.num_attention_heads)
    except (AttributeError, TypeError, ZeroDivisionError) as error:
        around = model.get_submodule(path.rpartition(".")[0])
        named = next((x for name in _HEAD_SIZES if isinstance(x := getattr(around, name, None), int)), None)
        if named:
            return named
        raise AutopruneError("the model's config does not say how large a head is") from error


def importance_line(units: Sequence[Unit]) -> str:
    """What says which pieces go, by kind of unit, where it is not second order; empty where it all is.

    Of tokens that are looked up as something else than the nearest row that stays, what that is.
    """
    by_kind = {unit.kind: unit.importance for unit in units if unit.importance != SECOND_ORDER}
    by_kind |= {unit.kind: (unit.fallback,) for unit in units if unit.fallback != NEAREST}
    return "; ".join(f"{kind} by {' or '.join(names)}" for kind, names in by_kind.items())


def search_space(units: Sequence[Unit], offers: Callable[[Unit, Level], bool]) -> SearchSpace:
    """What may be tried: the units' levels, less what a target does not offer, ratio and storage apart."""
    return SearchSpace(
        tuple(
            Choices(
                u.name,
                tuple(r for r in u.ratios if offers(u, Level(r))),
                tuple(storage for storage in u.storages if offers(u, Level(0.0, storage))),
            )
            for u in units
        )
    )
