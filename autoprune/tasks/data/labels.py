"""Labels as models learn them: classes and tags as 0..K-1, scores as numbers.

A tag of -100 is no label: it is what loss functions leave out (torch's `ignore_index`), and what tokenized
data sets have at special tokens. So is an empty tag, and -1 beside the ids 0..K-1, or beside declared names.
Of a row's class only -100 is no label: -1 may be a class of its own, as of sentiment.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.columns import HALF_PAIR, Row, is_blank
from autoprune.tasks.data.tables import listed
from autoprune.tasks.kinds import KINDS, TaskKind

MAX_CLASSES = 1000
"""A column with more is an id or free text, if most of its classes are of a row or two."""

FEWEST_ROWS = 3
"""Rows of a class, on average, where there are more than `MAX_CLASSES`: it can be in each split."""

NO_CLASS = -100
"""The number of a tag that is no label."""

Parts = dict[str, list[Row]]

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[-+]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"-?\d+", re.ASCII)


def classes_of(row: Row) -> set[int]:
    """The numbers of a row's class, or of its tags that are labels; the row is one of `Labelled`."""
    return {*row.label} - {NO_CLASS} if isinstance(row.label, tuple) else {row.label}


class Labelled(NamedTuple):
    """Rows by split with labels as the kind has them; names of classes or tags; what to say of them."""

    parts: Parts
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def labelled(
    parts: Mapping[str, list[Row]], declared: tuple[str, ...], kind: TaskKind, where: str
) -> Labelled:
    """Rows with labels as models learn them; those whose labels say that they have none are left out.

    Args:
        declared: class names in label order, where the data declare some.
        where: what messages call the label column.

    Raises:
        AutopruneError: when a label is none of this kind.
    """
    if kind.reads_words:
        return _tagged(parts, declared, kind, where)
    if not kind.predicts_number:
        parts = {s: [row for row in rows if not _is_no_class(row.label)] for s, rows in parts.items()}
    values = [row.label for rows in parts.values() for row in rows]
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if kind.predicts_number:
        values = _finite(values, declared, where)
    else:
        values, names = _numbered(values, declared, where, kind)
        notes = _about_minus_one(values, names)
    following = iter(values)
    done = {s: [row._replace(label=next(following)) for row in rows] for s, rows in parts.items()}
    return Labelled(done, names, notes)


def _about_minus_one(values: Sequence[int], names: tuple[str, ...]) -> tuple[str, ...]:
    if "-1" not in names or "0" not in names:
        return ()
    count = values.count(names.index("-1"))
    return (f"-1, the label of {count} rows, is a class; where it means no label, leave its cells empty",)


def _is_no_class(tag: Any) -> bool:
    """Whether it is -100, as a number or as text."""
    return not isinstance(tag, list | tuple | dict) and str(tag).strip() in ("-100", "-100.0")


def _tagged(
    parts: Mapping[str, list[Row]], declared: tuple[str, ...], kind: TaskKind, where: str
) -> Labelled:
    """Tags as numbers, one a word; rows without one that is a label are left out."""
    flat = [tag for rows in parts.values() for row in rows for tag in row.label]
    is_label = [not (is_blank(tag) or _is_no_class(tag)) for tag in flat]
    values = list(compress(flat, is_label))
    if declared or _are_ids_beside_minus_one(values):
        is_label = [known and not _is_minus_one(tag) for tag, known in zip(flat, is_label, strict=True)]
        values = list(compress(flat, is_label))
    numbers, names = _numbered(values, declared, where, kind)
    following, known_next = iter(numbers), iter(is_label)
    done: Parts = {}
    for split, rows in parts.items():
        numbered = (
            row._replace(label=tuple(next(following) if next(known_next) else NO_CLASS for _ in row.label))
            for row in rows
        )
        done[split] = [row for row in numbered if any(number != NO_CLASS for number in row.label)]
    others = compress(flat, (not known for known in is_label))
    without = Counter("empty" if is_blank(tag) else str(tag).strip() for tag in others)
    told = listed(f"{count} are {tag}" for tag, count in without.items())
    notes = [f"{sum(without.values())} of {len(flat)} words have no label: {told}"] if without else []
    if len(names) > len(set(numbers)) and not declared:
        notes.append(f"tags are ids of 0 to {len(names) - 1}")
    return Labelled(done, names, tuple(notes))


