"""The score of each row, so that two models can be compared on the same rows; and these scores as short text.

A model's rows say far more of its difference from another than its mean does: most rows are answered alike.
Scores alone are kept, in the order of the rows; no text and no answer.
"""

from __future__ import annotations

import base64
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
