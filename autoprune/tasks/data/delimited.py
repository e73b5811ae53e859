"""Rows of a csv or tsv file. What is not well-formed is refused by its line, so that no row can vanish.

A parser that makes the best of any file turns one stray quote into a cell of a hundred lines. So:

- In a csv (RFC 4180) a cell that begins with a quote ends at the next quote that is not doubled, and may hold
  separators and line breaks. Rows can therefore not be compared with lines. Instead, a quote that is never
  closed is an error, and so is text between a closing quote and the next separator: of two stray quotes,
  which would swallow all rows between them, the second is one of these. Only a quote that opens at the start
  of a cell and closes at the end of another cannot be told from a text of several lines. So it is an error if
  many lines of a cell all have as many separators as rows have; and a note says how many lines became how
  many rows where they differ, and where the longest of them begins.
- In a tsv (IANA text/tab-separated-values) there is no quoting: each line is a row, a quote is a character.
- Each row has as many cells as the header; blank lines are skipped and counted.
- Where the header of a csv has no comma, what separates is the semicolon, tab or bar that it has.
"""

from __future__ import annotations

import csv
import io
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from autoprune.core.errors import AutopruneError

_log = logging.getLogger(__name__)

SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""By the suffix of the format."""

MANY_LINES = 10
"""Lines inside a cell, at least, that are taken for rows if each has as many separators as a row."""

_OTHERS = (";", "\t", "|")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_DECLARED = re.compile(r"sep=([,;|\t])(?:\r\n|\r|\n)")
"""The first line by which a spreadsheet is told the separator."""


@dataclass(frozen=True)
class Delimited:
    """Cells by column, all as text, None where a cell is empty; the line that each row begins on; notes."""

    columns: dict[str, list[str | None]]
    lines: Sequence[int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Line:
    """A row: the first and last line that it stands on (the first of a file is 1), and its cells."""

    first: int
    last: int
    cells: list[str]


def parse_delimited(text: str, *, separator: str, where: str) -> Delimited:
    """Cells by column.

    Args:
        separator: a comma, with quotes; or a tab, without. Other separators are recognised in place of a
            comma, and have quotes too.
        where: what messages call the file.

    Raises:
        AutopruneError: when the text is no such table.
    """
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        cure = "Write it again as UTF-8."
        if text[1::2].count("\0") > len(text) / 4 or text[::2].count("\0") > len(text) / 4:
            cure = f"It looks like UTF-16 without a byte order mark. {cure}"
        raise AutopruneError(f"{where}, line {line}: a NUL byte, which no text has. {cure}")
    is_quoted = separator == ","
    separator, skipped = _separator_of(text, separator, where)
    rows = _rows(text, separator, skipped, where, is_quoted=is_quoted)
    header = next((row for row in rows if len(row.cells) > 1 or any(map(str.strip, row.cells))), None)
    if header is None:
        raise AutopruneError(f"{where} has no header. Let its first line name the columns.")
    names = [*_names(header.cells)]
    columns: dict[str, list[str | None]] = {column: [] for column in names}
    table, lines = list(columns.values()), []
    longest, taken, blank, waiting = header, 0, 0, 0
    for row in rows:
        if not row.cells or (len(table) > 1 and len(row.cells) == 1 and not row.cells[0].strip()):
            waiting += 1
            continue
        blank, waiting = blank + waiting, 0  # blank lines at the end are none
        if len(row.cells) != len(table):
            raise AutopruneError(f"{where}, {_ragged(row, len(table), separator, is_quoted)}")
        if row.last - row.first > MANY_LINES:
            _check_swallowed(row, separator, where)
        for column, cell in zip(table, row.cells, strict=True):
            column.append(cell or None)
        lines.append(row.first)
        taken += row.last - row.first + 1
        longest = max(longest, row, key=lambda r: r.last - r.first)
    notes = [f"{blank} blank line{'s' if blank > 1 else ''} skipped"] if blank else []
    notes += _repeated(header.cells, names)
    notes += _doubts(table, longest, taken, where, is_quoted=is_quoted)
    if (separator != ",") == is_quoted:
        notes.insert(0, f"cells are separated by {_NAMES[separator]}")
    return Delimited(columns, lines, tuple(notes))


def _separator_of(text: str, expected: str, where: str) -> tuple[str, int]:
    """What separates cells, by the header, and how many lines before the header only say so."""
    declared = _DECLARED.match(text)
    if declared and expected == ",":
        return declared[1], 1
    header = next((line for line in io.StringIO(text, newline=None) if line.strip()), "").strip("\n")
    outside = re.sub(r'"(?:[^"]|"")*"', "", header)  # what is quoted separates nothing
    others = [other for other in _OTHERS if other in outside]
    if expected == ",":
        return (others[0], 0) if len(others) == 1 and "," not in outside else (expected, 0)
    came = next((other for other in (",", *_OTHERS) if other in outside), None)
    if expected not in header and came and all(name.strip() for name in outside.split(came)):
        raise AutopruneError(
            f"{where}: its first line, {header!r:.80}, has no tab. In a tsv tabs separate the cells; if "
            f"{_NAMES[came]} do, name the file .csv."
        )
    return expected, 0


def _rows(text: str, separator: str, skipped: int, where: str, *, is_quoted: bool) -> Iterator[_Line]:
    """Rows after the lines that are skipped; a blank line is one of no cells."""
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE,
        strict=True,
    )
    with _any_length():
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise AutopruneError(f"{where}, {_misquoted(line, reader.line_num, str(error))}") from error
            if row is None:
                return
            if line > skipped:
                yield _Line(line, reader.line_num, row)


@contextmanager
def _any_length() -> Iterator[None]:
    """Cells may be of any length; the csv module's limit is 131072 characters, and one for the process."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _names(header: Sequence[str]) -> Iterator[str]:
    """Names of the columns; empty and repeated ones get a number, as pandas gives them."""
    taken: set[str] = set()
    for place, cell in enumerate(header):
        stem = cell or f"Unnamed: {place}"
        name, count = stem, 0
        while name in taken:
            count += 1
            name = f"{stem}.{count}"
        taken.add(name)
        yield name


