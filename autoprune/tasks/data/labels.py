"""Labels as models learn them: classes and tags as 0..K-1, scores as numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.columns import Row
from autoprune.tasks.data.tables import listed
from autoprune.tasks.kinds import KINDS, TaskKind

MAX_CLASSES = 1000  # a column with more is an id or free text, not a label
Parts = dict[str, list[Row]]

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[-+]?\d+)?")


def labelled(
    parts: Mapping[str, list[Row]], declared: tuple[str, ...], kind: TaskKind, where: str
) -> tuple[Parts, tuple[str, ...]]:
    """Rows by split with labels as the kind has them, and the names of classes or tags.

    Args:
        declared: class names in label order, where the data declare some.
        where: what messages call the label column.

    Raises:
        AutopruneError: when a label is none of this kind.
    """
    if kind.reads_words:
        return _tagged(parts, declared, kind, where)
    values = [row.label for rows in parts.values() for row in rows]
    names: tuple[str, ...] = ()
    if kind.predicts_number:
        values = _finite(values, declared, where)
    else:
        values, names = _numbered(values, declared, where, kind)
    following = iter(values)
    return {s: [row._replace(label=next(following)) for row in rows] for s, rows in parts.items()}, names


def _tagged(
    parts: Mapping[str, list[Row]], declared: tuple[str, ...], kind: TaskKind, where: str
) -> tuple[Parts, tuple[str, ...]]:
    """Tags as numbers, one a word."""
    flat = [tag for rows in parts.values() for row in rows for tag in row.label]
    numbers, names = _numbered(flat, declared, where, kind)
    following = iter(numbers)
    done = {
        split: [row._replace(label=tuple(next(following) for _ in row.label)) for row in rows]
        for split, rows in parts.items()
    }
    return done, names


def _finite(values: Sequence[Any], declared: tuple[str, ...], where: str) -> list[float]:
    """Scores as numbers; classes are refused."""
    instead = "To tell classes apart use --task text-classification."
    if declared:
        raise AutopruneError(
            f"{where} declares the classes {listed(declared)}; allowed are finite numbers. {instead}"
        )
    numbers = []
    for value in values:
        try:
            number = math.nan if isinstance(value, bool | list | tuple) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise AutopruneError(f"{where} holds {value!r:.80}; allowed are finite numbers. {instead}")
        numbers.append(number)
    if len(set(numbers)) < 2:
        raise AutopruneError(f"{where} holds {numbers[0]:g} only; scores that differ are needed.")
    return numbers


def _numbered(
    values: Sequence[Any], declared: tuple[str, ...], where: str, kind: TaskKind
) -> tuple[list[int], tuple[str, ...]]:
    """Labels as 0..K-1: by the declared class names, else sorted as whole numbers or as text."""
    values = _whole_or_text(values, where, kind)
    classes = sorted(set(values))
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise AutopruneError(
            f"{where}: {len(classes)} classes found ({listed(map(str, classes))}); "
            f"allowed are 2 to {MAX_CLASSES}. Name another label column or give other rows."
        )
    names = declared or tuple(map(str, classes))
    number: dict[Any, int] = {value: i for i, value in enumerate(declared or classes)}
    if declared:
        number |= {i: i for i in range(len(declared))}
    unknown = [str(value) for value in classes if value not in number]
    if unknown:
        raise AutopruneError(f"{where} holds {listed(unknown)}; allowed: {listed(declared)}.")
    return [number[value] for value in values], names


def _whole_or_text(values: Sequence[Any], where: str, kind: TaskKind) -> list[Any]:
    """Whole numbers if all are, else text: csv has no types, and pandas writes 1.0 beside gaps."""
    if any(isinstance(value, list | tuple | dict) for value in values):
        each = "a word" if kind.reads_words else "a row"
        raise AutopruneError(f"{where} holds lists, allowed is one class {each}. Name another.")
    texts = [str(value).strip() for value in values]
    if not all(map(_NUMBER.fullmatch, texts)):
        return texts
    fraction = next((text for text in texts if float(text) % 1), None)
    if fraction:
        scores = [
            other.name for other in KINDS if other.predicts_number and other.reading.what == kind.reading.what
        ]
        score = f"use --task {scores[0]} for it" if scores else "round it to classes"
        raise AutopruneError(
            f"{where} holds fractions such as {fraction}; allowed are whole numbers or names of "
            f"classes. A score to predict is no class: {score}, or name another column."
        )
    return [int(float(text)) for text in texts]
