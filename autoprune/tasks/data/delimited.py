"""Rows of a csv or tsv file. What is not well-formed is refused by its line, so that no row can vanish.

A parser that makes the best of any file turns one stray quote into a cell of a hundred lines. So:

- In a csv (RFC 4180) a cell that begins with a quote ends at the next quote that is not doubled, and may hold
  separators and line breaks. Rows can therefore not be compared with lines. Instead, a quote that is never
  closed is an error, and so is text between a closing quote and the next separator: of two stray quotes,
  which would swallow all rows between them, the second is one of these. Only a quote that opens at the start
  of a cell and closes at the end of another cannot be told from a text of several lines; so a log message
  says how many lines became how many rows where they differ.
- In a tsv (IANA text/tab-separated-values) there is no quoting: each line is a row, a quote is a character.
- Each row has as many cells as the header; blank lines are skipped.
"""

from __future__ import annotations

import csv
import io
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from autoprune.core.errors import AutopruneError

_log = logging.getLogger(__name__)

SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""By the suffix of the format."""


def parse_delimited(text: str, *, separator: str, where: str) -> dict[str, list[str | None]]:
    """Cells by column, all as text, None where a cell is empty.

    Args:
        separator: a comma, with quotes; or a tab, without.
        where: what messages call the file.

    Raises:
        AutopruneError: when the text is no such table.
    """
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise AutopruneError(f"{where}, line {line}: a NUL byte, which no text has. Write it again as UTF-8.")
    rows = _rows(text, separator, where)
    _, header = next(rows, (1, []))
    if not header:
        raise AutopruneError(f"{where} has no header. Let its first line name the columns.")
    columns: dict[str, list[str | None]] = {column: [] for column in _names(header)}
    table = list(columns.values())
    for line, row in rows:
        if len(row) != len(table):
            raise AutopruneError(f"{where}, {_ragged(line, row, len(table), separator)}")
        for column, cell in zip(table, row, strict=True):
            column.append(cell or None)
    _compare(text, table, separator, where)
    return columns


def _rows(text: str, separator: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the line that it begins on (the first is 1)."""
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL,
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
            if row and (len(row) > 1 or row[0].strip()):
                yield line, row


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


def _misquoted(line: int, last: int, cause: str) -> str:
    """What is wrong with the quotes of the row that begins on a line and was read up to another."""
    cure = 'Close each quote at the end of its cell, and write a quote inside a quoted cell twice ("").'
    if cause == "unexpected end of data":
        return f"line {line}: a quote opens a cell and is never closed. {cure}"
    there = "" if last == line else f" on line {last}"
    return f"line {line}: a quote opens a cell, and text follows the closing quote{there}. {cure}"


def _ragged(line: int, row: Sequence[str], count: int, separator: str) -> str:
    if len(row) < count:
        cure = "Leave a cell empty where there is no value."
    elif separator == "\t":
        cure = "A tsv has no quoting, so no text holds a tab or a line break; save such texts as csv."
    else:
        cure = f"Quote texts that hold {separator!r}."
    cells = f"{len(row)} cell{'' if len(row) == 1 else 's'}"
    return f"line {line}: {cells}, where the header has {count}. {cure}"


def _compare(text: str, table: Sequence[Sequence[str | None]], separator: str, where: str) -> None:
    """Log what may not be meant: fewer rows than lines, or quotes that quote nothing."""
    if separator == "\t":
        quoted = sum(_is_quoted(cell) for column in table for cell in column)
        if quoted:
            _log.warning("%s: a tsv has no quoting, so the quotes around %d cells are text", where, quoted)
        return
    rows = len(table[0])
    lines = sum(1 for line in io.StringIO(text, newline=None) if line.strip()) - 1
    if lines > rows:
        _log.warning("%s: %d lines are %d rows, as quoted cells hold line breaks", where, lines, rows)


def _is_quoted(cell: str | None) -> bool:
    return cell is not None and len(cell) > 1 and cell[0] == cell[-1] == '"'