def _repeated(header: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """What is said of columns that have one name."""
    for name in dict.fromkeys(cell for cell in header if cell and header.count(cell) > 1):
        same = [told for cell, told in zip(header, names, strict=True) if cell == name]
        others = ", ".join(repr(told) for told in same[1:])
        yield f"{len(same)} columns are named {name!r:.60}; all but the first are called {others:.200}"


def _misquoted(line: int, last: int, cause: str) -> str:
    """What is wrong with the quotes of the row that begins on a line and was read up to another."""
    cure = 'Close each quote at the end of its cell, and write a quote inside a quoted cell twice ("").'
    if cause == "unexpected end of data":
        return f"line {line}: a quote opens a cell and is never closed. {cure}"
    there = "" if last == line else f" on line {last}"
    return f"line {line}: a quote opens a cell, and text follows the closing quote{there}. {cure}"


def _ragged(row: _Line, count: int, separator: str, is_quoted: bool) -> str:
    if len(row.cells) < count:
        cure = "Leave a cell empty where there is no value."
    elif not is_quoted:
        cure = "A tsv has no quoting, so no text holds a tab or a line break; save such texts as csv."
    else:
        cure = f"Quote texts that hold {separator!r}."
    cells = f"{len(row.cells)} cell{'' if len(row.cells) == 1 else 's'}"
    to = f" (to {row.last}, by its quotes)" if row.last > row.first else ""
    return f"line {row.first}{to}: {cells}, where the header has {count}. {cure}"


def _check_swallowed(row: _Line, separator: str, where: str) -> None:
    """Raise AutopruneError where a cell of many lines seems to be rows between two stray quotes."""
    inside = max((re.split(r"\r\n|\r|\n", cell)[1:-1] for cell in row.cells), key=len)
    apart = len(row.cells) - 1
    if apart and len(inside) >= MANY_LINES and all(line.count(separator) == apart for line in inside):
        raise AutopruneError(
            f"{where}: lines {row.first} to {row.last} are one row by their quotes, and the {len(inside)} "
            'lines in its longest cell look like rows themselves. Write a quote inside a text twice (""), '
            "and such a text in quotes; if the cell is meant so, save the table as jsonl."
        )


def _doubts(
    table: Sequence[Sequence[str | None]], longest: _Line, taken: int, where: str, *, is_quoted: bool
) -> Iterator[str]:
    """What may not be meant, logged too: fewer rows than lines, or quotes that quote nothing.

    taken: lines that all rows take.
    """
    if not is_quoted:
        quoted = sum(_is_quoted(cell) for column in table for cell in column)
        if quoted:
            note = f"a tsv has no quoting, so the quotes around {quoted} cells are text"
            _log.warning("%s: %s", where, note)
            yield note
    elif longest.last > longest.first:
        note = (
            f"{taken} lines are {len(table[0])} rows, as quoted cells hold line breaks; the longest row "
            f"begins on line {longest.first} and ends on line {longest.last}"
        )
        _log.warning("%s: %s", where, note)
        yield note


def _is_quoted(cell: str | None) -> bool:
    return cell is not None and len(cell) > 1 and cell[0] == cell[-1] == '"'
