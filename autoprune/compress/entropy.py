"""Stored tensors with fewer bytes and nothing lost: Huffman coding, the last stage of Deep Compression.

Source: Han et al., Deep Compression, arXiv 1510.00149, section 4. The codes are Zstandard's, whose literals
are Huffman-coded a block at a time (RFC 8878, section 4.2.1); its checksum tells a damaged stream. What is
coded is laid out in bytes that are alike: codes of few bits as many whole ones to a byte as fit, numbers of
several bytes one place after the other, so that exponents meet exponents.

Shapes: o output features, i input features, g groups in a row; see `compress.integers`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.compress.integers import Integers
from autoprune.compress.packing import unpack_dense
from autoprune.compress.stored import StoredWeight
from autoprune.core.errors import AutopruneError

Bytes = NDArray[np.uint8]

LEVEL = 1
"""Zstandard's: higher ones look longer for repeats, of which weights have none (measured: 0.1 % in 30 times
the time)."""

LEAST_SAVED = 128
"""Bytes a stream must save to be used, and more where the file's heading says more of it."""

INTEGER_BITS = (2, 3, 4, 6, 8)

DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "uint8", "bool")


@dataclass(frozen=True)
class Stream:
    """A coded tensor, and how its bytes were laid out.

    layout: "places" (byte by byte of each number), "joined" (codes), or "centred" (codes less their zero
    point, modulo 2^bits: one peak instead of one a group).
    """

    data: Bytes
    layout: str


def code_tensor(tensor: Tensor) -> Stream | None:
    """A tensor of any type as a stream; None where that saves nothing."""
    flat = tensor.contiguous().reshape(-1)
    places = flat.view(torch.uint8).reshape(flat.numel(), tensor.dtype.itemsize).numpy().T
    return _smaller({"places": places}, flat.numel() * tensor.dtype.itemsize)


def code_codes(one: Integers, packed_bytes: int) -> Stream | None:
    """A weight's codes as a stream; None where that saves nothing over `packed_bytes`."""
    codes, bits = one.codes.numpy(), one.bits
    centred = _centred(codes, one.zero.numpy(), bits, sign=-1)
    return _smaller({"joined": _joined(codes, bits), "centred": _joined(centred, bits)}, packed_bytes)


def code_joined(codes: Bytes, bits: int, packed_bytes: int) -> Stream | None:
    """Codes of so many bits as a stream; None where that saves nothing over `packed_bytes`."""
    return _smaller({"joined": _joined(codes, bits)}, packed_bytes)


def code_all(
    tensors: Mapping[str, Tensor], weights: Mapping[str, StoredWeight]
) -> tuple[dict[str, Tensor], dict[str, list[Any]]]:
    """A packed file's tensors, a stream in the place of each that gets smaller by it.

    Args:
        tensors: by name; the parts of a weight in `weights` are named `<path>.weight.<part>`.

    Returns:
        The tensors, and of each coded one its layout, type and shape, for `CodedFile`.
    """
    out, coded = dict(tensors), dict[str, list[Any]]()
    for name, tensor in tensors.items():
        owner, _, part = name.rpartition(".")
        weight = weights.get(owner.removesuffix(".weight")) if owner.endswith(".weight") else None
        if weight is not None and (bits := weight.widths().get(part)):
            codes = weight.tensors()[part]
            shape = codes.shape
            if isinstance(weight, Integers) and part == "codes":
                stream = code_codes(weight, tensor.numel())
            else:
                stream = code_joined(codes.numpy(), bits, tensor.numel())
        elif weight is not None and tensor.numel() > math.prod(weight.shape):
            continue  # more numbers than a stream of this weight may claim
        else:
            shape, stream = tensor.shape, code_tensor(tensor)
        if stream is not None:
            said = [stream.layout, str(tensor.dtype).removeprefix("torch."), list(shape)]
            if stream.data.nbytes + len(json.dumps(json.dumps({name: said}))) < tensor.nbytes:
                coded[name], out[name] = said, torch.from_numpy(stream.data)
    return out, coded


