"""The score of each row, so that two models can be compared on the same rows; and these scores as short text.

A model's rows say far more of its difference from another than its mean does: most rows are answered alike.
Scores alone are kept, in the order of the rows; no text and no answer.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from autoprune.tasks.answers import Answers
    from autoprune.tasks.task import Data, Task

LONGEST = 60_000
"""Most characters of the scores as text, which a database of MySQL keeps in a column of 65,535 bytes: those
of the first 359,000 rows that are right or wrong, or of 22,000 rows that have a number."""

FEWEST_OF_CLASS = 10
"""Rows of a class below which what share of them is right says little."""

BITS, NUMBERS = "bits", "numbers"
"""What a text begins with: one bit a row, or a half float a row."""


def row_scores(
    task: Task, data: Data, values: NDArray[np.float32], teacher: Answers | None = None
) -> NDArray[np.bool_] | NDArray[np.float64] | None:
    """The score of each row [n] from answers [m k] to all rows in order; None where the metric has none.

    Larger is better, and differences between two models count alone. One bit where each row has one answer
    that is right or wrong. Where a row has several answers their sum counts, by the mean number of answers:
    the mean over rows is then that over answers, and rows are what is drawn at random (Cameron and Miller, A
    Practitioner's Guide to Cluster-Robust Inference, 2015).
    """
    labels = task.labels(data, np.arange(len(data)))
    if task.own is not None:
        is_named = bool(task.label_names) and values.ndim == 2 and labels.shape == values.shape[:1]
        return np.asarray(values.argmax(-1) == labels) if is_named else None
    if task.metric.by_place is None:
        return None
    scores = task.metric.by_place(values, labels, teacher)
    starts = task.answer_starts(data)
    if starts[-1] == len(data):
        return scores
    counted = np.concatenate([[0.0], np.cumsum(scores, dtype=np.float64)])
    sums: NDArray[np.float64] = (counted[starts[1:]] - counted[starts[:-1]]) * len(data) / max(starts[-1], 1)
    return sums


@dataclass(frozen=True)
class ClassRows:
    """The class of each row [n], of a split whose rows are right or wrong; names of the classes [k]."""

    names: tuple[str, ...]
    numbers: NDArray[np.int64]

    @property
    def counts(self) -> list[int]:
        """Rows of each class."""
        return [int(count) for count in np.bincount(self.numbers, minlength=len(self.names))]

    def right(self, text: str) -> list[float | None] | None:
        """Percent of each class's rows that are right (recall), from what `rows_as_text` wrote.

        None of a class that has no row, or altogether where rows are not kept as right or wrong.

        >>> three = ClassRows(("a", "b", "c"), np.array([0, 0, 1, 1]))
        >>> three.right(rows_as_text(np.array([True, False, True, True])))
        [50.0, 100.0, None]
        """
        scores = rows_of_text(text)
        if scores is None or scores.dtype != np.bool_ or len(scores) != len(self.numbers):
            return None
        right = np.bincount(self.numbers[scores], minlength=len(self.names))
        return [
            100.0 * int(n) / count if count else None for n, count in zip(right, self.counts, strict=True)
        ]

    def worst_loss(self, text: str, original: str) -> tuple[str, float, float] | None:
        """The class that lost the most against the original: its name, and percent right now and then.

        Of classes of `FEWEST_OF_CLASS` rows; None where none lost.
        """
        now, then = self.right(text), self.right(original)
        if now is None or then is None:
            return None
        losses = [
            (after - before, name, after, before)
            for name, count, after, before in zip(self.names, self.counts, now, then, strict=True)
            if count >= FEWEST_OF_CLASS and after is not None and before is not None and after < before
        ]
        return min(losses)[1:] if losses else None


def class_rows(task: Task, data: Data) -> ClassRows | None:
    """The classes of a split's rows; None where a row has no class of its own."""
    labels = task.labels(data, np.arange(len(data)))
    is_class = task.kind.predicts_classes or (task.kind.is_own and bool(task.label_names))
    has_each = labels.shape == (len(data),) and labels.dtype.kind in "iu" and not task.kind.answers_each_token
    if not (is_class and has_each) or not len(labels) or labels.min() < 0:
        return None
    return ClassRows(task.label_names, labels) if labels.max() < len(task.label_names) else None


def rows_as_text(scores: NDArray[Any] | None) -> str:
    """Scores of rows [n] as text: a bit each where they are right or wrong, else a half float; "" for None.

    >>> rows_as_text(np.array([True, False, True])), rows_as_text(None)
    ('bits 3 oA==', '')
    """
    if scores is None:
        return ""
    if scores.dtype == np.bool_:
        scores = scores[: (LONGEST - 20) // 4 * 3 * 8]
        return _text(BITS, len(scores), np.packbits(scores).tobytes())
    half = np.clip(scores[: (LONGEST - 20) // 4 * 3 // 2], -60_000, 60_000).astype("<f2")
    return _text(NUMBERS, len(half), half.tobytes())


@lru_cache(maxsize=256)
def rows_of_text(text: str) -> NDArray[np.bool_] | NDArray[np.float64] | None:
    """The scores [n] that `rows_as_text` wrote; None for "" and for what it did not write."""
    parts = text.split(" ")
    if len(parts) != 3 or parts[0] not in (BITS, NUMBERS) or not parts[1].isdecimal():
        return None
    count = int(parts[1])
    try:
        raw = base64.b64decode(parts[2], validate=True)
    except ValueError:
        return None
    if len(raw) != (-(-count // 8) if parts[0] == BITS else 2 * count):
        return None
    if parts[0] == BITS:
        return np.unpackbits(np.frombuffer(raw, np.uint8), count=count).astype(np.bool_)
    return np.frombuffer(raw, "<f2").astype(np.float64)


def _text(kind: str, count: int, raw: bytes) -> str:
    return f"{kind} {count} {base64.b64encode(raw).decode('ascii')}"
