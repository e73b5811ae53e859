"""Codes below 8 bits laid out in bytes: dense, and in the order OpenVINO reads. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_POWERS_OF_THREE = np.array([1, 3, 9, 27, 81], np.uint8)


def pack_dense(codes: Bytes, bits: int) -> Bytes:
    """Codes as one stream of bits, lowest bit of the first code first.

    >>> pack_dense(np.array([1, 2, 3], np.uint8), 3).tolist()  # 011 010 001
    [209, 0]
    """
    spread = np.unpackbits(codes.reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return np.packbits(spread, bitorder="little")


def unpack_dense(packed: Bytes, bits: int, count: int) -> Bytes:
    """The `count` codes of a stream (inverse of `pack_dense`); a stream of another length is refused."""
    if len(packed) != -(-count * bits // 8):
        raise ValueError(f"{len(packed)} bytes do not hold {count} codes of {bits} bits")
    spread = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    return np.packbits(spread, axis=1, bitorder="little").reshape(count)


def pack_trits(trits: Bytes) -> Bytes:
    """Codes 0 to 2, five to a byte, the first lowest.

    >>> pack_trits(np.array([1, 0, 2, 2, 0, 1], np.uint8)).tolist()  # 1 + 2 * 9 + 2 * 27, 1
    [73, 1]
    """
    fives: Any = _padded(trits.reshape(-1), 5).reshape(-1, 5)
    return np.asarray((fives * _POWERS_OF_THREE).sum(1), np.uint8)


def unpack_trits(packed: Bytes, count: int) -> Bytes:
    """The `count` codes of such bytes (inverse of `pack_trits`); others, or another length, are refused."""
    if packed.dtype != np.uint8 or packed.shape != (-(-count // 5),):
        raise ValueError(f"{packed.shape} bytes do not hold {count} codes, five to a byte")
    if len(packed) and int(packed.max()) >= 3**5:
        raise ValueError(f"a byte is {int(packed.max())}, and five codes make at most {3**5 - 1}")
    return np.asarray((packed[:, None] // _POWERS_OF_THREE) % 3, np.uint8).reshape(-1)[:count]


def pack_openvino(codes: Bytes, bits: int) -> Bytes:
    """Codes in the layout of OpenVINO's u2, u3, u4, u6 and u8 constants.

    2 and 4 bits: low code first in a byte. 3 bits: eight codes in three bytes, their two low bits
    in the first two (first code highest) and their high bits in the third. 6 bits: four codes in
    three bytes, their four low bits in the first two and their two high bits in the third. A test
    holds this against constants that OpenVINO packs itself.
    """
    flat: Any = codes.reshape(-1)  # numpy's stubs widen uint8 to int in every shift
    if bits == 8:
        return codes.reshape(-1)
    if bits == 4:
        flat = _padded(flat, 2)
        return np.asarray(flat[0::2] | (flat[1::2] << 4))
    if bits == 2:
        flat = _padded(flat, 4)
        return np.asarray(flat[0::4] | (flat[1::4] << 2) | (flat[2::4] << 4) | (flat[3::4] << 6))
    if bits == 3:
        eights: Any = _padded(flat, 8).reshape(-1, 8)
        low, high = eights & 3, eights >> 2
        parts = [_joined(low[:, :4], 2), _joined(low[:, 4:], 2), _joined(high, 1)]
    else:
        fours: Any = _padded(flat, 4).reshape(-1, 4)
        low, high = fours & 15, fours >> 4
        parts = [_joined(low[:, :2], 4), _joined(low[:, 2:], 4), _joined(high, 2)]
    return np.stack(parts, axis=1).reshape(-1)


def _joined(codes: Bytes, bits: int) -> Bytes:
    """One byte a row: its codes side by side, the first in the highest place."""
    out = np.zeros(len(codes), np.uint8)
    for column in codes.T:
        out = (out << bits) | column
    return out


def _padded(flat: Bytes, multiple: int) -> Bytes:
    return np.concatenate([flat, np.zeros(-len(flat) % multiple, np.uint8)])
