"""The integers of a weight, written as what is not known of them once a weight that is like them is known.

A unit at 4 bits and the same unit at 8 are roundings of nearly the same numbers: given the one, the other's
codes are guessed by rounding, and what is written is how far each guess is off. Rounding with error feedback
(`compress.gptq`) moves codes, mostly where the number lies near the middle between two of them, so the
distance to the guess is the context that its error is coded in (`compress.ans`). Nothing is lost.

Deltas between models of one family: Yao and Klimovic, DeltaZip, arXiv 2312.05215, which rounds them; here
they are exact. Arithmetic is elementwise in float32, which IEEE 754 makes the same on every machine.

Shapes: o rows, i columns, g groups in a row of a weight; O, I rows and columns of the one that is like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.compress import ans

Codes = NDArray[np.uint8]
WeightNumbers = NDArray[np.float32]

DISTANCES = 8
"""Contexts of a guess's distance from the number, up to half a code; one more is of numbers out of range."""

MOST_COMPARED = 4e11
"""Products at most to find which rows are which: a second or ten."""


@dataclass(frozen=True)
class IntegerArrays:
    """A weight in integers: codes [o i], half-float scales [o g], zero points [o g]."""

    codes: Codes
    scale: NDArray[np.float16]
    zero: Codes
    bits: int

    def dequantize(self) -> WeightNumbers:
        """The numbers [o i] that it stands for."""
        o, g = self.scale.shape
        centred = self.codes.reshape(o, g, -1).astype(np.float32) - self.zero[..., None].astype(np.float32)
        return (centred * self.scale[..., None].astype(np.float32)).reshape(self.codes.shape)


@dataclass(frozen=True)
class Streams:
    """What is written of a weight: scales and zero points, and codes, each as `compress.ans` codes it."""

    steps: bytes
    codes: bytes

    @property
    def size(self) -> int:
        """Bytes of both."""
        return len(self.steps) + len(self.codes)


@dataclass(frozen=True)
class WrittenWeight:
    """A weight to read. like: the numbers [o i] it was given. groups: of a row."""

    streams: Streams
    like: WeightNumbers | None
    shape: tuple[int, int]
    groups: int
    bits: int


def write_given(weight: IntegerArrays, like: WeightNumbers | None) -> Streams:
    """A weight, given numbers [o i] that are like its own; None where there are none."""
    return Streams(
        ans.code_symbols(*_step_symbols(weight, like)), ans.code_symbols(*_code_symbols(weight, like))
    )


def bits_given(weight: IntegerArrays, like: WeightNumbers | None) -> float:
    """About how many bits `write_given` takes, without writing."""
    return ans.bits_of(*_step_symbols(weight, like)) + ans.bits_of(*_code_symbols(weight, like))


def read_given(weights: Sequence[WrittenWeight]) -> list[IntegerArrays]:
    """Inverse of `write_given`, of several weights at once.

    Raises:
        ValueError: when a stream is damaged, or is of other shapes.
    """
    for weight in weights:
        if not 1 <= weight.bits <= 8 or weight.groups < 1 or weight.shape[1] % weight.groups:
            raise ValueError(
                f"no integers have {weight.bits} bits and {weight.groups} groups in {weight.shape[1]} columns"
            )
    counts = [weight.shape[0] * weight.groups for weight in weights]
    steps = ans.read_streams(
        [(weight.streams.steps, _planes(count)) for weight, count in zip(weights, counts, strict=True)]
    )
    scales = [_scales(weight, symbols) for weight, symbols in zip(weights, steps, strict=True)]
    guesses = [
        _guesses(weight.like, scale, zero, weight.shape[1], weight.bits)
        for weight, (scale, zero) in zip(weights, scales, strict=True)
    ]
    off = ans.read_streams(
        [(weight.streams.codes, context) for weight, (*_, context) in zip(weights, guesses, strict=True)]
    )
    out = []
    for weight, (scale, zero), (guess, sign, _), errors in zip(weights, scales, guesses, off, strict=True):
        codes = guess.reshape(-1) + sign.reshape(-1) * errors.astype(np.int16)
        codes = (codes & (2**weight.bits - 1)).astype(np.uint8).reshape(weight.shape)
        out.append(IntegerArrays(codes, scale, zero, weight.bits))
    return out


def _scales(weight: WrittenWeight, symbols: Codes) -> tuple[NDArray[np.float16], Codes]:
    """Scales and zero points [o g] from their symbols."""
    o, g, bits = weight.shape[0], weight.groups, weight.bits
    low, high, zeros = symbols.reshape(3, -1)
    steps = low | high.astype(np.uint16) << np.uint16(8)
    expected = _expected_scale(weight.like, o, g, bits).view(np.uint16).reshape(-1)
    scale = (steps + expected).view(np.float16).reshape(o, g)
    zero = (zeros + _expected_zero(weight.like, scale, bits).reshape(-1)) & np.uint8(2**bits - 1)
    return scale, zero.reshape(o, g)


