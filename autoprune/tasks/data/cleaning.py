"""Which training rows are better left out: those that come twice, contradict each other, or are doubted.

Validation and test keep all their rows: what they say of a model must not depend on what was thought of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.labels import NO_CLASS
from autoprune.tasks.data.repeats import Repeats
from autoprune.tasks.data.rows import Rows
from autoprune.tasks.data.source import SPLITS

TRAIN = SPLITS[0]

LEAKED = "are in validation or test too, or nearly"
CONTRADICTED = "have another label than the same input elsewhere"
REPEATED = "repeat another"
NEARLY = "nearly repeat another of their label"
DOUBTED = "have a label that is doubted"


class LeftOutRow(NamedTuple):
    """A training row that is left out: its number among those that were read, its place there, and why."""

    number: int
    table: str
    row: int
    reason: str


@dataclass(frozen=True)
class Cleaned:
    """The training rows that are left out, in order, of so many."""

    left_out: tuple[LeftOutRow, ...]
    rows: int

    @property
    def kept(self) -> list[int]:
        """Numbers of the rows that stay."""
        numbers = {row.number for row in self.left_out}
        return [k for k in range(self.rows) if k not in numbers]

    @property
    def counts(self) -> dict[str, int]:
        """Rows by reason."""
        return dict(Counter(row.reason for row in self.left_out))

    def line(self) -> str:
        """What the plan says.

        >>> Cleaned((LeftOutRow(3, "train", 9, REPEATED),), 400).line()
        'of 400 training rows 1 is left out by --clean-data: 1 repeat another'
        """
        count = len(self.left_out)
        reasons = ", ".join(f"{number} {reason}" for reason, number in self.counts.items())
        verb = "is" if count == 1 else "are"
        told = f"of {self.rows} training rows {count} {verb} left out by --clean-data"
        return f"{told}: {reasons}" if count else told


def cleaned(repeats: Repeats, train: Rows, doubted: Sequence[int] = ()) -> Cleaned:
    """What is to be left out of training.

    Of rows that are the same one stays: the first with the label that most of them have, or none where no
    label has most. Of rows that are nearly the same the first of each label stays. Numbers as labels
    contradict nothing.

    Args:
        doubted: numbers of the training rows whose labels are doubted.
    """
    reasons: dict[int, str] = {}
    has_numbers = any(isinstance(label, float) for label in train.labels[:1])
    for group in repeats.same:
        _of_same(repeats, group, reasons, has_numbers=has_numbers)
    for group in repeats.near:
        _of_near(repeats, group, reasons)
    for number in doubted:
        reasons.setdefault(number, DOUBTED)
    places = train.places
    left_out = tuple(LeftOutRow(number, *places[number], reasons[number]) for number in sorted(reasons))
    return Cleaned(left_out, len(train))


def _of_same(repeats: Repeats, group: Sequence[int], reasons: dict[int, str], *, has_numbers: bool) -> None:
    """Note what is left out of rows that are the same."""
    spots = [repeats.spots[k] for k in group]
    train = [spot for spot in spots if spot.split == TRAIN]
    if len(train) < len(spots):
        reasons |= {spot.number: LEAKED for spot in train}
        return
    votes = Counter(spot.label for spot in train).most_common()
    if len(votes) > 1 and not has_numbers:
        wins = votes[0][0] if votes[0][1] > votes[1][1] else _NOTHING
        reasons |= {spot.number: CONTRADICTED for spot in train if spot.label != wins}
        train = [spot for spot in train if spot.label == wins]
    seen: set[Any] = set()
    for spot in train:
        if spot.label in seen:
            reasons[spot.number] = REPEATED
        seen.add(spot.label)


def _of_near(repeats: Repeats, group: Sequence[int], reasons: dict[int, str]) -> None:
    """Note what is left out of rows that are nearly the same."""
    spots = [repeats.spots[k] for k in group]
    train = [spot for spot in spots if spot.split == TRAIN and spot.number not in reasons]
    is_leak = any(spot.split != TRAIN for spot in spots)
    seen: set[Any] = set()
    for spot in train:
        if is_leak:
            reasons[spot.number] = LEAKED
        elif spot.label in seen:
            reasons[spot.number] = NEARLY
        seen.add(spot.label)


_NOTHING = object()
"""Equals no label."""


def check_enough(train: Rows, kept: Sequence[int], names: Sequence[str]) -> None:
    """Raise `AutopruneError` where a class of the training rows has none left, or no row is."""
    if not kept:
        raise AutopruneError("--clean-data leaves no training row. Look at `autoprune data`, or do without.")
    if not names:
        return
    before, after = _classes(train.labels), _classes([train.labels[k] for k in kept])
    if lost := sorted(before - after):
        told = ", ".join(f"{names[c]!r:.60}" for c in lost[:5])
        raise AutopruneError(
            f"--clean-data leaves no training row of class {told}: each of its rows repeats or contradicts "
            "others, or has a label that is doubted. Look at `autoprune data`, correct the labels, or leave "
            "it out."
        )


def _classes(labels: Sequence[Any]) -> set[int]:
    return {c for label in labels for c in (label if isinstance(label, tuple) else (label,))} - {NO_CLASS}


def cleaned_from_json(data: Mapping[str, Any]) -> Cleaned:
    """Inverse of `cleaned_as_json`."""
    rows = (LeftOutRow(int(row[0]), str(row[1]), int(row[2]), str(row[3])) for row in data["left_out"])
    return Cleaned(tuple(rows), int(data["rows"]))


def cleaned_as_json(what: Cleaned) -> dict[str, Any]:
    """As a run keeps it: each row's number among the training rows, its table and row there, and why."""
    return {"rows": what.rows, "counts": what.counts, "left_out": [list(row) for row in what.left_out]}
