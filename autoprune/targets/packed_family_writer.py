"""Packed models -> one file: equal items once, each other item given the item that tells most of it.

Of each weight's variants the one with most bytes is written by itself, and every smaller one given whichever
of those before it leaves fewest bits; heads, neurons and tokens that are gone are found by the rows, or
columns, that are most alike.

Shapes: o rows, i columns of a weight.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.compress.given_reference import IntegerArrays, bits_given, rows_like, write_given
from autoprune.compress.packing import unpack_dense
from autoprune.targets.packed_family import items_in_order, picked, to_places

SAMPLED = 1 << 18
"""Numbers of a weight by which it is decided what it is written after."""

MOST_REFERENCES = 3
"""Weights one given another, at most, counted from one that is written by itself: each takes time to read."""

LEAST_CODED = 2048
"""Numbers from which a weight in integers is coded; a smaller one is written as its tensors are."""

_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


@dataclass(frozen=True)
class FamilyBytes:
    """What a family takes.

    file: of the file. members: of each member's own file. equal: of the members' tensors that another member
    has too, and that are therefore not stored again.
    """

    file: int
    members: Mapping[str, int]
    equal: int

    @property
    def ratio(self) -> float:
        """Of the file to the sum of its members'."""
        return self.file / sum(self.members.values())


@dataclass(frozen=True)
class _PackedFile:
    """A member's file, parted."""

    name: str
    raw: bytes
    header_text: str
    header: Mapping[str, Any]
    config: str

    @classmethod
    def read(cls, name: str, folder: Path) -> _PackedFile:
        raw = (folder / "model.safetensors").read_bytes()
        length = int.from_bytes(raw[:8], "little")
        text = raw[8 : 8 + length].decode()
        config = (folder / "config.json").read_text(encoding="utf-8")
        return cls(name, raw, text, json.loads(text), config)

    def tensor(self, name: str) -> bytes:
        begin, end = self.header[name]["data_offsets"]
        start = 8 + len(self.header_text.encode())
        return self.raw[start + begin : start + end]

    def weight(self, name: str) -> IntegerArrays:
        about = json.loads(self.header["__metadata__"]["autoprune"])["integers"][name.removesuffix(".weight")]
        (o, i), bits = about["shape"], about["bits"]
        scale = np.frombuffer(self.tensor(f"{name}.scale"), np.float16)
        scale = scale.reshape(self.header[f"{name}.scale"]["shape"])
        codes, zero = (np.frombuffer(self.tensor(f"{name}.{part}"), np.uint8) for part in ("codes", "zero"))
        return IntegerArrays(
            unpack_dense(codes, bits, o * i).reshape(o, i),
            scale,
            unpack_dense(zero, bits, scale.size).reshape(scale.shape),
            bits,
        )


@dataclass
class _Writer:
    """Items written so far."""

    data: bytearray = field(default_factory=bytearray)
    items: list[dict[str, Any]] = field(default_factory=list)

    def put(self, data: bytes) -> list[int]:
        begin = len(self.data)
        self.data += data
        return [begin, len(self.data)]

    def add(self, entry: dict[str, Any]) -> int:
        self.items.append(entry)
        return len(self.items) - 1


def write_family(
    members: Mapping[str, Path],
    path: Path,
    *,
    advance: Callable[[int, str], object] = lambda done, name: None,
) -> FamilyBytes:
    """Write packed models, each in a folder of its own, to one file.

    Args:
        advance: called with how many names of tensors are done, and the last of them.
    """
    from safetensors.numpy import save_file

    files = [_PackedFile.read(name, folder) for name, folder in members.items()]
    variants: dict[tuple[str, str], dict[str, list[_PackedFile]]] = defaultdict(dict)
    for file in files:
        for name, kind in items_in_order(file.header):
            variants[name, kind].setdefault(_digest(file, name, kind), []).append(file)
    writer, equal = _Writer(), 0
    numbers: dict[tuple[str, str, str], int] = {}
    for done, ((name, kind), owners) in enumerate(variants.items(), 1):
        if kind == "weight":
            written = _write_weights(writer, name, {key: own[0] for key, own in owners.items()})
        else:
            written = _write_tensors(writer, name, {key: own[0] for key, own in owners.items()})
        for key, own in owners.items():
            equal += (len(own) - 1) * _stored_bytes(own[0], name, kind)
            numbers |= {(file.name, name, kind): written[key] for file in own}
        advance(done, name)
    described = [
        [
            file.name, len(file.raw), hashlib.sha256(file.raw).hexdigest(), file.header_text, file.config,
            [numbers[file.name, name, kind] for name, kind in items_in_order(file.header)],
        ]
        for file in files
    ]  # fmt: skip
    text = json.dumps({"version": 1, "members": described, "items": writer.items}, separators=(",", ":"))
    arrays = {
        "description": np.frombuffer(zlib.compress(text.encode(), 9), np.uint8),
        "items": np.frombuffer(bytes(writer.data), np.uint8),
    }
    save_file(arrays, path, metadata={"autoprune": "family 1"})
    return FamilyBytes(path.stat().st_size, {file.name: len(file.raw) for file in files}, equal)