def _is_minus_one(tag: Any) -> bool:
    return str(tag).strip() in ("-1", "-1.0")


def _are_ids_beside_minus_one(tags: Sequence[Any]) -> bool:
    """Whether tags are -1 and whole numbers of 0 and more, 0 among them."""
    distinct = {str(tag).strip() for tag in tags}
    if not all(map(_NUMBER.fullmatch, distinct)):
        return False
    numbers = {float(tag) for tag in distinct}
    return {-1.0, 0.0} < numbers and all(number >= -1 and number % 1 == 0 for number in numbers)


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
    if not 2 <= len(classes) <= max(MAX_CLASSES, len(values) // FEWEST_ROWS):
        raise AutopruneError(
            f"{where}: {len(classes)} classes found ({listed(map(str, classes))}); allowed are 2 to "
            f"{MAX_CLASSES}, or more with {FEWEST_ROWS} rows each on average. Name another label column or "
            "give other rows."
        )
    if kind.reads_words and not declared:
        classes = _with_gaps(classes)
    names = declared or tuple(map(str, classes))
    number: dict[Any, int] = {value: i for i, value in enumerate(declared or classes)}
    if declared:
        number |= {i: i for i in range(len(declared))}
    unknown = [str(value) for value in classes if value not in number]
    if unknown:
        raise AutopruneError(f"{where} holds {listed(unknown)}; allowed: {listed(declared)}.")
    return [number[value] for value in values], names


def _with_gaps(classes: list[Any]) -> list[Any]:
    """All ids from 0 to the largest, where tags are ids: a class that no word has keeps its number.

    >>> _with_gaps([0, 1, 4]), _with_gaps([9, 10]), _with_gaps(["B", "O"])
    ([0, 1, 2, 3, 4], [9, 10], ['B', 'O'])
    """
    if classes[0] != 0 or not isinstance(classes[-1], int) or classes[-1] >= MAX_CLASSES:
        return classes
    return list(range(classes[-1] + 1))


def _check_types(values: Sequence[Any], where: str) -> None:
    """Raise AutopruneError for what is neither a name nor a number, and for True beside other values."""
    types = {type(value) for value in values}
    strange = next((value for value in values if not isinstance(value, str | int | float)), None)
    if strange is not None:
        raise AutopruneError(
            f"{where} holds {strange!r:.80} ({type(strange).__name__}); allowed are whole numbers or names "
            "of classes. Name another label column, or write its classes as text."
        )
    if bool in types and len(types) > 1:
        other = next(value for value in values if not isinstance(value, bool))
        raise AutopruneError(
            f"{where} holds true or false beside {other!r:.80}. Write all labels as one type."
        )


def _whole_or_text(values: Sequence[Any], where: str, kind: TaskKind) -> list[Any]:
    """Whole numbers if all are, else text: csv has no types, and pandas writes 1.0 beside gaps."""
    if any(isinstance(value, list | tuple | dict) for value in values):
        each = "a word" if kind.reads_words else "a row"
        raise AutopruneError(f"{where} holds lists, allowed is one class {each}. Name another.")
    _check_types(values, where)
    texts = [str(value).strip() for value in values]
    half = next((text for text in texts if HALF_PAIR.search(text)), None)
    if half is not None:
        raise AutopruneError(
            f"{where} holds {half!r:.80}, with half of a surrogate pair, which is no character. Write it "
            "again as UTF-8."
        )
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
    return [int(text) if _WHOLE.fullmatch(text) else int(float(text)) for text in texts]
