"""Draft a search space for a model without one: coupled layers, proven removable, as rules of a space file.

Groups of coupled layers (`coupling.py`) become units that can be pruned where removing is proven to equal
masking (`proof.py`); every other Linear, Conv2d and Embedding can be stored in fewer bits. A layer is in one
unit alone, so of groups that share one that goes first which loses most features, over all its layers, and
has most like it: a block's hidden channels before its ends. Residual streams, which cross blocks, go last.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.inspection.coupling import Call, Group, find_groups, is_summed, trace
from autoprune.inspection.draft_rules import (
    ANSWER_BITS,
    BITS,
    SIZES,
    Draft,
    Left,
    Rule,
    common,
    file_of,
    matched,
    merged,
    rule_name,
)
from autoprune.inspection.removal_check import faults_of
from autoprune.inspection.uses import not_followed
from autoprune.models.unit import Unit
from autoprune.models.units import find_units

MIXED = "no part of what it gives can go alone: a norm, a fused layer or a reshape mixes it before it is read"

TAKEN = "layers that would lose features with it are in other units, and each can be in one alone"


def draft(model: nn.Module, call: Call) -> Draft:
    """Draft a space for a model in canonical form.

    Args:
        call: runs the model on an example batch of at least two rows and gives its answers; what the
            example does not come by is left alone.

    Raises:
        AutopruneError: when the model has no layer that can be compressed.
    """
    traced = trace(model, call)
    groups, lost = find_groups(model, call, traced), not_followed(model, call, traced)
    shared = _shared(model)
    out = Draft()
    followed = [group for group in groups if not lost.keys() & set(group.members)]
    places = _pruned(model, call, followed, {path for paths in shared for path in paths}, out.left)
    taken = {weight.path for unit in places.values() for weight in unit.weights}
    reached = {path for group in groups for path in group.rows}
    answers = {path for group in groups if group.feeds_answer for path in group.rows}
    singles = _singles(model, shared, reached - lost.keys(), answers, taken, out.left)
    known = {path for paths in shared for path in paths} | taken
    out.left += [Left((path,), why) for path, why in lost.items() if path not in known]
    for rule in merged(model, [*places, *singles]):
        name = rule_name(rule, out.rules)
        try:
            units = list(find_units(model, file_of({name: rule}), source="draft"))
        except AutopruneError as error:
            paths = matched(rule.at, (path for path, _ in model.named_modules()))
            out.left.append(Left(tuple(paths), _reason(error)))
            continue
        out.rules[name], out.units[name] = rule, units
    if not out.rules:
        raise AutopruneError(
            f"nothing of this model ({type(model).__name__}) can be compressed: it has no Linear, Conv2d or "
            "Embedding that the example batch comes by"
        )
    stored = {
        path
        for some in out.units.values()
        for unit in some
        for w in unit.weights
        for path in (w.path, w.tied)
    }
    out.left = _by_reason(model, out.left + _others(model), stored)
    return out


def _by_reason(model: nn.Module, left: Sequence[Left], stored: set[str]) -> list[Left]:
    """The same with the layers of one reason together, in the model's order; `stored`: those in a unit."""
    order = {path: k for k, (path, _) in enumerate(model.named_modules(remove_duplicate=False))}
    paths: dict[tuple[bool, str], list[str]] = {}
    for group in left:
        some = [path for path in group.paths if path in stored or not group.stored]
        paths.setdefault((group.stored, group.why), []).extend(some)
    return [
        Left(tuple(sorted(some, key=lambda path: order.get(path, 0))), why, stored)
        for (stored, why), some in sorted(paths.items(), key=lambda pair: not pair[0][0])
        if some
    ]


# ---- what can be pruned -------------------------------------------------------------------------


def _pruned(
    model: nn.Module, call: Call, groups: Sequence[Group], shared: set[str], left: list[Left]
) -> dict[Rule, Unit]:
    """Rules of one place for groups that are proven, with their units; all other groups go to `left`."""
    open_: dict[Group, tuple[Rule, Unit]] = {}
    for group in groups:
        why = _obstacle(model, group, shared)
        if why is None:
            try:
                rule = _rule_of(model, group)
                open_[group] = rule, _unit_of(model, rule, group, f"group_{len(open_)}")
                continue
            except AutopruneError as error:
                why = _reason(error)
        left.append(Left(group.rows, why, stored=True))
    order = _ordered(model, call, {group: rule for group, (rule, _) in open_.items()})
    while True:
        chosen = _disjoint(order)
        faults = faults_of(model, call, [open_[group][1] for group in chosen])
        for group in chosen:
            if (name := open_[group][1].name) in faults:
                left.append(Left(group.rows, faults[name], stored=True))
                del order[group]
        if not faults:
            break
    for group in [rule for rule in order if rule not in chosen]:
        stream = "it is part of a residual stream; " if order[group] else ""
        left.append(Left(group.rows, f"{stream}{TAKEN}", stored=True))
    return dict(open_[group] for group in chosen)


