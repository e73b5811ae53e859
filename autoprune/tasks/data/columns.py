"""The columns of a table that a kind of task reads, by name or by convention, and the rows they give."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.images import StoredImage, image_keys, is_missing
from autoprune.tasks.data.row_counts import LeftOut
from autoprune.tasks.data.tables import Table, listed
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.reading import Reading

Text = str | tuple[str, ...]
"""A text, or the words of one where each has a tag."""

HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which no file and no tokenizer takes."""


class WantedColumns(NamedTuple):
    """Columns that the user names; what is not named is found by convention."""

    texts: Sequence[str] = ()
    image: str | None = None
    label: str | None = None
    group: str | None = None

    def check(self, kind: TaskKind) -> None:
        """Raises AutopruneError where a column is named that rows of this kind have not."""
        reads = kind.reading
        wrong = {
            "--text-column": self.texts and reads.option != "--text-column",
            "--image-column": self.image and reads.option != "--image-column",
            "--label-column": self.label and not reads.labels,
        }
        for option in (name for name, given in wrong.items() if given):
            has = f"rows of {kind} have {reads.needs}{'' if reads.labels else ' and no label'}"
            raise AutopruneError(f"{option} is given, but {has}. Leave it out, or name another task.")


class Columns(NamedTuple):
    """The columns that are read: of inputs, of the label ("" without one) and of the group."""

    inputs: tuple[str, ...]
    label: str
    group: str | None


class Row(NamedTuple):
    """One example: its texts or its image, its label as read or as numbered, and its group.

    image_key: a hash that is equal for equal images. table, number: where it was read; the first is row 0.
    """

    texts: tuple[Text, ...]
    label: Any = None
    group: str | None = None
    image: StoredImage | None = None
    image_key: str = ""
    table: str = ""
    number: int = -1

    @property
    def text_key(self) -> str:
        """Rows with one key are the same: case and spacing of texts do not count."""
        return self.image_key or text_key(self.texts)


def text_key(texts: Sequence[Text]) -> str:
    """What texts are without case and spacing, a pair's joined by a null.

    >>> text_key(("A  Fine film",)), text_key((("A", "fine"), "x"))
    ('a fine film', 'a fine\\x00x')
    """
    whole = (text if isinstance(text, str) else " ".join(text) for text in texts)
    return "\0".join(" ".join(text.split()).casefold() for text in whole)


def find_columns(table: Table, name: str, wanted: WantedColumns, reads: Reading) -> Columns:
    """The columns named, else the first by convention.

    Raises:
        AutopruneError: when one is not there, or they do not go together.
    """
    inputs = (wanted.texts,) if isinstance(wanted.texts, str) else tuple(wanted.texts)
    inputs = (wanted.image,) if wanted.image else inputs
    named = [*inputs, *(column for column in (wanted.label, wanted.group) if column)]
    has = f"{name} has the columns {listed(table.names)}"
    missing = [column for column in named if column not in table.names]
    if missing:
        raise AutopruneError(f"column {listed(missing)} does not exist: {has}. Name one of these.")
    free = {column.strip().lower(): column for column in reversed(table.names) if column not in named}
    options = [*reads.pairs, *((name,) for name in reads.inputs)]
    label = wanted.label or next((free[n] for n in reads.labels if n in free), "")
    inputs = inputs or next((tuple(free[n] for n in o) for o in options if free.keys() >= {*o}), ())
    if not inputs or (reads.labels and not label):
        what, known = ("label", reads.labels) if inputs else (reads.what, reads.inputs)
        option = "--label-column" if inputs else reads.option
        raise AutopruneError(
            f"no {what} column found: {has}; known are {listed(known)}. Name it by {option}."
        )
    _check_apart(inputs, label, reads)
    return Columns(inputs, label, wanted.group)


def _check_apart(inputs: tuple[str, ...], label: str, reads: Reading) -> None:
    columns = (*inputs, label) if label else inputs
    if len({*columns}) == len(columns) and len(inputs) <= reads.most:
        return
    allowed = f"{'1 or 2' if reads.most == 2 else '1'} {reads.what} column{'s' if reads.most == 2 else ''}"
    came = f"{reads.what} columns {listed(inputs)}"
    if label:
        came += f" with label column {listed([label])}"
        allowed += " and a label column that is none of them"
    raise AutopruneError(f"{came}: allowed are {allowed}.")


