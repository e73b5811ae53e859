"""Bytes that a unit's level adds to the header of a packed file.

The header is JSON text, one entry a tensor (https://github.com/huggingface/safetensors, "Format"), with what
`packed` says of the model in an entry of its own. In a model of a few kilobytes it is an eighth of the file.

Shapes: o output and i input features of a weight.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from autoprune.models.split_embedding import ranks_type
from autoprune.space.levels import UNTOUCHED, Level
from autoprune.space.storage import GroupedIntegers, StaticIntegers

if TYPE_CHECKING:
    from autoprune.models.unit import Unit

_PLACE = 10_000
"""Stands for where a tensor begins and ends, which depends on all others: the digits of a small file."""

_SCALE = 0.012345678901234567
"""Stands for the step of a grid of activations: the digits of most."""

_Entries = Iterator[tuple[str, str, list[int]]]
"""Name, type and shape of tensors."""


def header_bytes(unit: Unit, level: Level) -> int:
    """Bytes that the header of a model with a unit at a level has more than the original's."""
    if level == UNTOUCHED:
        return 0
    more = _entries_bytes(_entries(unit, level)) - _entries_bytes(_original_entries(unit))
    return more + sum(_said_bytes(name, value) for name, value in _said(unit, level))


def _entries_bytes(entries: _Entries) -> int:
    return sum(
        len(_json({name: {"dtype": kind, "shape": shape, "data_offsets": [_PLACE, _PLACE]}})) - 1
        for name, kind, shape in entries  # less the braces, and a comma more
    )


def _original_entries(unit: Unit) -> _Entries:
    """Tensors of a unit in the original's file; an embedding in two parts is there in one."""
    for weight in unit.weights:
        if not unit.ranked:
            yield f"{weight.path}.weight", "F32", [weight.rows, weight.columns]
        if weight.has_bias:
            yield f"{weight.path}.bias", "F32", [weight.rows]


def _entries(unit: Unit, level: Level) -> _Entries:
    """Tensors of a unit at a level."""
    shapes = unit.shapes(level.ratio)
    for weight in unit.weights:
        o, i = shapes[weight.path]
        name = f"{weight.path}.weight"
        if _is_in_parts(level, o, i):
            for part, told in level.storage.parts(o, i, group_size=unit.group_size).items():
                yield f"{name}.{part}", told.kind, list(told.shape)
        else:
            yield name, "F32", [o, i]
        if weight.has_bias:
            yield f"{weight.path}.bias", "F32", [o]
        if unit.by_token and level.ratio > 0 and not unit.ranked:
            yield f"{weight.path}.places", "I32", [unit.pieces]
        if unit.ranked:
            kind = "I16" if ranks_type(unit.ranked).itemsize == 2 else "I32"
            yield f"{weight.path.rpartition('.')[0]}.ranks", kind, [unit.ranked]


def _said(unit: Unit, level: Level) -> Iterator[tuple[str, Any]]:
    """What `packed` says of a unit: its level, its weights in codes, and the grids of its inputs."""
    yield unit.name, [level.ratio, level.storage.written]
    shapes = unit.shapes(level.ratio)
    for weight in unit.weights:
        o, i = shapes[weight.path]
        if _is_in_parts(level, o, i):
            storage = level.storage
            is_integers = isinstance(storage, GroupedIntegers | StaticIntegers)
            how = {"bits": storage.bits} if is_integers else {"storage": storage.name}
            yield weight.path, {"shape": [o, i], **how}
        if level.storage.rounds_inputs and o * i > 0 and not weight.is_embedding:
            yield weight.path, [_SCALE, 128]


def _said_bytes(name: str, value: Any) -> int:
    """Bytes of an entry inside the text that is a value of the header: its quotes are escaped."""
    return len(json.dumps(_json({name: value}))) - 2 - 1


def _is_in_parts(level: Level, rows: int, columns: int) -> bool:
    return not level.storage.is_float and rows * columns > 0


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"))