def _ordered(model: nn.Module, call: Call, rules: dict[Group, Rule]) -> dict[Group, bool]:
    """The groups, those that go first at first, and whether each is a residual stream."""
    uses = Counter(path for group in rules for path in group.members)
    streams = {
        group: any(uses[path] > 1 for path in group.members) and is_summed(model, call, group)
        for group in rules
    }
    like = Counter(rule.likeness for rule in rules.values())

    def worth(group: Group) -> float:
        features = _width(model, group) * len(group.members)
        return features * (1 + math.log2(like[rules[group].likeness]))

    ranked = sorted(rules, key=lambda rule: (streams[rule], -worth(rule)))
    return {group: streams[group] for group in ranked}


def _disjoint(groups: Iterable[Group]) -> list[Group]:
    """The groups that share no layer with an earlier group."""
    taken: set[str] = set()
    chosen = []
    for group in groups:
        if not taken & set(group.members):
            taken.update(group.members)
            chosen.append(group)
    return chosen


def _width(model: nn.Module, group: Group) -> int:
    """Output features of the group's widest layer."""
    layers: list[Any] = [model.get_submodule(path) for path in group.rows]
    return max(len(layer.weight) for layer in layers)


def _obstacle(model: nn.Module, group: Group, shared: set[str]) -> str | None:
    """Why a group cannot be pruned, by what is known of it without trying."""
    if group.feeds_answer:
        return "what it gives, or sums of it, are the model's answers"
    if not group.cols:
        return "no layer reads it"
    if group.pieces == 1:
        return MIXED
    if any(isinstance(model.get_submodule(path), nn.Embedding) for path in group.rows):
        return "an embedding is among the layers that would lose features together"
    if set(group.rows) & set(group.cols):
        return "it reads its own output"
    if shared & set(group.members):
        return "it, or a layer that reads it, shares its weight with another layer"
    return None


def _rule_of(model: nn.Module, group: Group) -> Rule:
    """The rule of one place that describes a group."""
    layers: list[Any] = [model.get_submodule(path) for path in group.members]
    stem = common(group.members)
    start = len(stem) + 1 if stem else 0
    rows, cols = (tuple(path[start:] for path in paths) for paths in (group.rows, group.cols))
    if any(isinstance(layer, nn.Conv2d) for layer in layers):
        return Rule(stem, rows, cols, "channel")
    is_whole = all(len(model.get_submodule(path).weight) == group.pieces for path in group.rows)  # type: ignore[arg-type]
    if not is_whole:
        return Rule(stem, rows, cols, "head")
    # Neurons are kept in whole groups of columns, so a narrow layer has narrow groups.
    size = next((size for size in SIZES if size * 8 <= group.pieces), SIZES[-1])
    return Rule(stem, rows, cols, "neuron", group_size=size)


def _unit_of(model: nn.Module, rule: Rule, group: Group, name: str) -> Unit:
    """The unit that a search would find for a group's rule, which is called `name` here.

    Raises:
        AutopruneError: when a space file cannot say what the group is.
    """
    (unit,) = find_units(model, file_of({name: rule}), source="draft")
    if unit.pieces != group.pieces:
        raise AutopruneError(
            f"it has {group.pieces} parts that can go alone, which are not the {unit.pieces} {rule.by}s "
            "that the model's layers and config give"
        )
    return unit


def _reason(error: AutopruneError) -> str:
    """What is wrong, without the file's name before it."""
    return re.sub(r"^units\.\w+: ", "", str(error).splitlines()[-1].strip())


# ---- what can be stored in fewer bits -----------------------------------------------------------


def _shared(model: nn.Module) -> list[tuple[str, ...]]:
    """Paths of layers that share one weight."""
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            owners.setdefault(id(module.weight), []).append(path)
    return [tuple(paths) for paths in owners.values() if len(paths) > 1]


def _singles(
    model: nn.Module,
    shared: Sequence[tuple[str, ...]],
    reached: set[str],
    answers: set[str],
    taken: set[str],
    left: list[Left],
) -> list[Rule]:
    """Rules of one place for layers in no group; those that cannot be compressed go to `left`."""
    tied: dict[str, str] = {}
    skipped: set[str] = set()
    for paths in shared:
        layers = [model.get_submodule(path) for path in paths]
        is_tied = len(paths) == 2 and isinstance(layers[0], nn.Embedding) and isinstance(layers[1], nn.Linear)
        if is_tied:
            tied[paths[0]] = paths[1]
            skipped.add(paths[1])
        else:
            left.append(Left(paths, "these share one weight; only an embedding and an output layer may"))
            skipped.update(paths)
    rules = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding) or path in skipped | taken:
            continue
        if path in reached:
            gives_answer = path in answers or tied.get(path) in answers
            bits = ANSWER_BITS if gives_answer else BITS
            rounds_inputs = not gives_answer and not isinstance(module, nn.Embedding)
            rules.append(Rule(path, bits=bits, rounds_inputs=rounds_inputs, tied=tied.get(path, "")))
    return rules


def _others(model: nn.Module) -> list[Left]:
    """Modules with parameters of their own whose type cannot be compressed."""
    kinds: dict[str, list[str]] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            continue
        if any(True for _ in module.parameters(recurse=False)):
            kinds.setdefault(type(module).__name__, []).append(path or type(model).__name__)
    return [
        Left(tuple(paths), f"{kind}: only Linear, Conv2d and Embedding layers are compressed")
        for kind, paths in kinds.items()
    ]
