"""What the points to choose from lose or gain in single classes, as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.report.text import DASH, MINUS, percent
from autoprune.run.class_scores import FEWEST_SHOWN
from autoprune.run.front_schema import Front

MOST_CLASSES = 20
"""Rows of the table: the classes that changed most."""

Scores = Sequence[float | None]


@dataclass(frozen=True)
class ClassCell:
    """What a point scores in a class, and by how many points that is off the original's."""

    score: str
    change: str
    is_worst: bool


@dataclass(frozen=True)
class ClassRow:
    """One class: its name, its validation rows, and the percent right of the original and each point."""

    name: str
    rows: str
    original: str
    cells: tuple[ClassCell, ...]


@dataclass(frozen=True)
class ClassTable:
    """The classes that changed most, against the original. heads: of a column for each point."""

    heads: tuple[tuple[str, str], ...]
    rows: tuple[ClassRow, ...]
    note: str


def class_table(front: Front) -> ClassTable | None:
    """The scores of single classes; None where the run has none, of the original or of any point."""
    scores, original = front.class_scores, front.original
    before = None if scores is None or original is None else scores.percent_right.get(str(original.number))
    if scores is None or before is None:
        return None
    points = [
        (row.label, ", ".join(words), after)
        for row, words in front.named
        if row is not original and (after := scores.percent_right.get(str(row.number))) is not None
    ]
    if not points:
        return None
    changes = [_changes(before, after) for _, _, after in points]
    worst = [_worst(change, scores.validation_rows) for change in changes]
    shown = _shown(changes, worst)
    rows = tuple(
        ClassRow(
            name=scores.classes[k],
            rows=f"{scores.validation_rows[k]:,}",
            original=percent(before[k]),
            cells=tuple(
                ClassCell(percent(after[k]), _signed(change[k]), k == lost)
                for (_, _, after), change, lost in zip(points, changes, worst, strict=True)
            ),
        )
        for k in shown
    )
    heads = tuple((label.capitalize(), words) for label, words, _ in points)
    return ClassTable(
        heads, rows, _note(len(scores.classes) - len(shown), is_any_worst=any(k is not None for k in worst))
    )


def _changes(before: Scores, after: Scores) -> list[float | None]:
    """Points that each class changed by."""
    return [None if a is None or b is None else b - a for a, b in zip(before, after, strict=True)]


def _worst(changes: Scores, rows: Sequence[int]) -> int | None:
    """The class that lost the most, of those with rows enough; None where none lost."""
    lost = [
        (change, k)
        for k, (change, count) in enumerate(zip(changes, rows, strict=True))
        if change is not None and change < 0 and count >= FEWEST_SHOWN
    ]
    return min(lost)[1] if lost else None


def _shown(changes: Sequence[Scores], worst: Sequence[int | None]) -> list[int]:
    """Numbers of the classes that changed most, the largest first; each point's worst is among them."""
    most = [max(abs(change[k] or 0.0) for change in changes) for k in range(len(changes[0]))]
    order = sorted(range(len(most)), key=lambda k: (k not in worst, -most[k], k))[:MOST_CLASSES]
    return sorted(order, key=lambda k: (-most[k], k))


def _signed(change: float | None) -> str:
    if change is None:
        return DASH
    text = f"{abs(change):.1f}"
    return text if text == "0.0" else f"{'+' if change > 0 else MINUS}{text}"


def _note(left: int, *, is_any_worst: bool) -> str:
    """How the table is to be read, and what it leaves out."""
    marked = (
        f" The largest loss of each point is marked, of classes of {FEWEST_SHOWN} rows or more."
        if is_any_worst
        else ""
    )
    more = f" {left:,} more class{'es' * (left > 1)} changed less." if left else ""
    told = "Percent of a class\u2019s validation rows that are right, and points off the original."
    return f"{told}{marked}{more}"
