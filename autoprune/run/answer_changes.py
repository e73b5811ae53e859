"""`answer_changes.json`: where the points to ship answer otherwise than the original does, on validation."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import pydantic

from autoprune.core.files import write_json
from autoprune.run.recorded import recorded

ANSWER_CHANGES, FIELD = "answer_changes.json", "answer_changes"

MOST_CLASSES = 20
"""Classes up to which all counts of a confusion matrix are kept; of more, as many of the largest cells."""

MOST_EXAMPLES = 20
"""Rows that are kept of a point."""

LONGEST_TEXT = 200
"""Characters of a row that are kept."""

LONGEST_PICTURE = 8_000
"""Characters of a picture's data URI, of at most 32 pixels a side."""

_PICTURE = re.compile(r"data:image/(webp|jpeg|png);base64,[A-Za-z0-9+/=]+", re.ASCII)


class _Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)


class Cell(NamedTuple):
    """A cell of a confusion matrix: numbers of the true and the answered class; a count of each model."""

    true: int
    answered: int
    now: int
    original: int


class KeptRow(_Frozen):
    """What is shown of a validation row: its text, cut, or a small picture as a data URI; or neither.

    word: of the text, what the answer is to, where it is not to all of it.
    """

    text: str = ""
    word: str = ""
    picture: str = ""

    @pydantic.field_validator("picture")
    @classmethod
    def _is_picture(cls, uri: str) -> str:
        if uri and (len(uri) > LONGEST_PICTURE or not _PICTURE.fullmatch(uri)):
            raise ValueError(f"no small picture as a data URI: {uri[:60]!r}")
        return uri


class Example(_Frozen):
    """A place whose answer changed: its row, what should be answered, and what both models answer.

    place: among the answers to the row, where it has several. original_sure, now_sure: the probability of the
    answer, 0 to 1; of a token, of the one that came; of a vector its cosine with the original's; None of
    numbers.
    """

    row: int
    place: int | None = None
    expected: str = ""
    original: str = ""
    now: str = ""
    original_sure: float | None = None
    now_sure: float | None = None
    kl: float

    @property
    def key(self) -> str:
        """Of what is kept of the row."""
        return str(self.row) if self.place is None else f"{self.row}.{self.place}"


class PointChanges(_Frozen):
    """What a point answers otherwise than the original, of `places` answers.

    changed: answers that differ. lost: of these, right before and wrong now; won: the other way; both None
    where answers are neither. confusion: of classes alone. kl: nats a place.
    """

    changed: int | None = None
    lost: int | None = None
    won: int | None = None
    kl: float
    confusion: tuple[Cell, ...] = ()
    examples: tuple[Example, ...] = ()


class AnswerChanges(_Frozen):
    """Points by number of trial, and what of the data is kept to show, by `Example.key`.

    sort: what an answer is: class, tag, token, number or vector. examples: whether rows of data are kept.
    """

    sort: str
    places: int
    classes: tuple[str, ...] = ()
    examples: bool = True
    rows: dict[str, KeptRow] = {}
    points: dict[str, PointChanges] = {}

    @pydantic.model_validator(mode="after")
    def _of_these_classes(self) -> Self:
        cells = [cell for point in self.points.values() for cell in point.confusion]
        if any(not 0 <= k < len(self.classes) for cell in cells for k in (cell.true, cell.answered)):
            raise ValueError(f"a confusion matrix has other classes than the {len(self.classes)} named")
        return self

    def with_point(self, number: int, point: PointChanges, rows: Mapping[str, KeptRow]) -> Self:
        """The same with one more point."""
        points = {**self.points, str(number): point}
        return self.model_copy(update={"points": points, "rows": {**self.rows, **rows}})

    def of_points(self, numbers: Collection[str]) -> Self:
        """The same with these points alone, and the rows that they show."""
        points = {number: point for number, point in self.points.items() if number in numbers}
        shown = {example.key for point in points.values() for example in point.examples}
        rows = {key: row for key, row in self.rows.items() if key in shown}
        return self.model_copy(update={"points": points, "rows": rows})


def recorded_changes(run: Path) -> AnswerChanges | None:
    """What is recorded in a run folder; None where nothing is.

    Raises:
        AutopruneError: where the file is damaged.
    """
    return recorded(AnswerChanges, run / ANSWER_CHANGES)


def record_changes(run: Path, what: AnswerChanges) -> None:
    """Write it, whole or not at all."""
    write_json(run / ANSWER_CHANGES, what.model_dump())


def changes_field(run: Path) -> dict[str, Any]:
    """What `front.json` has of it: the field `answer_changes`, or none; without rows of data."""
    what = recorded_changes(run)
    return {} if what is None else without_rows({FIELD: what.model_dump()})


def with_rows(front: Mapping[str, Any], run: Path) -> Mapping[str, Any]:
    """A `front.json` with the rows of data that its run keeps, for the report."""
    what = recorded_changes(run)
    return front if what is None else {**front, FIELD: what.model_dump()}


def without_rows(front: Mapping[str, Any]) -> dict[str, Any]:
    """A `front.json` without rows of data: what is copied, saved and logged elsewhere."""
    what = front.get(FIELD)
    if not what:
        return dict(front)
    points = {number: {**point, "examples": []} for number, point in what["points"].items()}
    return {**front, FIELD: {**what, "rows": {}, "points": points}}