def saved_bytes(tensors: Mapping[str, Tensor], weights: Mapping[str, StoredWeight]) -> int:
    """Bytes by which a packed file gets smaller where `code_all` codes these tensors, and says which."""
    out, coded = code_all(tensors, weights)
    return sum(tensors[name].nbytes - out[name].nbytes - _said_bytes(name, coded[name]) for name in coded)


def _said_bytes(name: str, said: list[Any]) -> int:
    """Bytes of an entry of `coded` in the file's heading, where text within a text has its quotes escaped."""
    return len(json.dumps(json.dumps({name: said}, separators=(",", ":")))) - len('"{}"') + len(",")


def read_tensor(data: Bytes, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """Inverse of `code_tensor`; `ValueError` for a stream that does not hold that many numbers."""
    if dtype not in DTYPES:
        raise ValueError(f"no such type of number: {dtype!r}")
    kind: torch.dtype = getattr(torch, dtype)
    count = _count(shape)
    places = _expanded(data, count * kind.itemsize).reshape(kind.itemsize, count)
    return torch.from_numpy(np.ascontiguousarray(places.T)).view(kind).reshape(shape)


def read_joined(data: Bytes, bits: int, shape: tuple[int, ...]) -> Bytes:
    """Inverse of `code_joined`; `ValueError` as for `read_tensor`."""
    return _split(data, bits, _count(shape)).reshape(shape)


def read_codes(data: Bytes, layout: str, bits: int, shape: tuple[int, ...], zero: Bytes) -> Bytes:
    """Inverse of `code_codes`, given the zero points [o g]; `ValueError` as for `read_tensor`."""
    codes = _split(data, bits, _count(shape)).reshape(shape)
    return _centred(codes, zero, bits, sign=1) if layout == "centred" else codes


@dataclass(frozen=True)
class CodedFile:
    """A file's tensors, and how those were that are coded.

    limits: numbers in each tensor of the uncompressed model. What a stream claims to hold is held against
    these before anything is allocated for it.
    """

    tensors: dict[str, Tensor]
    coded: Mapping[str, Any]
    limits: Mapping[str, int]

    def take_integers(self, name: str, shape: tuple[int, int], bits: int) -> Integers:
        """One weight's integers; its three tensors are taken out of `tensors`."""
        if bits not in INTEGER_BITS:
            raise ValueError(f"{name} has {bits!r} bits")
        scale = self.take(f"{name}.scale", name)
        zero = self.take_codes(f"{name}.zero", name, tuple(scale.shape), bits)
        codes = self.take_codes(f"{name}.codes", name, shape, bits, zero=zero)
        return Integers(codes, scale, zero, bits)

    def parts_of(self, name: str) -> TakenParts:
        """What the file has of a weight; it is taken out of `tensors` as it is read."""
        return TakenParts(self, name)

    def take(self, name: str, owner: str) -> Tensor:
        """A tensor as it was; `owner` is the model's own that it belongs to."""
        stream = self.tensors.pop(name)
        if name not in self.coded:
            return stream
        _, dtype, shape = self._described(name, owner)
        return read_tensor(stream.numpy(), dtype, shape)

    def take_codes(
        self, name: str, owner: str, shape: tuple[int, ...], bits: int, *, zero: Tensor | None = None
    ) -> Tensor:
        """Codes of so many bits in a shape. zero: zero points of their groups, where they have such."""
        data = self.tensors.pop(name).numpy()
        if name not in self.coded:
            return torch.from_numpy(unpack_dense(data, bits, math.prod(shape)).reshape(shape))
        layout, _, said = self._described(name, owner)
        if said != shape:
            raise ValueError(f"{name} is coded as {said} and described as {shape}")
        if zero is None:
            return torch.from_numpy(read_joined(data, bits, shape))
        return torch.from_numpy(read_codes(data, layout, bits, shape, zero.numpy()))

    def _described(self, name: str, owner: str) -> tuple[str, str, tuple[int, ...]]:
        """Layout, type and shape of a coded tensor."""
        layout, dtype, shape = self.coded[name]
        if not 0 <= math.prod(shape) <= self.limits.get(owner, 0):
            raise ValueError(f"{name} claims {shape}, more numbers than the config's model has in {owner}")
        return layout, dtype, tuple(shape)


@dataclass(frozen=True)
class TakenParts:
    """The parts of the weight `owner` in a file (`stored.Parts`)."""

    file: CodedFile
    owner: str

    def tensor(self, name: str) -> Tensor:
        """A tensor as it was."""
        return self.file.take(f"{self.owner}.{name}", self.owner)

    def codes(self, name: str, bits: int, shape: tuple[int, ...]) -> Tensor:
        """Codes of so many bits, one byte each."""
        return self.file.take_codes(f"{self.owner}.{name}", self.owner, shape, bits)


def _smaller(layouts: dict[str, Bytes], plain_bytes: int) -> Stream | None:
    """The smallest stream of several layouts, if it saves enough."""
    coder = zstandard().ZstdCompressor(level=LEVEL, write_checksum=True)
    made = [(name, coder.compress(np.ascontiguousarray(x).tobytes())) for name, x in layouts.items()]
    layout, data = min(made, key=lambda pair: len(pair[1]))
    if len(data) > plain_bytes - LEAST_SAVED:
        return None
    return Stream(np.frombuffer(data, np.uint8).copy(), layout)


def _expanded(data: Bytes, size: int) -> Bytes:
    """The `size` bytes of a stream. Its own heading is compared first, so that it cannot ask for more."""
    zstd = zstandard()
    stream = data.tobytes()
    try:
        said = zstd.get_frame_parameters(stream).content_size
        if said != size:
            raise ValueError(f"the stream says {said} bytes, and {size} are needed")
        out = zstd.ZstdDecompressor().decompress(stream, max_output_size=size, allow_extra_data=False)
    except zstd.ZstdError as error:
        raise ValueError(f"the stream is damaged ({error})") from error
    if len(out) != size:
        raise ValueError(f"the stream holds {len(out)} bytes, and {size} are needed")
    return np.frombuffer(bytearray(out), np.uint8)


def _joined(codes: Bytes, bits: int) -> Bytes:
    """As many whole codes to a byte as fit, the first lowest; the last byte is filled with zeros."""
    each = 8 // bits
    if each == 1:
        return codes.reshape(-1)
    padded = np.concatenate([codes.reshape(-1), np.zeros(-codes.size % each, np.uint8)]).reshape(-1, each)
    out = np.zeros(len(padded), np.uint8)
    for place in range(each):
        out |= padded[:, place] << np.uint8(bits * place)
    return out


def _split(data: Bytes, bits: int, count: int) -> Bytes:
    """The `count` codes of a stream of joined ones."""
    each = 8 // bits
    joined = _expanded(data, -(-count // each))
    if each == 1:
        return joined
    out = np.empty((len(joined), each), np.uint8)
    for place in range(each):
        out[:, place] = (joined >> np.uint8(bits * place)) & np.uint8(2**bits - 1)
    return out.reshape(-1)[:count]


def _centred(codes: Bytes, zero: Bytes, bits: int, *, sign: int) -> Bytes:
    """Codes [o i] plus or minus the zero point of their group, modulo 2^bits."""
    o, g = zero.shape
    grouped = codes.reshape(o, g, -1)
    moved = grouped - zero[..., None] if sign < 0 else grouped + zero[..., None]  # uint8 wraps at 256
    return (moved & np.uint8(2**bits - 1)).reshape(codes.shape)


def _count(shape: tuple[int, ...]) -> int:
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError(f"{shape} is no shape")
    return math.prod(shape)


def zstandard() -> Any:
    """The package, or one clear error."""
    try:
        import zstandard as package
    except ImportError as error:
        raise AutopruneError(
            "entropy-coded storage needs the package zstandard: pip install 'autoprune[entropy]'"
        ) from error
    return package