def rows_like(weight: WeightNumbers, other: WeightNumbers) -> NDArray[np.uint32] | None:
    """For each row [o i] the number of the row of another weight [O i] that is most like it (cosine).

    None where that would take too long.
    """
    if float(len(weight)) * other.size > MOST_COMPARED:
        return None
    ours, theirs = (_unit_rows(rows) for rows in (weight, other))
    out = np.empty(len(ours), np.uint32)
    for begin in range(0, len(ours), 1024):
        out[begin : begin + 1024] = (ours[begin : begin + 1024] @ theirs.T).argmax(1)
    return out


# ---- what is expected ---------------------------------------------------------------------------


def _code_symbols(weight: IntegerArrays, like: WeightNumbers | None) -> tuple[Codes, Codes]:
    """How far each guess of a code is off, modulo 2^bits, and the context it is coded in."""
    guess, sign, contexts = _guesses(like, weight.scale, weight.zero, weight.codes.shape[1], weight.bits)
    off = (weight.codes.astype(np.int16) - guess) * sign
    return (off & (2**weight.bits - 1)).astype(np.uint8).reshape(-1), contexts


def _guesses(
    like: WeightNumbers | None, scale: NDArray[np.float16], zero: Codes, columns: int, bits: int
) -> tuple[NDArray[np.int16], NDArray[np.int16], Codes]:
    """Guesses of the codes [o i], the side on which the number lies of each, and contexts, flat.

    Without numbers to guess from, the zero point is the guess.
    """
    o, g = scale.shape
    if like is None:
        guess = np.repeat(zero.astype(np.int16), columns // g, 1)
        return guess, np.ones_like(guess), np.zeros(o * columns, np.uint8)
    exact = like.reshape(o, g, -1) / scale[..., None].astype(np.float32)
    exact = (exact + zero[..., None].astype(np.float32)).reshape(o, columns)
    guess = np.clip(np.rint(exact), 0, 2**bits - 1).astype(np.int16)
    gap = exact - guess
    context = np.minimum(np.abs(gap) * np.float32(2 * DISTANCES), np.float32(DISTANCES)).astype(np.uint8)
    return guess, np.where(gap < 0, np.int16(-1), np.int16(1)), context.reshape(-1)


def _step_symbols(weight: IntegerArrays, like: WeightNumbers | None) -> tuple[Codes, Codes]:
    """Steps of half floats from the expected scales, low bytes then high bytes, and of zero points.

    With them what each symbol is, which is its context.
    """
    o, g = weight.scale.shape
    expected = _expected_scale(like, o, g, weight.bits).view(np.uint16)
    steps = (weight.scale.view(np.uint16) - expected).reshape(-1)
    low, high = (steps & np.uint16(255)).astype(np.uint8), (steps >> np.uint16(8)).astype(np.uint8)
    zeros = weight.zero - _expected_zero(like, weight.scale, weight.bits)  # uint8 wraps at 256
    zeros = (zeros & np.uint8(2**weight.bits - 1)).reshape(-1)
    return np.concatenate([low, high, zeros]), _planes(len(steps))


def _planes(count: int) -> Codes:
    return np.repeat(np.array([0, 1, 2], np.uint8), count)


def _expected_scale(like: WeightNumbers | None, rows: int, groups: int, bits: int) -> NDArray[np.float16]:
    """Scales [o g] with which each group's numbers have all codes."""
    if like is None:
        return np.zeros((rows, groups), np.float16)
    grouped = like.reshape(rows, groups, -1)
    low, high = np.minimum(grouped.min(2), 0), np.maximum(grouped.max(2), 0)
    return np.asarray(((high - low) / np.float32(2**bits - 1)).clip(0, 65504), np.float16)


def _expected_zero(like: WeightNumbers | None, scale: NDArray[np.float16], bits: int) -> Codes:
    """Zero points [o g] with which each group's smallest number has the smallest code."""
    if like is None:
        return np.zeros(scale.shape, np.uint8)
    low = np.minimum(like.reshape(*scale.shape, -1).min(2), 0)
    exact = np.rint(-low / np.maximum(scale.astype(np.float32), np.float32(2.0**-24)))
    return np.asarray(exact.clip(0, 2**bits - 1), np.uint8)


def _unit_rows(rows: WeightNumbers) -> WeightNumbers:
    lengths = np.sqrt(np.einsum("ri,ri->r", rows, rows))[:, None]
    scaled: WeightNumbers = (rows / np.maximum(lengths, np.float32(1e-12))).astype(np.float32)
    return scaled
