"""Tables, label columns and files of them as hypothesis makes them: what a reader of data may meet.

`check_read` says what must hold of any of them: the reader refuses it by an `AutopruneError`, or each row
that was written is in a split or counted as left out. Also for more inputs than the tests try.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as some

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.source import DataSource
from autoprune.tasks.data.splits import Splits, read_splits
from autoprune.tasks.kinds import (
    CAUSAL_LM,
    SENTENCE_EMBEDDING,
    TEXT_CLASSIFICATION,
    TEXT_REGRESSION,
    TOKEN_CLASSIFICATION,
    TaskKind,
)

Record = dict[str, Any]

KINDS = (TEXT_CLASSIFICATION, TOKEN_CLASSIFICATION, TEXT_REGRESSION, SENTENCE_EMBEDDING, CAUSAL_LM)


@dataclass(frozen=True)
class MadeTable:
    """Rows for a kind of task; some lack something, some labels are none."""

    kind: TaskKind
    records: list[Record]

    @property
    def rows(self) -> int:
        """Rows that a reader has to account for: of pairs each text where texts are rows of their own."""
        texts = 2 if self.kind is SENTENCE_EMBEDDING and "sentence2" in self.records[0] else 1
        return texts * len(self.records)


@dataclass(frozen=True)
class MadeFile:
    """A file of text and labels; rows: how many were written, None where it was damaged after."""

    name: str
    content: bytes
    rows: int | None


# ---- cells --------------------------------------------------------------------------------------

SIGNS = [
    "a",
    "b",
    "é",
    "中",
    '"',
    "'",
    ",",
    ";",
    "\t",
    "|",
    "\n",
    "\r\n",
    "\r",
    " ",
    "\u2028",
    "\x0b",
    "\\",
    "-1",
]
nasty = some.lists(some.sampled_from(SIGNS), max_size=6).map("".join)
texts = some.one_of(nasty, some.text(max_size=12), some.sampled_from(["same", "Same ", "None", "nan", "1.0"]))
words = some.lists(some.one_of(some.sampled_from(["w", "", " ", "é"]), some.text(max_size=3)), max_size=4)
numbers = some.one_of(
    some.integers(-3, 5), some.sampled_from([-100, -1, 0, 10**20]), some.floats(width=32), some.booleans()
)
odd = some.sampled_from([None, "", " ", float("nan"), [], {}, [1], {"a": 1}, "1e400", "-100", "-1", "1.0"])
classes = some.one_of(
    some.sampled_from(["neg", "pos"]),
    some.integers(0, 2),
    some.sampled_from(["a", "b", "A", "-1", "0", "1"]),
    numbers,
    odd,
    some.text(max_size=2),
)


@some.composite
def label_columns(draw: some.DrawFn, count: int, *, is_score: bool = False) -> list[Any]:
    """Labels of so many rows: of few values, some of which are none."""
    few = draw(some.lists(numbers if is_score else classes, min_size=1, max_size=5))
    labels = some.one_of(some.sampled_from(few), some.sampled_from(few), classes)
    return draw(some.lists(labels, min_size=count, max_size=count))


@some.composite
def tag_columns(draw: some.DrawFn, rows: list[list[str]]) -> list[Any]:
    """A list of tags for each row of words; seldom of another length."""
    few = draw(
        some.sampled_from(
            [[0, 1, 2], [0, 1, -1], [0, 1, 2, -100], ["O", "B"], [0, 5, -100], ["0", "-100"], [1, None]]
        )
    )
    tags = []
    for row in rows:
        length = len(row) + (draw(some.integers(0, 60)) == 60)
        tags.append(draw(some.lists(some.sampled_from(few), min_size=length, max_size=length)))
    return tags


@some.composite
def made_tables(draw: some.DrawFn) -> MadeTable:
    """A table of any kind but images, of up to 60 rows."""
    kind = draw(some.sampled_from(KINDS))
    count = draw(some.integers(1, 60))
    many = {"min_size": count, "max_size": count}
    if kind is TOKEN_CLASSIFICATION:
        rows = draw(some.lists(words, **many))
        columns: dict[str, list[Any]] = {"tokens": list(rows), "ner_tags": draw(tag_columns(rows))}
    else:
        pair = kind is not CAUSAL_LM and draw(some.booleans())
        names = ("sentence1", "sentence2") if pair else ("text",)
        cells = some.one_of(texts, texts, some.none())
        columns = {name: draw(some.lists(cells, **many)) for name in names}
        if kind.reading.labels:
            columns["label"] = draw(label_columns(count, is_score=kind is TEXT_REGRESSION))
    columns["by"] = draw(some.lists(some.sampled_from(["g1", "g2", "g3", None]), **many))
    columns["other"] = draw(some.lists(some.one_of(odd, numbers), **many))
    return MadeTable(
        kind, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    )


@some.composite
def labelled_tables(draw: some.DrawFn) -> MadeTable:
    """A table of sound texts, whose labels, scores or tags alone are what is made up."""
    kind = draw(some.sampled_from([kind for kind in KINDS if kind.reading.labels]))
    count = draw(some.integers(1, 60))
    if kind is TOKEN_CLASSIFICATION:
        rows = [[f"w{k}"] * (1 + k % 4) for k in range(count)]
        return MadeTable(
            kind,
            [
                {"tokens": row, "ner_tags": tags}
                for row, tags in zip(rows, draw(tag_columns(rows)), strict=True)
            ],
        )
    labels = draw(label_columns(count, is_score=kind is TEXT_REGRESSION))
    names = ("sentence1", "sentence2") if kind is SENTENCE_EMBEDDING else ("text",)
    return MadeTable(
        kind, [{name: f"{name} {k}" for name in names} | {"label": label} for k, label in enumerate(labels)]
    )


# ---- files --------------------------------------------------------------------------------------


@some.composite
def made_files(draw: some.DrawFn) -> MadeFile:
    """A csv, tsv, json or jsonl file of texts and labels, in some encoding; every third one damaged."""
    count = draw(some.integers(0, 40))
    kind = draw(some.sampled_from([".csv", ".csv", ".tsv", ".json", ".jsonl"]))
    cells = texts.map(lambda text: " ".join(text.split())) if kind == ".tsv" else texts
    labels = draw(label_columns(count))
    is_json = kind.startswith(".js")
    rows = [
        {"text": draw(cells), "label": label if is_json else _as_text(label), "other": draw(cells)}
        for label in labels
    ]
    content = _json(rows, kind) if is_json else draw(_delimited(rows, kind))
    encoding = draw(
        some.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-32", "latin-1", "utf-16-le"])
    )
    data = content.encode(encoding, errors="replace" if encoding == "latin-1" else "surrogatepass")
    if draw(some.integers(0, 2)):
        return MadeFile(f"a{kind}", data, count)
    return MadeFile(f"a{kind}", draw(_damaged(data)), None)


def _as_text(label: Any) -> str:
    """As a csv has it: on one line, as a tsv has no other."""
    return " ".join(str(label).split()) if label is not None else ""


def _json(rows: list[Record], kind: str) -> str:
    return json.dumps(rows, indent=1) if kind == ".json" else "\n".join(map(json.dumps, rows))


@some.composite
def _delimited(draw: some.DrawFn, rows: list[Record], kind: str) -> str:
    end = draw(some.sampled_from(["\n", "\r\n", "\r"]))
    names = draw(some.permutations(["text", "label", "other"]))
    if kind == ".tsv":
        return "".join("\t".join(line) + end for line in (names, *([row[n] for n in names] for row in rows)))
    separator = draw(some.sampled_from([",", ",", ";", "\t", "|"]))
    quoting = draw(some.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))  # the first leaves a lone \r bare
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow(names)
    writer.writerows([row[name] for name in names] for row in rows)
    declared = draw(some.sampled_from(["", "", f"sep={separator}\n"]))
    return declared + out.getvalue() + draw(some.integers(0, 2)) * end


@some.composite
def _damaged(draw: some.DrawFn, data: bytes) -> bytes:
    """Bytes with a quote, a NUL or another byte put in, or with an end cut off."""
    place = draw(some.integers(0, len(data)))
    stray = [b'"', b'""', b"\0", b"\xff", b"\n", b",", b"\t", b"[", b"}", b"\xed\xa0\x80"]
    put = draw(some.sampled_from(stray))
    return data[:place] if draw(some.integers(0, 3)) == 3 else data[:place] + put + data[place:]


# ---- what must hold -----------------------------------------------------------------------------


def check_read(read: Callable[[], Splits], rows: int | None) -> str:
    """How a reading ended: "refused", "used" or "left out"; rows: how many were written, if that is known.

    Raises:
        AssertionError: when rows were lost without being counted.
        Exception: whatever the reader raises that is no AutopruneError.
    """
    try:
        splits = read()
    except AutopruneError as error:
        message = str(error)
        message.encode()
        assert 20 < len(message) < 2000
        return "refused"
    used = sum(map(len, (splits.train, splits.validation, splits.test)))
    assert used == splits.counts.used
    assert all(count > 0 for count in splits.counts.left_out.values())
    assert rows is None or splits.counts.read == rows, (splits.counts, rows)
    assert (used == splits.counts.read) or any("are left out" in note for note in splits.notes)
    assert all(note.isprintable() for note in splits.notes), splits.notes
    return "used" if used == splits.counts.read else "left out"


def check_table(table: MadeTable, *, seed: int = 0) -> str:
    """The same of a table that a function gives."""
    module: Any = types.ModuleType("made_table")
    module.rows = lambda: table.records
    before = sys.modules.get("made_table")
    sys.modules["made_table"] = module
    try:
        source = DataSource("made_table:rows", group_by="by" if seed % 2 else None)
        return check_read(lambda: read_splits(source, table.kind, seed=seed), table.rows)
    finally:
        _put_back("made_table", before)


def _put_back(name: str, before: types.ModuleType | None) -> None:
    if before is None:
        del sys.modules[name]
    else:
        sys.modules[name] = before


def check_file(file: MadeFile, folder: Path) -> str:
    """The same of a file, written into a folder."""
    path = folder / file.name
    path.write_bytes(file.content)
    return check_read(lambda: read_splits(DataSource(str(path))), file.rows)


def counted(outcomes: Mapping[str, int]) -> str:
    """Outcomes in words.

    >>> counted({"refused": 2, "used": 3})
    '5 inputs: refused 2, used 3'
    """
    told = ", ".join(f"{name} {count}" for name, count in outcomes.items())
    return f"{sum(outcomes.values())} inputs: {told}"
