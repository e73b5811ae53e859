"""Symbols coded in as few bits as their frequencies allow: a range coder that numpy runs in lanes.

Source: Duda, Asymmetric numeral systems, arXiv 1311.2540 (rANS); interleaved lanes: Giesen, Interleaved
entropy coders, arXiv 1402.3392. Unlike Huffman's codes these take less than a bit for a symbol that is nearly
certain, which is what a weight is given one that is like it. Every context has frequencies of its own, which
the stream begins with.

Shapes: n symbols, c contexts, a symbols of the alphabet, l lanes.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.uint8]

PRECISION = 14
"""Bits of a frequency: the least certain symbol takes 14 bits, the most certain a ten-thousandth of one."""

LOW, WORD = np.uint64(1 << 16), np.uint64(16)
"""States lie from here to 2^32; what they get too large for is written in words of so many bits."""

SYMBOLS_A_LANE = 1024
"""Each lane costs about 28 bits, 0.03 bits a symbol; fewer lanes would take as many more steps to read."""

_LANE_BITS = 28.0

_HEAD = struct.Struct("<IHHII")


def code_symbols(symbols: Symbols, contexts: Symbols) -> bytes:
    """A stream of symbols [n] that `read_symbols` reads with the same contexts [n]."""
    used, alphabet = _extent(contexts), _extent(symbols)
    counts = np.bincount(contexts.astype(np.int64) * alphabet + symbols, minlength=used * alphabet)
    frequencies = _frequencies(counts.reshape(used, alphabet))
    starts = np.cumsum(frequencies, 1) - frequencies
    lanes = _lanes(len(symbols))
    state = np.full(lanes, LOW, np.uint64)
    steps = -(-len(symbols) // lanes)
    words, is_written = np.zeros((steps, lanes), np.uint16), np.zeros((steps, lanes), bool)
    f, start = frequencies[contexts, symbols].astype(np.uint64), starts[contexts, symbols].astype(np.uint64)
    for step in reversed(range(steps)):
        ours, at = (values[step * lanes : (step + 1) * lanes] for values in (f, start))
        x = state[: len(ours)]
        full = x >= ours << np.uint64(32 - PRECISION)
        words[step, : len(x)], is_written[step, : len(x)] = x.astype(np.uint16), full
        x = np.where(full, x >> WORD, x)
        state[: len(ours)] = ((x // ours) << np.uint64(PRECISION)) + x % ours + at
    table = zlib.compress(frequencies.astype("<u2").T.tobytes(), 9)
    lengths = zlib.compress(is_written.sum(0).astype("<u2").tobytes(), 9)
    head = _HEAD.pack(len(symbols), used, alphabet, len(table), len(lengths))
    written = words.T[is_written.T].astype("<u2").tobytes()
    return head + table + lengths + state.astype("<u4").tobytes() + written


def read_symbols(data: bytes, contexts: Symbols) -> Symbols:
    """The symbols [n] of a stream, given their contexts [n].

    Raises:
        ValueError: when it is no such stream, or is of another number of symbols.
    """
    return read_streams([(data, contexts)])[0]


def read_streams(streams: Sequence[tuple[bytes, Symbols]]) -> list[Symbols]:
    """The symbols of several streams, each with its contexts; all are read at once, which is quicker.

    Raises:
        ValueError: as of `read_symbols`.
    """
    parts = [_Stream.read(data, contexts) for data, contexts in streams]
    if not parts:
        return []
    sizes = [len(contexts) for _, contexts in streams]
    begins = np.concatenate([[0], np.cumsum(sizes)])
    tables = np.concatenate([[0], np.cumsum([part.frequencies.shape[0] for part in parts])])
    context = np.concatenate(
        [contexts.astype(np.uint32) + np.uint32(k) for (_, contexts), k in zip(streams, tables, strict=False)]
    )
    symbol_of = np.concatenate([part.symbol_of() for part in parts]).reshape(-1)
    wide = [np.pad(part.frequencies, ((0, 0), (0, 256 - part.frequencies.shape[1]))) for part in parts]
    frequency = np.concatenate(wide)
    start = (np.cumsum(frequency, 1) - frequency).reshape(-1)
    frequency = frequency.reshape(-1)
    lanes = _AllLanes.of(parts, begins)
    out = np.empty(int(begins[-1]), np.uint8)
    mask = np.uint64((1 << PRECISION) - 1)
    for step, count in enumerate(lanes.active):
        place = lanes.first[:count] + step * lanes.stride[:count]
        at, x = context[place], lanes.state[:count]
        slot = x & mask
        symbols = symbol_of[(at.astype(np.int64) << PRECISION) + slot.astype(np.int64)]
        out[place] = symbols
        known = (at.astype(np.int64) << 8) + symbols
        x = frequency[known] * (x >> np.uint64(PRECISION)) + slot - start[known]
        low = np.flatnonzero(x < LOW)
        read = lanes.read[low]
        x[low] = (x[low] << WORD) | lanes.words[np.minimum(read, len(lanes.words) - 1)]
        lanes.read[low] = read + 1
        lanes.state[:count] = x
    if (lanes.state != LOW).any() or (lanes.read != lanes.end).any():
        raise ValueError("the stream does not end where its symbols do")
    return [out[begin:end] for begin, end in itertools.pairwise(begins)]


@dataclass(frozen=True)
class _Stream:
    """The parts of a stream: frequencies [c a], words of each lane one lane after another, last states."""

    count: int
    frequencies: NDArray[np.uint64]
    lengths: NDArray[np.int64]
    state: NDArray[np.uint64]
    words: NDArray[np.uint64]

    @classmethod
    def read(cls, data: bytes, contexts: Symbols) -> _Stream:
        count, used, alphabet, table_bytes, lengths_bytes = _head(data)
        if count != len(contexts) or _extent(contexts) > used:
            raise ValueError(
                f"the stream has {count} symbols of {used} contexts, and {len(contexts)} are wanted"
            )
        lanes, begin = _lanes(count), _HEAD.size + table_bytes
        frequencies = _table(data[_HEAD.size : begin], used, alphabet)
        body = begin + lengths_bytes
        lengths = np.frombuffer(_inflated(data[begin:body], 2 * lanes), "<u2").astype(np.int64)
        wanted = body + 4 * lanes + 2 * int(lengths.sum())
        if len(data) != wanted:
            raise ValueError(f"the stream has {len(data)} bytes, and {wanted} are needed")
        state = np.frombuffer(data, "<u4", lanes, body).astype(np.uint64)
        words = np.frombuffer(data, "<u2", int(lengths.sum()), body + 4 * lanes).astype(np.uint64)
        return cls(count, frequencies, lengths, state, words)

    def symbol_of(self) -> NDArray[np.uint8]:
        """The symbol of each slot [c 2^PRECISION]."""
        alphabet = np.arange(self.frequencies.shape[1], dtype=np.uint8)
        return np.stack([np.repeat(alphabet, row.astype(np.int64)) for row in self.frequencies])


@dataclass
class _AllLanes:
    """The lanes of several streams, those with most symbols first.

    first, stride: place of a lane's first symbol among all, and how far apart its symbols are. read, end:
    where its words are read, and end. active: for each step, how many lanes have a symbol left.
    """

    state: NDArray[np.uint64]
    first: NDArray[np.int64]
    stride: NDArray[np.int64]
    read: NDArray[np.int64]
    end: NDArray[np.int64]
    words: NDArray[np.uint64]
    active: list[int]

    @classmethod
    def of(cls, parts: Sequence[_Stream], begins: NDArray[np.int64]) -> _AllLanes:
        lane = [np.arange(len(part.state)) for part in parts]
        stride = np.concatenate([np.full(len(k), len(k)) for k in lane])
        first = np.concatenate([k + begin for k, begin in zip(lane, begins, strict=False)])
        counts = np.concatenate([-(-(part.count - k) // len(k)) for part, k in zip(parts, lane, strict=True)])
        ends = np.cumsum(np.concatenate([part.lengths for part in parts]))
        reads = np.concatenate([[0], ends[:-1]])
        order = np.argsort(-counts, kind="stable")
        active = np.searchsorted(-counts[order], -np.arange(int(counts.max(initial=0))), side="left")
        state = np.concatenate([part.state for part in parts])[order]
        words = np.concatenate([*(part.words for part in parts), np.zeros(1, np.uint64)])
        return cls(state, first[order], stride[order], reads[order], ends[order], words, active.tolist())


def bits_of(symbols: Symbols, contexts: Symbols) -> float:
    """About how many bits `code_symbols` takes, tables and states too: the entropy given the contexts."""
    used, alphabet = _extent(contexts), _extent(symbols)
    counts = np.bincount(contexts.astype(np.int64) * alphabet + symbols, minlength=used * alphabet)
    table = counts.reshape(used, alphabet).astype(np.float64)
    present = table > 0
    total = np.broadcast_to(table.sum(1, keepdims=True), table.shape)
    entropy = float((table[present] * np.log2(total[present] / table[present])).sum())
    return entropy + 12.0 * int(present.sum()) + _LANE_BITS * _lanes(len(symbols)) + 8.0 * _HEAD.size


def _extent(values: Symbols) -> int:
    """One more than the largest; 1 of none."""
    return int(values.max(initial=0)) + 1


def _lanes(count: int) -> int:
    return max(1, count // SYMBOLS_A_LANE)


def _frequencies(counts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Counts [c a] as shares of 2^PRECISION, at least 1 of each symbol that there is."""
    whole = 1 << PRECISION
    out = np.zeros(counts.shape, np.int64)
    for row, count in zip(out, counts, strict=True):
        if not count.any():
            row[0] = whole
            continue
        row[:] = np.where(count > 0, np.maximum(count * whole // count.sum(), 1), 0)
        while (excess := int(row.sum()) - whole) > 0:  # rare symbols got more than their share
            largest = int(row.argmax())
            row[largest] -= min(excess, max(int(row[largest]) // 2, 1))
        row[int(row.argmax())] -= excess
    return out.astype(np.uint64)


def _head(data: bytes) -> tuple[int, int, int, int, int]:
    if len(data) < _HEAD.size:
        raise ValueError("the stream has no beginning")
    count, used, alphabet, table_bytes, words = _HEAD.unpack_from(data)
    if not (1 <= used <= 256 and 1 <= alphabet <= 256):
        raise ValueError(f"the stream says {used} contexts and {alphabet} symbols")
    return count, used, alphabet, table_bytes, words


def _table(data: bytes, used: int, alphabet: int) -> NDArray[np.uint64]:
    """The frequencies [c a] that a stream begins with."""
    raw = _inflated(data, 2 * used * alphabet)
    table = np.frombuffer(raw, "<u2").reshape(alphabet, used).T.astype(np.uint64)
    if (table.sum(1) != 1 << PRECISION).any():
        raise ValueError("the frequencies of the stream do not add up")
    return table


def _inflated(data: bytes, size: int) -> bytes:
    """The `size` bytes that were compressed by zlib, and no more of them."""
    try:
        raw = zlib.decompressobj().decompress(data, size)
    except zlib.error as error:
        raise ValueError(f"the stream is damaged ({error})") from error
    if len(raw) != size:
        raise ValueError(f"the stream has {len(raw)} bytes in the place of {size}")
    return raw
