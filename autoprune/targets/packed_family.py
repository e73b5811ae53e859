"""Several packed models in one file: what two of them have alike is stored once, what is like, as a delta.

`family.safetensors` holds two arrays of bytes: `description`, JSON compressed by zlib, and `items`. An item
is a weight in integers (`compress.given_reference`), perhaps given another item that is like it, or any other
tensor; those with equal contents are one. A member is the header of its own `model.safetensors` as it was
and the items that follow it there, so that its file comes out byte for byte; its SHA-256 is noted.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.compress.given_reference import IntegerArrays, Streams, WrittenWeight, read_given
from autoprune.compress.packing import pack_dense
from autoprune.core.errors import AutopruneError

FAMILY = "family.safetensors"

MOST_EXPANSION = 100
"""Times the bytes of the file that a member may claim to have: more is no family but an attempt on memory."""

FamilyItem = IntegerArrays | bytes

_DAMAGE = (
    ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError, zlib.error, OSError,
)  # fmt: skip


@dataclass(frozen=True)
class FamilyMember:
    """A model in a family's file. size_bytes: of its own file."""

    name: str
    size_bytes: int
    sha256: str
    header: str
    config: str
    items: tuple[int, ...]


@dataclass
class FamilyFile:
    """A family's file, opened. Members are made when they are asked for."""

    path: Path
    members: Mapping[str, FamilyMember]
    described: list[dict[str, Any]]
    data: NDArray[np.uint8] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> FamilyFile:
        """Read what a file says of its members.

        Raises:
            AutopruneError: when it is missing or damaged.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as file:
                description, data = file.get_tensor("description"), file.get_tensor("items")
            unpacker = zlib.decompressobj()
            text = unpacker.decompress(description.tobytes(), MOST_EXPANSION * (path.stat().st_size + 4096))
            about = json.loads(text)
            members = {
                name: FamilyMember(name, int(size), str(digest), str(header), str(config), tuple(items))
                for name, size, digest, header, config, items in about["members"]
            }
            return cls(path, members, list(about["items"]), data)
        except (*_DAMAGE, SafetensorError) as error:
            raise AutopruneError(f"{path} is no family of models that can be read: {error}") from error

    def packed_file(self, name: str) -> bytes:
        """The `model.safetensors` of a member, byte for byte as it was before.

        Raises:
            AutopruneError: when the member is not there, or the file is damaged.
        """
        if name not in self.members:
            raise AutopruneError(f"{self.path} has no member {name!r}; it has {', '.join(self.members)}")
        member = self.members[name]
        if member.size_bytes > MOST_EXPANSION * self.path.stat().st_size:
            raise AutopruneError(f"{self.path} is damaged: {name} claims {member.size_bytes} bytes")
        try:
            out = self._rebuilt(member)
        except _DAMAGE as error:
            raise AutopruneError(f"{self.path} is damaged: {name} cannot be made ({error})") from error
        if hashlib.sha256(out).hexdigest() != member.sha256:
            raise AutopruneError(f"{self.path} is damaged: {name} is not what it was (its SHA-256 differs)")
        return out

    def write_member(self, name: str, folder: Path) -> None:
        """Write a member as a packed model of its own into a folder that exists."""
        (folder / "model.safetensors").write_bytes(self.packed_file(name))
        (folder / "config.json").write_text(self.members[name].config, encoding="utf-8")

    def _rebuilt(self, member: FamilyMember) -> bytes:
        items = self._items(member.items)
        header = member.header.encode()
        body = bytearray(member.size_bytes - 8 - len(header))
        for (begin, end), data in _placed(member, items):
            if end - begin != len(data):
                raise ValueError(f"{len(data)} bytes do not fill {end - begin}")
            body[begin:end] = data
        return len(header).to_bytes(8, "little") + header + bytes(body)

    def _items(self, wanted: Sequence[int]) -> dict[int, FamilyItem]:
        """The contents of items, and of those they are given: at once all that need none of the others."""
        depths: dict[int, int] = {}
        for number in wanted:
            self._note_depths(number, depths)
        known: dict[int, FamilyItem] = {}
        for depth in range(max(depths.values(), default=-1) + 1):
            level = [number for number in depths if depths[number] == depth]
            weights = [number for number in level if "bits" in self.described[number]]
            with np.errstate(all="ignore"):  # what is damaged is told by its hash
                made = read_given([self._weight(number, known) for number in weights])
            known |= dict(zip(weights, made, strict=True))
            known |= {number: self._tensor(number, known) for number in level if number not in known}
        return known

    def _note_depths(self, number: int, depths: dict[int, int]) -> None:
        """How many items are given one another up to an item; each is given one that was written before."""
        chain = []
        while number not in depths:
            chain.append(number)
            like = self.described[number].get("like")
            if like is None:
                break
            if not 0 <= like < number:
                raise ValueError(f"item {number} is given item {like}, which comes after it")
            number = like
        for item in reversed(chain):
            like = self.described[item].get("like")
            depths[item] = 0 if like is None else depths[like] + 1

    def _weight(self, number: int, known: Mapping[int, FamilyItem]) -> WrittenWeight:
        entry = self.described[number]
        o, i = entry["shape"]
        if not 0 < o * i <= MOST_EXPANSION * self.path.stat().st_size * 8:
            raise ValueError(f"a weight of {o} x {i}")
        floats = None
        if entry.get("like") is not None:
            like = known[entry["like"]]
            if not isinstance(like, IntegerArrays):
                raise ValueError("a weight is given what is none")
            maps = [self._map(entry.get(name)) for name in ("rows", "columns")]
            floats = picked(like.dequantize(), *maps)
            if floats.shape != (o, i):
                raise ValueError(f"{floats.shape} numbers are like {o} x {i}")
        streams = Streams(self._bytes(*entry["steps"]), self._bytes(*entry["codes"]))
        return WrittenWeight(streams, floats, (o, i), entry["groups"], entry["bits"])

    def _tensor(self, number: int, known: Mapping[int, FamilyItem]) -> bytes:
        entry = self.described[number]
        data = self._bytes(*entry["at"])
        if "places" not in entry:
            return data
        size = int(entry["size"])
        if not 0 <= size <= MOST_EXPANSION * self.path.stat().st_size:
            raise ValueError(f"a tensor of {size} bytes")
        like = None if entry.get("like") is None else known[entry["like"]]
        if isinstance(like, IntegerArrays):
            raise ValueError("a tensor is given a weight in integers")
        return from_places(data, size, int(entry["places"]), like)

    def _map(self, at: list[int] | None) -> NDArray[np.int64] | None:
        if at is None:
            return None
        raw = zlib.decompressobj().decompress(self._bytes(*at), 8 * len(self.data) + 4096)
        return np.cumsum(np.frombuffer(raw, "<i4").astype(np.int64))

    def _bytes(self, begin: int, end: int) -> bytes:
        if not 0 <= begin <= end <= len(self.data):
            raise ValueError(f"bytes {begin} to {end} of {len(self.data)}")
        return self.data[begin:end].tobytes()


def picked(
    weight: NDArray[np.float32], rows: NDArray[np.int64] | None, columns: NDArray[np.int64] | None
) -> NDArray[np.float32]:
    """Some rows and columns of a weight; None are all."""
    weight = weight if rows is None else weight[rows]
    return np.ascontiguousarray(weight if columns is None else weight[:, columns])


def packed_tensors(weight: IntegerArrays) -> dict[str, bytes]:
    """The tensors of a packed file that hold a weight, by the ends of their names."""
    return {
        ".codes": pack_dense(weight.codes, weight.bits).tobytes(),
        ".scale": weight.scale.tobytes(),
        ".zero": pack_dense(weight.zero, weight.bits).tobytes(),
    }


def to_places(data: bytes, width: int, like: bytes | None) -> bytes:
    """Numbers of `width` bytes, less another tensor's by exclusive or, one place after the other, by zlib."""
    changed = np.frombuffer(data, np.uint8)
    if like is not None:
        changed = changed ^ np.frombuffer(like, np.uint8)
    return zlib.compress(np.ascontiguousarray(changed.reshape(-1, width).T).tobytes(), 9)


