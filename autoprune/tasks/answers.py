"""What a model answers, and how far it is from the teacher: arrays alone, no torch.

Shapes: n rows, m answered places of all rows in order (one a row, or its tokens), k outputs, w watched
outputs, v vocabulary.

A language model's m x v logits would be gigabytes. So of each place only some log-probabilities are kept:
that of the token that came, first, and those of the teacher's likeliest w - 1; the divergence is taken over
these and over all the rest together, which can only be less than the whole one (data processing inequality:
Cover and Thomas, Elements of Information Theory, section 2.8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WATCHED = 33
"""Log-probabilities kept of a place: the next token's and those of the teacher's 32 likeliest tokens
(docs/decisions/021-log-probabilities-kept.md)."""

SMALLEST = 1e-9
"""Probability below which all the rest of the vocabulary is not counted."""


@dataclass(frozen=True)
class Answers:
    """Answers [m k] of n rows; where each row's places begin [n + 1].

    values: logits; or unit vectors, or numbers; or the log-probabilities [m w] of the outputs that are
    `watched` [m w], None where all are kept. spread: variance of the answers, summed over k, by which
    squared distances are measured; 0 where the answers are probabilities.
    """

    values: NDArray[np.float32]
    starts: NDArray[np.int64]
    watched: NDArray[np.int32] | None = None
    spread: float = 0.0

    @classmethod
    def plain(cls, values: NDArray[np.float32]) -> Answers:
        """Logits, one answer a row."""
        return cls(values, np.arange(len(values) + 1))

    def places(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the places of some rows, in the rows' order."""
        return places_of(self.starts, rows)

    def pick(self, rows: NDArray[np.int64]) -> Answers:
        """Those of some rows, in the rows' order."""
        places, counts = self.places(rows), np.diff(self.starts)[rows]
        watched = None if self.watched is None else self.watched[places]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(self.starts.dtype)
        return Answers(self.values[places], starts, watched, self.spread)

    def first(self, count: int) -> Answers:
        """Those of the first `count` rows."""
        end = self.starts[count]
        watched = None if self.watched is None else self.watched[:end]
        return Answers(self.values[:end], self.starts[: count + 1], watched, self.spread)


def places_of(starts: NDArray[np.int64], rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the places of some rows, in the rows' order; each row's begin at `starts` [n + 1]."""
    return np.concatenate([np.arange(starts[row], starts[row + 1]) for row in rows])


def spread_of(values: NDArray[np.float32]) -> float:
    """Variance of answers [m k] that are no probabilities, summed over k."""
    return max(float(values.var(0, dtype=np.float64).sum()), 1e-12)


def watch(logits: NDArray[np.float32], labels: NDArray[np.int64], count: int = WATCHED) -> NDArray[np.int32]:
    """Outputs to watch [m w]: the label, and the likeliest but one at most `count` - 1."""
    count = min(count - 1, logits.shape[1])
    top = np.argpartition(logits, -count, axis=1)[:, -count:]
    return np.concatenate([labels[:, None], top], 1).astype(np.int32)


def log_probabilities(logits: NDArray[np.float32], watched: NDArray[np.int32]) -> NDArray[np.float32]:
    """Those of the watched outputs [m w], from all logits [m v]."""
    high = logits.max(1, keepdims=True)
    total = np.log(np.exp(logits - high).sum(1, keepdims=True, dtype=np.float64)) + high
    scores: NDArray[np.float32] = (np.take_along_axis(logits, watched, 1) - total).astype(np.float32)
    return scores


def divergence(values: NDArray[np.float32], teacher: Answers | NDArray[np.float32]) -> float:
    """How far answers [m k] are from the teacher's (as `Answers`, or logits [m k]), nats a place.

    Of probabilities the mean KL(teacher || model). Of others the KL of two normal distributions about the
    two answers with the spread of the teacher's: half the squared distance by that variance.
    """
    teacher = teacher if isinstance(teacher, Answers) else Answers.plain(teacher)
    if teacher.spread > 0:
        gap = np.square(values - teacher.values, dtype=np.float64).sum(1)
        return float(gap.mean() / (2 * teacher.spread))
    return float(np.mean(divergences(values, teacher)))


def divergences(values: NDArray[np.float32], teacher: Answers) -> NDArray[np.float64]:
    """The divergence of each answer [m], nats, whose mean `divergence` is."""
    if teacher.spread > 0:
        return np.asarray(np.square(values - teacher.values, dtype=np.float64).sum(1) / (2 * teacher.spread))
    p, q = (_all(answer, teacher.watched) for answer in (teacher.values, values))
    return np.asarray(np.sum(np.exp(p) * (p - q), axis=-1))


def _all(values: NDArray[np.float32], watched: NDArray[np.int32] | None) -> NDArray[np.float64]:
    """Log-probabilities that sum to one: of all outputs, or of the likeliest and of the rest together."""
    if watched is None:
        shifted = values.astype(np.float64) - values.max(-1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
    likeliest = values[:, 1:].astype(np.float64)
    rest = np.log(np.clip(1.0 - np.exp(likeliest).sum(1, keepdims=True), SMALLEST, 1.0))
    return np.concatenate([likeliest, rest], 1)
