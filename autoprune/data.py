"""Text-classification data: a file, a folder or a hub id becomes train, validation and test.

A split that the source lacks is cut from the first of train, validation and test that it has (the
donor), 70/10/20 among the donor and what is missing: a single table becomes 70/10/20, train + test
gives 1/8 of train as validation, train + validation 2/9 of train as test. Groups, or else texts,
are dealt in the order of a hash of (seed, group or text): the order of the rows does not matter,
and all rows of one group or text stay together.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from bisect import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from .demo import demo_rows
from .errors import AutopruneError
from .tables import SUFFIXES, Table, from_columns, listed, load_tables, local_tables

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
MAX_CLASSES = 1000  # a column with more is an id or free text, not a label
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)
TEXTS = ("text", "sentence", "review", "content", "sms", "tweet", "question", "comment", "message")
LABELS = ("label", "labels", "category", "class", "target", "sentiment")

_PATH = re.compile(r"^[.~/]|/$|/.*/|\\|\.[A-Za-z]\w{1,6}$|^\s*$")  # else a hub id: `owner/name`
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?(e[-+]?\d+)?")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """Texts by column (one column, or two for pairs) and the class of each row."""

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """The three splits, the class names in label order, and a SHA-256 over all of it."""

    train: Rows
    validation: Rows
    test: Rows
    label_names: tuple[str, ...]
    name: str
    fingerprint: str


class _Row(NamedTuple):
    texts: tuple[str, ...]
    label: Any  # as read, then the number of its class
    group: str | None

    @property
    def text_key(self) -> str:
        """Rows with one key are the same text: case and spacing do not count."""
        return "\0".join(" ".join(text.split()).casefold() for text in self.texts)


def read_splits(
    source: str,
    *,
    text_columns: Sequence[str] = (),
    label_column: str | None = None,
    group_by: str | None = None,
    limits: Mapping[str, int] | None = None,
    seed: int = 0,
    revision: str | None = None,
    config_name: str | None = None,
) -> Splits:
    """Read a csv, tsv, json, jsonl or parquet file, a folder of them, or a hub data set.

    Columns not named are found by convention (`PAIRS`, `TEXTS`, `LABELS`). `group_by` keeps the
    rows of a group in one split where splits are cut. `limits` holds the most rows of a split,
    drawn by a shuffle that follows from the seed. `revision` and `config_name` are for hub ids.
    """
    limits = limits or {}
    wrong = {split: limit for split, limit in limits.items() if split not in SHARES or limit < 1}
    if wrong:
        raise AutopruneError(f"limits {wrong} not allowed: give 1 or more for {listed(SHARES)}.")
    path = Path(source).expanduser()
    local = bool(source.strip()) and path.exists()
    if local and (revision or config_name):
        raise AutopruneError(f"{source} is on this disk: revision and config name are for hub ids.")
    if not local and _PATH.search(source):
        raise AutopruneError(
            f"data file {source!r} does not exist (looked in {Path.cwd()}). Give a "
            f"{listed(SUFFIXES)} file, a folder of them, or a hub id such as stanfordnlp/imdb."
        )
    if local:
        tables = local_tables(path)
    else:
        tables = load_tables(source, "load_dataset", source, name=config_name, revision=revision)
    name = path.resolve().name if local else source
    return _splits(tables, name, (text_columns, label_column, group_by), limits, seed)


def demo_splits(seed: int = 0) -> Splits:
    """The built-in film reviews, split by film."""
    rows = demo_rows()
    table = from_columns({name: [row[name] for row in rows] for name in rows[0]})
    return _splits({"train": table}, "rotten-tomatoes", ((), None, "movie_name"), {}, seed)


def _splits(
    tables: Mapping[str, Table],
    name: str,
    wanted: tuple[Sequence[str], str | None, str | None],
    limits: Mapping[str, int],
    seed: int,
) -> Splits:
    donor = next(split for split in SHARES if split in tables)
    texts, label = _columns(tables[donor], name, *wanted)
    parts = {s: _read_rows(t, f"{name} ({s})", texts, label, wanted[2]) for s, t in tables.items()}
    if not parts[donor]:
        raise AutopruneError(f"{name} ({donor}) has no row with a text and a label. Give some.")
    parts = {split: rows for split, rows in parts.items() if rows}
    declared = tables[donor].classes.get(label, ())
    parts, label_names = _numbered(parts, declared, f"label column {label!r} of {name}")
    parts = _cut(parts, name, seed)
    parts = {split: _drawn(parts[split], limits.get(split), f"{seed} {split}") for split in SHARES}
    sizes = ", ".join(f"{split} {len(rows)}" for split, rows in parts.items())
    if not all(parts.values()) or len({row.label for row in parts["train"]}) < 2:
        raise AutopruneError(
            f"{name} is too small: {sizes} rows; each split needs some, and train 2 classes. Give "
            "more rows (or groups, or higher limits), or a file for each split."
        )
    _log.info("%s: %s rows, %d classes", name, sizes, len(label_names))
    done = {split: _transposed(rows) for split, rows in parts.items()}
    content = [label_names, [(rows.texts, rows.labels) for rows in done.values()]]
    fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return Splits(**done, label_names=label_names, name=name, fingerprint=fingerprint)


def _transposed(rows: Sequence[_Row]) -> Rows:
    texts = tuple(zip(*(row.texts for row in rows), strict=True))
    return Rows(texts, tuple(row.label for row in rows))


def _columns(
    table: Table, name: str, texts: Sequence[str], label: str | None, group: str | None
) -> tuple[tuple[str, ...], str]:
    """The text columns and the label column: those named, else the first by convention."""
    texts = (texts,) if isinstance(texts, str) else tuple(texts)
    named = [*texts, *(column for column in (label, group) if column)]
    has = f"{name} has the columns {listed(table.names)}"
    missing = [column for column in named if column not in table.names]
    if missing:
        raise AutopruneError(f"column {listed(missing)} does not exist: {has}. Name one of these.")
    free = {column.lower(): column for column in reversed(table.names) if column not in named}
    label = label or next((free[n] for n in LABELS if n in free), None)
    options = [*PAIRS, *((name,) for name in TEXTS)]
    texts = texts or next((tuple(free[n] for n in o) for o in options if free.keys() >= {*o}), ())
    if not texts or not label:
        what, known = ("label", LABELS) if texts else ("text", TEXTS)
        raise AutopruneError(
            f"no {what} column found: {has}; known are {listed(known)}. Name it by {what}_column"
            f"{'s' if what == 'text' else ''}."
        )
    if len({*texts, label}) != len(texts) + 1 or len(texts) > 2:
        raise AutopruneError(
            f"text columns {listed(texts)} with label column {listed([label])}: allowed are 1 or "
            "2 text columns and a label column that is none of them."
        )
    return tuple(texts), label


def _read_rows(table: Table, where: str, texts: Sequence[str], label: str, group: str | None) -> list[_Row]:
    """The rows that have all texts and a label; none where the split has no labels."""
    missing = [column for column in texts if column not in table.names]
    if missing:
        has = listed(table.names)
        raise AutopruneError(f"{where} lacks the column {listed(missing)}; it has {has}. Add it.")
    cells = list(zip(*(table.read(column) for column in texts), strict=True))
    labels = table.read(label) if label in table.names else [None] * len(cells)
    groups = table.read(group) if group in table.names else [None] * len(cells)
    hidden = label in table.classes or all(value in (-1, "-1") for value in labels)  # as in GLUE
    rows = []
    for row, value, key in zip(cells, labels, groups, strict=True):
        if any(map(_blank, row)) or _blank(value) or (hidden and value in (-1, "-1")):
            continue
        if not all(isinstance(text, str) for text in row):
            raise AutopruneError(f"{where}: {listed(texts)} holds {row!r:.80}; text is needed.")
        rows.append(_Row(row, value, None if _blank(key) else str(key)))
    if len(rows) < len(cells):
        dropped = len(cells) - len(rows)
        _log.warning("%s: %d of %d rows lack text or label, dropped", where, dropped, len(cells))
    return rows


def _blank(cell: Any) -> bool:
    """None, NaN (which is not equal to itself) or nothing but spaces."""
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())


def _numbered(
    parts: Mapping[str, Sequence[_Row]], declared: tuple[str, ...], where: str
) -> tuple[dict[str, list[_Row]], tuple[str, ...]]:
    """Labels as 0..K-1: by the declared class names, else sorted as whole numbers or as text."""
    values = _whole_or_text([row.label for rows in parts.values() for row in rows], where)
    found = sorted(set(values))
    if not 2 <= len(found) <= MAX_CLASSES:
        raise AutopruneError(
            f"{where}: {len(found)} classes found ({listed(map(str, found))}); "
            f"allowed are 2 to {MAX_CLASSES}. Name another label column or give other rows."
        )
    names = declared or tuple(map(str, found))
    number: dict[Any, int] = {value: i for i, value in enumerate(declared or found)}
    if declared:
        number |= {i: i for i in range(len(declared))}
    unknown = [str(value) for value in found if value not in number]
    if unknown:
        raise AutopruneError(f"{where} holds {listed(unknown)}; allowed: {listed(declared)}.")
    numbers = iter([number[value] for value in values])
    numbered = {s: [row._replace(label=next(numbers)) for row in p] for s, p in parts.items()}
    return numbered, names


def _whole_or_text(values: Sequence[Any], where: str) -> list[Any]:
    """Whole numbers if all are, else text: csv has no types, and pandas writes 1.0 beside gaps."""
    if any(isinstance(value, list | dict) for value in values):
        raise AutopruneError(f"{where} holds lists, allowed is one class a row. Name another.")
    texts = [str(value).strip() for value in values]
    if not all(map(_NUMBER.fullmatch, texts)):
        return texts
    fraction = next((text for text in texts if float(text) % 1), None)
    if fraction:
        raise AutopruneError(
            f"{where} holds fractions such as {fraction}; allowed are whole numbers or names of "
            "classes. A score to predict is no class: round it to classes or name another column."
        )
    return [int(float(text)) for text in texts]


def _cut(parts: Mapping[str, list[_Row]], name: str, seed: int) -> dict[str, list[_Row]]:
    """Fill the missing splits from the donor; no group and no text lies in two of those cut."""
    donor = next(split for split in SHARES if split in parts)
    takers = [split for split in SHARES if split == donor or split not in parts]
    edges = list(accumulate(SHARES[split] for split in takers))
    keys = [f"text {r.text_key}" if r.group is None else f"group {r.group}" for r in parts[donor]]
    place: dict[str, str] = {}
    before, sizes = 0, Counter(keys)
    for key in sorted(sizes, key=lambda key: _hash(f"{seed} {key}")):
        middle = (before + sizes[key] / 2) / len(keys)
        place[key] = takers[bisect(edges, middle * edges[-1])]
        before += sizes[key]
    cut: dict[str, list[_Row]] = {split: [] for split in takers}
    for row, key in zip(parts[donor], keys, strict=True):
        cut[place[key]].append(row)
    held: set[str] = set()
    for split in reversed(takers) if takers[1:] else ():  # a text in two groups stays in the later
        cut[split] = [row for row in cut[split] if row.text_key not in held]
        held |= {row.text_key for row in cut[split]}
    if takers[1:] and parts.keys() - {donor}:
        new = listed(split for split in takers if split != donor)
        _log.warning("%s: %s cut from %s, which the model may have seen", name, new, donor)
    return {**parts, **cut}


def _drawn(rows: list[_Row], limit: int | None, salt: str) -> list[_Row]:
    """At most `limit` rows in their order, drawn by a hash: a lower limit draws a subset."""
    if limit is None or len(rows) <= limit:
        return rows
    ranks = [_hash(f"draw {salt} {row.text_key}") for row in rows]
    drawn = sorted(range(len(rows)), key=ranks.__getitem__)[:limit]
    return [rows[i] for i in sorted(drawn)]


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