def from_places(data: bytes, size: int, width: int, like: bytes | None) -> bytes:
    """Inverse of `to_places`; size: bytes of the tensor."""
    raw = zlib.decompressobj().decompress(data, size) if size else b""
    if len(raw) != size or size % width or (like is not None and len(like) != size):
        raise ValueError(f"{len(raw)} bytes are not {size} of numbers of {width}")
    changed = np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(width, -1).T).reshape(-1)
    if like is not None:
        changed = changed ^ np.frombuffer(like, np.uint8)
    return changed.tobytes()


def tensor_entries(header: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What a safetensors header says of each tensor."""
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def items_in_order(header: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The items of a packed file in the order of their names: a weight's path or a tensor's name, and "".

    A weight in integers is one item; its tensors are named `<path>.weight.codes` and so on.
    """
    about = json.loads(header["__metadata__"]["autoprune"])
    if about.get("coded"):
        raise ValueError("members are stored plainly before they are put together")
    weights = {f"{stem}.weight" for stem in about["integers"]}
    parts = {f"{name}.{part}" for name in weights for part in ("codes", "scale", "zero")}
    rest = [name for name in tensor_entries(header) if name not in parts]
    return [(name, "weight") for name in sorted(weights)] + [(name, "") for name in sorted(rest)]


def _placed(member: FamilyMember, items: Mapping[int, FamilyItem]) -> list[tuple[tuple[int, int], bytes]]:
    """Where each tensor's bytes belong in a member's file."""
    header = json.loads(member.header)
    entries = tensor_entries(header)
    names = items_in_order(header)
    if len(names) != len(member.items):
        raise ValueError(f"{len(names)} items are described and {len(member.items)} named")
    out = []
    for (name, _), number in zip(names, member.items, strict=True):
        item = items[number]
        tensors = packed_tensors(item) if isinstance(item, IntegerArrays) else {"": item}
        for end, data in tensors.items():
            begin, stop = entries[name + end]["data_offsets"]
            if not 0 <= begin <= stop <= member.size_bytes:
                raise ValueError(f"{name} lies outside the file")
            out.append(((begin, stop), data))
    return out
