"""Rules of a drafted search space: similar places share a rule, which gets a name; and the file's text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pydantic
import yaml
from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.space.space_file import SpaceFile

if TYPE_CHECKING:
    from autoprune.models.unit import Unit


RATIOS = {
    "head": (0.0, 0.25, 0.5, 0.75),
    "neuron": (0.0, 0.25, 0.5, 0.75, 0.9),
    "channel": (0.0, 0.25, 0.5, 0.75),
}
"""Shares of heads, neurons or channels removed that a draft offers."""

NAMES = {"head": "attention", "neuron": "feed_forward", "channel": "channels"}
"""What a draft calls a rule by what its units lose."""

PIECES = {"head": "heads (or groups that share keys and values)", "neuron": "neurons", "channel": "channels"}
"""What goes one by one, for people."""

BITS, ANSWER_BITS = (2, 3, 4, 6, 8, 16), (4, 6, 8, 16)
"""Bits that a draft offers; of the layer that gives the answers, which few bits harm most."""

VAGUE = {"conv", "convolution", "dense", "fc", "linear", "proj", "projection"}
"""Names of layers that say little without the one before."""

SIZES = (64, 32, 16, 8)
"""Weights of a row that may share a scale."""


@dataclass(frozen=True)
class Rule:
    """One rule of a space file, or one place of it: `at` with the modules under it.

    by: what is removed; empty where nothing is. rounds_inputs: whether w8a8 is offered. tied: path of an
    output layer with the same weight. optional: whether `at` matches places without these modules too.
    """

    at: str
    rows: tuple[str, ...] = ()
    cols: tuple[str, ...] = ()
    by: str = ""
    bits: tuple[int, ...] = BITS
    rounds_inputs: bool = True
    group_size: int = SIZES[0]
    tied: str = ""
    optional: bool = False

    @property
    def likeness(self) -> tuple[str, ...]:
        """What rules of similar places share: their paths without numbers."""
        paths = (self.at, *self.rows, "", *self.cols)
        return tuple(_starred(path, [True] * len(_numbers(path))) for path in paths)

    @property
    def described(self) -> dict[str, Any]:
        """As a space file has it."""
        quantize = {"bits": list(self.bits), **({"activations": 8} if self.rounds_inputs else {})}
        out: dict[str, Any] = {"at": self.at}
        if self.by:
            out |= {"rows": list(self.rows), "cols": list(self.cols)}
            out["prune"] = {"by": self.by, "ratios": list(RATIOS[self.by])}
        if self.tied:
            out["tied"] = self.tied
        if self.optional:
            out["optional"] = True
        return out | {"quantize": {**quantize, "group_size": self.group_size}}


@dataclass(frozen=True)
class Left:
    """Layers that are not pruned, or not compressed at all, and why."""

    paths: tuple[str, ...]
    why: str
    stored: bool = False
    """Whether they are stored in fewer bits all the same."""


@dataclass
class Draft:
    """Rules by name, the units that they stand for, and what was left alone."""

    rules: dict[str, Rule] = field(default_factory=dict)
    units: dict[str, list[Unit]] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)


def file_of(rules: dict[str, Rule]) -> SpaceFile:
    """Rules as a space file's content.

    Raises:
        AutopruneError: when a rule cannot be written so.
    """
    try:
        return SpaceFile.model_validate(
            {"version": 1, "units": {name: rule.described for name, rule in rules.items()}}
        )
    except pydantic.ValidationError as error:
        if any(not rule.at for rule in rules.values()):
            wrong = "it and its readers are in no common module but the model itself, which `at` cannot name"
            raise AutopruneError(wrong) from error
        said = error.errors()[0]
        raise AutopruneError(
            f"a rule's {said['loc'][-1]} cannot be {said['input']!r}: {said['msg']}"
        ) from error


def common(paths: Sequence[str]) -> str:
    """The innermost module that holds all layers.

    >>> common(["a.b.c", "a.b.d.e"]), common(["a", "b"])
    ('a.b', '')
    """
    parts = [path.split(".")[:-1] for path in paths]
    same = 0
    while all(len(part) > same and part[same] == parts[0][same] for part in parts):
        same += 1
    return ".".join(parts[0][:same])


# ---- one rule for like places -------------------------------------------------------------------


def merged(model: nn.Module, places: Iterable[Rule]) -> list[Rule]:
    """The same rules, with `*` in place of the numbers of similar places, in the model's order."""
    order = {path: k for k, (path, _) in enumerate(model.named_modules())}
    alike: dict[Rule, list[str]] = {}
    for place in places:
        stem = "" if place.by else place.at.rpartition(".")[2]  # a layer of another name is another kind
        alike.setdefault(replace(place, at=stem), []).append(place.at)
    rules = []
    for rule, ats in alike.items():
        whole = [path for path in order if order.keys() >= set(_layers(path, rule))]
        for pattern, covered in _patterns(sorted(ats, key=lambda place: order[place]), whole):
            is_partial = len(matched(pattern, order)) > len(covered)
            first = min(order[_layers(place, rule)[0]] for place in covered)
            rules.append((first, replace(rule, at=pattern, optional=is_partial)))
    return [rule for _, rule in sorted(rules, key=lambda pair: pair[0])]


def _layers(place: str, rule: Rule) -> list[str]:
    """Paths of a rule's layers at one place, the first of its rows first."""
    return [".".join(part for part in (place, name) if part) for name in (rule.rows or ("",)) + rule.cols]


