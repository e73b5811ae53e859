"""Made-up space files: good ones, with wrong types, keys and numbers, as text and as damaged bytes."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis.strategies as some
import yaml

from autoprune.core.errors import AutopruneError
from autoprune.space.space_file import SpaceFile, read_space
from tests.support.damage import check_message, damaged_bytes

KEYS = ("version", "types", "units", "finetune", "at", "rows", "cols", "tied", "optional", "common",
        "prune", "quantize", "by", "ratios", "bits", "group_size", "activations", "also", "steps",
        "batch_size", "learning_rate", "bit", "ratio", "extra", "", "<<", "é", "a\nb", 1, None, True,
        1.5)  # fmt: skip

ODD = (None, True, False, 0, 1, 2, -1, 5, 8, 0.5, 1.0, 1.5, -0.5, math.nan, math.inf, -math.inf, 10**400,
       "", "x", "8", "0.5", "3e-5", "yes", "nan", "encoder.*", [], {}, [None], [8], ["8"], [0.5, "0.5"],
       [True], {"by": "head"}, {"bits": [4]}, b"8", "\u2028")  # fmt: skip

LAUGHS = "\n".join(f"{b}: &{b} [{', '.join(9 * [f'*{a}'])}]" for a, b in itertools.pairwise("abcdefg"))
"""Half a million entries in a few lines."""

SNIPPETS = (
    "a: !!timestamp x", "a: !!bool x", "a: !!int ''", "a: !!python/object:os.system {}", "a: &a [*a]",
    "types: &t [*t]", "units: &u {a: *u}", "<<: {version: 1}", "<<: 3", "? [1]\n: 2", "version: 1", "---",
    "--- \n...", "%YAML 1.1", "\tversion: 1", "finetune: {steps: 1, steps: 2}", "version: 1e0", "- 1", "x: =",
    "finetune: {steps: 0x" + "f" * 5000 + "}", "finetune: {steps: 010}", "finetune: {steps: 1:30}",
    "types: " + "[" * 1500, "types: [bert, bert]", "types: !!set {bert: null}", "a: 2020-99-99", "'", "*a",
    '"', "{", "]", "&", f"a: &a [x]\n{LAUGHS}\ntypes: [*g]",
)  # fmt: skip

ENCODINGS = ("utf-8",) * 12 + ("utf-8-sig", "utf-16", "latin-1", "utf-32")

ratios = some.lists(some.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1, 1.0]), min_size=1, max_size=4)
widths = some.lists(some.sampled_from([2, 3, 4, 6, 8, 16]), min_size=1, max_size=4)
paths = some.sampled_from(["encoder.*", "a.b", "x", "layer.*.attention"])
layers = some.lists(some.sampled_from(["q", "k", "self.v"]), min_size=1, max_size=2)


@some.composite
def _rules(draw: some.DrawFn) -> dict[str, Any]:
    rule: dict[str, Any] = {"at": draw(paths), "quantize": {"bits": draw(widths)}}
    if draw(some.booleans()):
        rule["quantize"]["group_size"] = draw(some.sampled_from([8, 16, 32, 64, 128]))
    if draw(some.booleans()):
        rule["optional"] = draw(some.booleans())
    kind = draw(some.sampled_from(["alone", "pruned", "token", "tied"]))
    if kind == "pruned":
        rule |= {"rows": draw(layers), "cols": draw(layers)}
        rule["prune"] = {"by": draw(some.sampled_from(["head", "neuron", "channel"])), "ratios": draw(ratios)}
    elif kind == "token":
        rule["common"] = draw(some.sampled_from([0.5, 0.8, 0.999]))
        rule["prune"] = {"by": "token", "ratios": [ratio for ratio in draw(ratios) if ratio < 1] or [0.5]}
    elif kind == "tied":
        rule["tied"] = draw(paths)
    return rule


@some.composite
def _spaces(draw: some.DrawFn) -> dict[str, Any]:
    names = some.sampled_from(["block", "head", "ein Name", "層", "a.b", "0"])
    space: dict[str, Any] = {
        "version": 1,
        "units": draw(some.dictionaries(names, _rules(), min_size=1, max_size=3)),
    }
    if draw(some.booleans()):
        space["types"] = draw(some.lists(some.sampled_from(["bert", "gpt2"]), max_size=2))
    if draw(some.booleans()):
        space["finetune"] = {
            "steps": draw(some.integers(0, 500)),
            "learning_rate": draw(some.sampled_from([3e-5, 0.1])),
            "weight_decay": draw(some.sampled_from([0.0, 0.01])),
            "dropout": draw(some.sampled_from([0.0, 0.1])),
        }
    return space


@some.composite
def _changed(draw: some.DrawFn, space: dict[str, Any]) -> Any:
    """A space with up to three values, keys or entries that are others, more or fewer."""
    space = copy.deepcopy(space)
    for _ in range(draw(some.integers(1, 3))):
        places = [*_places(space)]
        if not places:
            return space
        holder, key = draw(some.sampled_from(places))
        change = draw(some.sampled_from(["value", "value", "key", "delete", "add"]))
        other = copy.deepcopy(draw(some.sampled_from(ODD)))
        if change == "value":
            holder[key] = other
        elif change == "delete":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(other)
        elif change == "add":
            holder[draw(some.sampled_from(KEYS))] = other
        else:
            holder[draw(some.sampled_from(KEYS))] = holder.pop(key)
    return space


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with a key or an index in it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from _places(inner)
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield value, k
            yield from _places(inner)


@some.composite
def _texts(draw: some.DrawFn, space: Any) -> str:
    """A space as YAML; every other one with a line twice, taken away or put in."""
    style = draw(some.sampled_from([None, True, False]))
    text: str = yaml.safe_dump(
        space, default_flow_style=style, allow_unicode=draw(some.booleans()), sort_keys=False
    )
    lines = text.splitlines()
    change = draw(some.sampled_from(["", "", "", "twice", "less", "more", "more"]))
    place = draw(some.integers(0, len(lines) - 1))
    if change == "twice":
        lines.insert(draw(some.integers(0, len(lines))), lines[place])
    elif change == "less":
        del lines[place]
    elif change == "more":
        lines.insert(draw(some.sampled_from([0, 0, len(lines), place])), draw(some.sampled_from(SNIPPETS)))
    return "\n".join(lines) + "\n"


@some.composite
def made_spaces(draw: some.DrawFn) -> bytes:
    """The bytes of a space file."""
    space: Any = draw(_spaces())
    if draw(some.integers(0, 2)):
        space = draw(_changed(space))
    text = draw(_texts(space))
    data = text.encode(draw(some.sampled_from(ENCODINGS)), errors="replace")
    return data if draw(some.integers(0, 5)) else draw(damaged_bytes(data))


# ---- what must hold -----------------------------------------------------------------------------


def check_space_file(data: bytes, folder: Path) -> str:
    """How a space file ends: "accepted" or "refused".

    Raises:
        AssertionError: where it was accepted and something in it was not heeded, or read as another thing.
        Exception: whatever the reader raises that is no AutopruneError.
    """
    path = folder / "my.yaml"
    path.write_bytes(data)
    try:
        space = read_space(path)
    except AutopruneError as error:
        check_message(error)
        return "refused"
    root = yaml.compose(data.decode("utf-8"), Loader=yaml.SafeLoader)
    _check_keys(root)
    _check_heeded(yaml.safe_load(data.decode("utf-8")), space.model_dump(exclude_unset=True), "file")
    _check_finite(space)
    return "accepted"


def _check_keys(node: yaml.Node) -> None:
    """No mapping has a key twice: the second would be heeded, and the first lost."""
    if isinstance(node, yaml.MappingNode):
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        assert len(set(keys)) == len(keys), f"keys twice: {keys}"
        for _, inner in node.value:
            _check_keys(inner)
    elif isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            _check_keys(inner)


def _check_heeded(written: Any, read: Any, where: str) -> None:
    """All that is written was read, as what it is."""
    if isinstance(written, Mapping):
        assert isinstance(read, Mapping), where
        assert {*written} == {*read}, f"{where}: {[*written]} and {[*read]}"
        for key, value in written.items():
            _check_heeded(value, read[key], f"{where}.{key}")
    elif isinstance(written, list | set):
        entries = [entry if isinstance(read[0] if read else "", str) else _number(entry) for entry in written]
        assert {*entries} <= {*read}, f"{where}: {written!r} and {read!r}"
        assert {*read} - {*entries} <= {0.0, 32}, f"{where}: {written!r} and {read!r}"
        assert not any(isinstance(entry, bool) for entry in entries), f"{where}: {written!r}"
    elif isinstance(written, bool) or isinstance(read, bool):
        assert (
            (written is read) or str(written).lower() in ("1", "yes", "on", "true", "t", "y") or read is False
        ), where
        assert isinstance(read, bool), f"{where}: {written!r} was read as {read!r}"
    else:
        assert _number(written) == read or written == read, f"{where}: {written!r} was read as {read!r}"


def _number(value: Any) -> Any:
    """Text that is a number as one: YAML takes 3e-5 for text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _check_finite(space: SpaceFile) -> None:
    numbers = [
        space.finetune.learning_rate,
        space.finetune.weight_decay,
        space.finetune.dropout,
        *(r for rule in space.units.values() if rule.prune for r in rule.prune.ratios),
    ]
    assert all(map(math.isfinite, numbers)), numbers