def _digest(file: _PackedFile, name: str, kind: str) -> str:
    """What an item's contents are known by."""
    digest = hashlib.sha256()
    for part in _tensor_names(name, kind):
        digest.update(f"{file.header[part]['dtype']} {file.header[part]['shape']}".encode())
        digest.update(file.tensor(part))
    if kind == "weight":
        about = json.loads(file.header["__metadata__"]["autoprune"])["integers"]
        digest.update(json.dumps(about[name.removesuffix(".weight")]).encode())
    return digest.hexdigest()


def _tensor_names(name: str, kind: str) -> list[str]:
    return [f"{name}.{part}" for part in ("codes", "scale", "zero")] if kind == "weight" else [name]


def _stored_bytes(file: _PackedFile, name: str, kind: str) -> int:
    return sum(len(file.tensor(part)) for part in _tensor_names(name, kind))


# ---- weights ------------------------------------------------------------------------------------


def _write_weights(writer: _Writer, name: str, owners: Mapping[str, _PackedFile]) -> dict[str, int]:
    """Write the variants of a weight; the number of the item of each."""
    weights = {key: file.weight(name) for key, file in owners.items()}
    order = sorted(weights, key=lambda key: -weights[key].codes.size * weights[key].bits)
    written: dict[str, int] = {}
    floats: dict[str, NDArray[np.float32]] = {}
    depth: dict[str, int] = {}
    for key in order:
        weight = weights[key]
        reference = _best_reference(
            weight, {k: own for k, own in floats.items() if depth[k] < MOST_REFERENCES}
        )
        depth[key] = 0 if reference is None else depth[reference.key] + 1
        entry: dict[str, Any] = {
            "shape": list(weight.codes.shape), "groups": weight.scale.shape[1], "bits": weight.bits,
        }  # fmt: skip
        like = None
        if reference is not None:
            entry["like"] = written[reference.key]
            like = picked(floats[reference.key], reference.rows, reference.columns)
            for place, numbers in (("rows", reference.rows), ("columns", reference.columns)):
                if numbers is not None:
                    steps = np.diff(numbers, prepend=0).astype("<i4")
                    entry[place] = writer.put(zlib.compress(steps.tobytes(), 9))
        streams = write_given(weight, like)
        entry |= {part: writer.put(getattr(streams, part)) for part in ("steps", "codes")}
        written[key] = writer.add(entry)
        floats[key] = weight.dequantize()
    return written


@dataclass(frozen=True)
class _Reference:
    """A weight written before, and which of its rows and columns a weight has."""

    key: str
    rows: NDArray[np.int64] | None
    columns: NDArray[np.int64] | None


def _best_reference(weight: IntegerArrays, floats: Mapping[str, NDArray[np.float32]]) -> _Reference | None:
    """The weight that leaves fewest bits of another; None where none is better than nothing."""
    if weight.codes.size < LEAST_CODED:
        return None
    ours = weight.dequantize()
    some = np.linspace(0, len(ours) - 1, max(1, min(len(ours), SAMPLED // ours.shape[1]))).astype(np.int64)
    some = np.unique(some)
    few = IntegerArrays(weight.codes[some], weight.scale[some], weight.zero[some], weight.bits)
    best, least = None, bits_given(few, None)
    for key, theirs in floats.items():
        reference = _matched(key, ours, theirs)
        if reference is None:
            continue
        like = picked(theirs, reference.rows, reference.columns)[some]
        if (bits := bits_given(few, like)) < least:
            best, least = reference, bits
    return best


def _matched(key: str, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> _Reference | None:
    """Which rows or columns of one weight are another's; None where both differ in number."""
    if ours.shape == theirs.shape:
        return _Reference(key, None, None)
    if ours.shape[1] == theirs.shape[1]:
        rows = rows_like(ours, theirs)
        return None if rows is None else _Reference(key, rows.astype(np.int64), None)
    if ours.shape[0] == theirs.shape[0]:
        columns = rows_like(np.ascontiguousarray(ours.T), np.ascontiguousarray(theirs.T))
        return None if columns is None else _Reference(key, None, columns.astype(np.int64))
    return None


# ---- other tensors ------------------------------------------------------------------------------


def _write_tensors(writer: _Writer, name: str, owners: Mapping[str, _PackedFile]) -> dict[str, int]:
    """Write the variants of a tensor that is no weight in integers; the number of the item of each."""
    written: dict[str, int] = {}
    before: list[tuple[str, bytes]] = []
    for key, file in owners.items():
        data = file.tensor(name)
        width = _WIDTHS.get(str(file.header[name]["dtype"]), 1)
        candidates: Sequence[tuple[str | None, bytes | None]] = [
            (None, None),
            *((other, like) for other, like in before if len(like) == len(data)),
        ]
        coded = [(to_places(data, width, like), other) for other, like in candidates]
        smallest, other = min(coded, key=lambda pair: len(pair[0]))
        if len(smallest) < len(data):
            entry: dict[str, Any] = {"at": writer.put(smallest), "size": len(data), "places": width}
            if other is not None:
                entry["like"] = written[other]
        else:
            entry = {"at": writer.put(data)}
        written[key] = writer.add(entry)
        before.append((key, data))
    return written


def all_names(members: Mapping[str, Path]) -> int:
    """How many names of tensors members have together: how often `write_family` advances."""
    files = [_PackedFile.read(name, folder) for name, folder in members.items()]
    return len({item for file in files for item in items_in_order(file.header)})