def read_rows(
    table: Table,
    where: str,
    columns: Columns,
    reads: Reading,
    side: int | None,
    left_out: LeftOut,
    *,
    by_pixels: bool = False,
) -> list[Row]:
    """The rows that have all inputs and a label; none where the split has no labels.

    Args:
        side: pixels of an image's shorter side, as `StoredImage` has it.
        left_out: is told how many rows were read, and how many lack what.
        by_pixels: how images are known, as `StoredImage.key` takes it.

    Raises:
        AutopruneError: when a column is missing, or a cell holds no such thing.
    """
    missing = [column for column in columns.inputs if column not in table.names]
    if missing:
        has = listed(table.names)
        raise AutopruneError(f"{where} lacks the column {listed(missing)}; it has {has}. Add it.")
    read = table.images if reads.has_images else table.read
    cells = list(zip(*(read(column) for column in columns.inputs), strict=True))
    groups = _column(table, columns.group, len(cells))
    labels = _column(table, columns.label, len(cells))
    per_row = 1
    if reads.is_each_text_a_row:
        per_row = len(columns.inputs)
        groups = [group for group, row in zip(groups, cells, strict=True) for _ in row]
        cells = [(text,) for row in cells for text in row]
        labels = [None] * len(cells)
    declared = not reads.has_words and columns.label in table.classes
    hidden = declared or all(value in (-1, "-1") for value in labels)  # as in GLUE
    absent = is_missing if reads.has_images else is_blank
    left_out.read += len(cells)
    rows = []
    for number, (row, value, group) in enumerate(zip(cells, labels, groups, strict=True)):
        row = row if reads.has_images else tuple(map(plain, row))
        if any(map(absent, row)):
            left_out.add(f"without {reads.what}", 1)
            continue
        if columns.label and (is_blank(value) or (hidden and value in (-1, "-1"))):
            left_out.add(f"without {reads.label_word}", 1)
            continue
        here = f"{where}, row {number} (the first is 0)"
        inputs = _inputs(row, reads, here, columns.inputs, table, side)
        if reads.has_words:
            _check_tags(inputs.texts[0], value, f"{here}: {columns.label}")
        group = None if is_blank(group) else str(group)
        rows.append(inputs._replace(label=value, group=group, number=number // per_row))
    keys = image_keys([row.image for row in rows if row.image is not None], by_pixels=by_pixels)
    return [row._replace(image_key=key) for row, key in zip(rows, keys, strict=True)] if keys else rows


def _column(table: Table, name: str | None, rows: int) -> list[Any]:
    """A column's plain values; gaps where the split has no such column."""
    return [plain(cell) for cell in table.read(name)] if name and name in table.names else [None] * rows


def _inputs(
    row: tuple[Any, ...], reads: Reading, where: str, names: Sequence[str], table: Table, side: int | None
) -> Row:
    """The inputs of a row as they are kept, checked."""
    if reads.has_images:
        return Row((), image=StoredImage(row[0], where, table.folder, side))
    if reads.has_words:
        words = row[0]
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise AutopruneError(f"{where}: {listed(names)} holds {words!r:.80}; a list of words is needed.")
        _check_whole(words, where, names)
        return Row((tuple(words),))
    if not all(isinstance(text, str) for text in row):
        name, cell = next((n, c) for n, c in zip(names, row, strict=True) if not isinstance(c, str))
        raise AutopruneError(f"{where}: {listed([name])} holds {cell!r:.80}; text is needed.")
    _check_whole(row, where, names)
    return Row(row)


def _check_whole(texts: Sequence[str], where: str, names: Sequence[str]) -> None:
    half = next((text for text in texts if HALF_PAIR.search(text)), None)
    if half is not None:
        raise AutopruneError(
            f"{where}: {listed(names)} holds {half!r:.80}, with half of a surrogate pair, which is no "
            "character. Write the text again as UTF-8."
        )


def _check_tags(words: Text, tags: Any, where: str) -> None:
    if not isinstance(tags, list | tuple):
        raise AutopruneError(f"{where} holds {tags!r:.80}; a list of tags, one a word, is needed.")
    if len(tags) != len(words):
        start = " ".join(words)[:60]
        raise AutopruneError(
            f"{where} has {len(tags)} tags for {len(words)} words ({start!r}...); as many are needed."
        )


def plain(cell: Any) -> Any:
    """A NumPy number or array as Python's own; anything else as it is."""
    return cell.tolist() if hasattr(cell, "tolist") else cell


def is_blank(cell: Any) -> bool:
    """None, NaN, an empty list, or nothing but spaces."""
    if isinstance(cell, float):
        return cell != cell
    return cell is None or (isinstance(cell, str) and not cell.strip()) or cell in ([], ())
