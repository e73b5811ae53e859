"""The record of data as lines for people: counts, and the first rows of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

MOST_CLASSES = 20
"""Classes whose rows are told one by one."""

Record = Mapping[str, Any]


def data_lines(record: Record, *, shown: int) -> list[str]:
    """A record of data for people, with so many rows or groups of rows of each kind."""
    return [*_head(record), *_classes(record), *_repeats(record, shown), *_doubts(record, shown)]


def _head(record: Record) -> Iterator[str]:
    rows = record["rows"]
    sizes = ", ".join(f"{split} {count:,}" for split, count in rows.items())
    yield f"Data      {record['dataset']}  {record['task']}; {sizes}"
    yield from (f"Note      {note}" for note in record["notes"])
    yield "          A row is named by its table and its number there; the first is 0."


def _classes(record: Record) -> Iterator[str]:
    classes, rows = record["classes"], record["rows"]
    if not classes:
        return
    common = record["commonest_class"]
    most = f"{common['name']!r:.60}, is {common['percent']:.1f} % of all rows"
    yield f"Classes   {len(classes)}; the commonest, {most}"
    width = min(40, max(len(row["name"]) for row in classes[:MOST_CLASSES]))
    for row in classes[:MOST_CLASSES]:
        counts = "  ".join(f"{split} {row[split]:>7,}" for split in rows)
        yield f"  {row['name']!s:{width}.40}  {counts}"
    if len(classes) > MOST_CLASSES:
        yield f"  and {len(classes) - MOST_CLASSES} more"


def _repeats(record: Record, shown: int) -> Iterator[str]:
    what = record["input"]
    yield f"Repeats   {_count(record['repeated_rows'], 'row')} with the {what} of another row"
    yield from _groups(record["same"], shown)
    near = record["near_from"]
    how = f"their shingles {near:g} alike or more" if isinstance(near, float) else f"by {near}"
    yield f"Near      {_count(record['near_rows'], 'row')} nearly the same as another ({how})"
    yield from _groups(record["near"], shown)
    if record["classes"]:
        groups = record["contradictions"]
        yield f"Labels    {_count(len(groups), what)} with more than one label"
        yield from _groups(groups, shown)
    for split, leaks in record["leaks"].items():
        counts = f"{len(leaks['same']):,} the same and {len(leaks['near']):,} nearly"
        yield f"Leaks     {split} rows that train has too: {counts}"
        yield from _few([*leaks["same"], *leaks["near"]], shown, _row)


def _doubts(record: Record, shown: int) -> Iterator[str]:
    if (far := record.get("outliers")) is not None:
        yield f"Outliers  {_count(len(far), 'row')} far from all others in the model's embedding"
        yield from _few(far, shown, lambda row: f"{_row(row)}  score {row['score']:g}")
    doubted = record.get("doubted_labels")
    if doubted is None:
        return
    yield (
        f"Doubted   {_count(len(doubted), 'label')}, by cross-validated confidence "
        f"(logistic regression on {record['judged_by']})"
    )
    yield from _few(
        doubted,
        shown,
        lambda row: f"{_row(row)}  likelier {row['likelier']!r:.40} ({row['likelier_confidence']:.0%})",
    )


def _groups(groups: Sequence[Sequence[Record]], shown: int) -> Iterator[str]:
    """A line for each group: its rows, and what the first of them shows."""

    def line(group: Sequence[Record]) -> str:
        places = ", ".join(_place(row) for row in group[:6])
        more = f" and {len(group) - 6} more" if len(group) > 6 else ""
        return f"{places}{more}: {group[0]['shown']!r}"

    yield from _few(groups, shown, line)


def _few(items: Sequence[Any], shown: int, line: Callable[[Any], str]) -> Iterator[str]:
    yield from (f"  {line(item)}" for item in items[:shown])
    if len(items) > shown:
        yield f"  and {len(items) - shown:,} more (--shown, --json)"


def _row(row: Record) -> str:
    return f"{_place(row)}: {row['shown']!r}"


def _place(row: Record) -> str:
    label = f" {row['label']!r:.40}" if "label" in row else ""
    moved = f" ({row['split']})" if row["split"] != row["table"] else ""
    return f"{row['table']} row {row['row']}{moved}{label}"


def _count(number: int, what: str) -> str:
    """A number of things.

    >>> _count(1, "row"), _count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"