def matched(pattern: str, paths: Iterable[str]) -> list[str]:
    """Paths that match a pattern, in which `*` stands for one part."""
    regex = re.compile(re.escape(pattern).replace(r"\*", r"[^.]+"))
    return [path for path in paths if regex.fullmatch(path)]


def _patterns(places: Sequence[str], paths: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Paths with `*` for numbers that match these places and no others of `paths`, with what they match.

    >>> _patterns(["a.0.b.1", "a.1.b.1"], ["a", "a.0.b.0", "a.0.b.1", "a.1.b.1"])
    [('a.*.b.1', ['a.0.b.1', 'a.1.b.1'])]
    """
    out: list[tuple[str, list[str]]] = []
    left = list(places)
    most = max(len(_numbers(place)) for place in places)
    for stars in sorted(itertools.product((True, False), repeat=most), key=lambda stars: -sum(stars)):
        groups: dict[str, list[str]] = {}
        for place in left:
            groups.setdefault(_starred(place, stars), []).append(place)
        for pattern, covered in groups.items():
            if matched(pattern, paths) == covered:
                out.append((covered[0] if len(covered) == 1 else pattern, covered))
                left = [place for place in left if place not in covered]
    return out


def _numbers(path: str) -> list[int]:
    """Which parts of a path are numbers."""
    return [k for k, part in enumerate(path.split(".")) if part.isdigit()]


def _starred(path: str, stars: Sequence[bool]) -> str:
    """A path with `*` for some of its numbers.

    >>> _starred("stages.1.layers.2.conv", (False, True))
    'stages.1.layers.*.conv'
    """
    parts = path.split(".")
    for k, star in zip(_numbers(path), stars, strict=False):
        parts[k] = "*" if star else parts[k]
    return ".".join(parts)


def rule_name(rule: Rule, known: Iterable[str]) -> str:
    """A unique name for a rule: what its units lose, or the layer's own name."""
    parts = [part for part in rule.at.split(".") if part != "*" and not part.isdigit()]
    shortest = 2 if len(parts) > 1 and parts[-1] in VAGUE else 1
    names = ["_".join(parts[-n:]) for n in range(shortest, min(shortest + 2, len(parts)) + 1)]
    names = [re.sub(r"\W", "_", name) for name in ([NAMES[rule.by]] if rule.by else names)] or ["layer"]
    base, k = names[0], 1
    for name in names:
        if name not in known:
            return name
    while f"{base}_{k + 1}" in known:
        k += 1
    return f"{base}_{k + 1}"


# ---- as text ------------------------------------------------------------------------------------


def text_of(draft: Draft, *, model: str, kind: str, file: str) -> str:
    """A space file for people: its rules, and in comments what was left alone and why.

    model: what the user named; kind: its class; file: where the text goes.
    """
    lines = [
        f"# Drafted for {model} ({kind}), to be edited: ratios, bits, or whole rules may go.",
        "# `*` is one part of a module path. `rows` lose output features, `cols` the matching input ones; in",
        "# each unit that loses some, removing them was found equal to masking them.",
        f"# Try:  autoprune search {model} --space {file}",
        "version: 1",
        "units:",
    ]
    for name, rule in draft.rules.items():
        count = len(draft.units[name])
        what = f"{count} unit" + "s" * (count > 1)
        lines.append(f"  {name + ':':44}# {what}{_pieces_text(draft.units[name], rule.by)}")
        lines += [f"    {key}: {_flow(value)}" for key, value in rule.described.items()]
    lines += ["finetune: {steps: 60, batch_size: 32, learning_rate: 3.0e-5}", ""]
    return "\n".join(lines + [f"# {line}".rstrip() for line in left_lines(draft.left)]) + "\n"


KEPT = "All that these give is kept (their weights are stored in fewer bits all the same):"


def left_lines(left: Sequence[Left]) -> list[str]:
    """What was left alone, for people: a line a reason, and below it the layers."""
    lines = []
    for stored, head in ((True, KEPT), (False, "Left as they came:")):
        some = [group for group in left if group.stored == stored]
        lines += [head] if some else []
        for group in some:
            lines.append(f"  {group.why}:")
            lines += [f"    {text}" for text in _counted(group.paths)]
    return lines


def _counted(paths: Sequence[str]) -> list[str]:
    """Paths with `*` for their numbers, and how many there are of each.

    >>> _counted(["a.0.b", "a.1.b", "c"])
    ['a.*.b x2', 'c']
    """
    counts: dict[str, int] = {}
    for path in paths:
        stem = _starred(path, [True] * len(_numbers(path)))
        counts[stem] = counts.get(stem, 0) + 1
    single = {_starred(path, [True] * len(_numbers(path))): path for path in paths}
    return [f"{stem} x{count}" if count > 1 else single[stem] for stem, count in counts.items()]


def _pieces_text(units: Sequence[Unit], by: str) -> str:
    """How many pieces the units of a rule have, to be said after their number."""
    if not by:
        return ""
    fewest, most = (pick(unit.pieces for unit in units) for pick in (min, max))
    return f", {fewest}{f' to {most}' if most > fewest else ''} {PIECES[by]}" + " each" * (len(units) > 1)


def _flow(value: object) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.strip().removesuffix("\n...").strip()
