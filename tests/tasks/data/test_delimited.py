"""Rows of delimited files: none vanishes, none is shifted; what is not well-formed is named by its line."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.tables import local_tables
from tests.support.splits import splits_of

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
}  # fmt: skip


def columns(path: Path, content: str | bytes) -> dict[str, list[Any]]:
    """What is read of a file with this content, by column."""
    path.write_bytes(PACKERS[path.suffix if path.suffix in PACKERS else ""](
        content.encode() if isinstance(content, str) else content
    ))  # fmt: skip
    table = local_tables(path)["train"]
    return {name: table.read(name) for name in table.names}


def message(path: Path, content: str | bytes) -> str:
    with pytest.raises(AutopruneError) as caught:
        columns(path, content)
    return str(caught.value)


def stray(separator: str) -> str:
    """400 rows; the cells of two begin with a quote."""
    texts = [f"review {k}" for k in range(400)]
    texts[100], texts[300] = f'"{texts[100]}', f'"{texts[300]}'
    return f"text{separator}label\n" + "".join(f"{t}{separator}{k % 2}\n" for k, t in enumerate(texts))


@pytest.mark.parametrize("packed", PACKERS)
def test_a_stray_quote_takes_no_row_of_a_tsv(tmp_path: Path, packed: str) -> None:
    read = columns(tmp_path / f"a.tsv{packed}", stray("\t"))
    assert len(read["text"]) == 400
    assert read["text"][100] == '"review 100'
    assert read["label"] == [str(k % 2) for k in range(400)]
    splits = splits_of(str(tmp_path / f"a.tsv{packed}"))
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 400


@pytest.mark.parametrize("packed", PACKERS)
def test_a_stray_quote_in_a_csv_is_named_by_its_line(tmp_path: Path, packed: str) -> None:
    text = message(tmp_path / f"a.csv{packed}", stray(","))
    assert (
        f"a.csv{packed}, line 102: a quote opens a cell, and text follows the closing quote on line 302"
        in text
    )
    once = stray(",").replace('"review 300', "review 300")
    assert "line 102: a quote opens a cell and is never closed. Close each" in message(
        tmp_path / "b.csv", once
    )
    assert "line 3: a quote opens a cell, and text follows the closing quote. Close each" in message(
        tmp_path / "c.csv", 'text,label\na,1\n"b" c,0\n'
    )


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_written_as_csv_comes_back(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    signs = ["a", "é", '"', ",", "\n", "\r\n", "\t", " ", "", "\u2028", "\x0b", "'", "\\"]
    texts = ["".join(rng.choices(signs, k=rng.randrange(1, 9))) for _ in range(200)]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=rng.choice(["\n", "\r\n"]))
    writer.writerows([("text", "label"), *((text, k) for k, text in enumerate(texts))])
    read = columns(tmp_path / "a.csv", out.getvalue())
    assert read == {"text": [text or None for text in texts], "label": [*map(str, range(200))]}


def test_whatever_has_no_tab_or_line_break_comes_back_from_a_tsv(tmp_path: Path) -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices(['"', "a", ",", " ", "'", "\\", "\u2028"], k=6)) for _ in range(200)]
    read = columns(tmp_path / "a.tsv", "text\tlabel\n" + "\n".join(f"{t}\t{k}" for k, t in enumerate(texts)))
    assert read == {"text": texts, "label": [*map(str, range(200))]}


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_blank_lines_line_ends_and_marks_change_nothing(
    tmp_path: Path, separator: str, end: str, mark: bytes
) -> None:
    name = "a.csv" if separator == "," else "a.tsv"
    lines = ["", "text|label", "a|1", "", "  ", "b|", "|0", "c|2"]  # the last without a line end
    content = mark + end.join(lines).replace("|", separator).encode()
    assert columns(tmp_path / name, content) == {
        "text": ["a", "b", None, "c"],
        "label": ["1", None, "0", "2"],
    }


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_row_with_more_or_fewer_cells_is_named_by_its_line(tmp_path: Path, name: str) -> None:
    separator = "," if name == "a.csv" else "\t"
    for row, cells in (("b", "1 cell"), ("b|1|2", "3 cells"), ("b|1|", "3 cells")):
        text = message(tmp_path / name, f"text|label\na|1\n\n{row}\nc|0\n".replace("|", separator))
        assert f"{name}, line 4: {cells}, where the header has 2. " in text
        assert ("Quote texts that hold ','" in text) == (separator == "," and row != "b")


def test_a_line_is_counted_after_cells_of_several(tmp_path: Path) -> None:
    assert "line 5: 1 cell," in message(tmp_path / "a.csv", 'text,label\n"a\n\nb",1\nc\n')


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_bytes_that_are_no_text_are_named_by_their_line(tmp_path: Path, name: str) -> None:
    content = "text|label\na|1\ncafé|0\n".replace("|", "," if name == "a.csv" else "\t")
    assert "line 3 is not UTF-8" in message(tmp_path / name, content.encode("latin-1"))
    table = {"text": ["a", "café"], "label": ["1", "0"]}
    assert columns(tmp_path / name, content.encode("utf-16")) == table  # it begins with its mark
    assert columns(tmp_path / name, content.encode("utf-32")) == table
    assert "line 1: a NUL byte" in message(tmp_path / name, content.replace("é", "e").encode("utf-16-le"))
    assert "line 3: a NUL byte" in message(tmp_path / name, content.replace("é", "\0"))


def test_headers(tmp_path: Path) -> None:
    assert columns(tmp_path / "a.csv", "text,label\n") == {"text": [], "label": []}
    assert columns(tmp_path / "a.csv", ",text,text,\n0,a,b,\n") == {
        "Unnamed: 0": ["0"], "text": ["a"], "text.1": ["b"], "Unnamed: 3": [None],
    }  # fmt: skip
    assert "a.csv has no header" in message(tmp_path / "a.csv", "\n\n")


def test_a_cell_may_be_longer_than_the_csv_module_allows(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    long = "word " * 100_000
    assert columns(tmp_path / "a.csv", f"text,label\n{long},1\n")["text"] == [long]
    assert csv.field_size_limit() == limit


def notes(path: Path, content: str | bytes) -> tuple[str, ...]:
    """What the plan says of a file with this content."""
    columns(path, content)
    return local_tables(path)["train"].notes


def test_what_may_not_be_meant_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        columns(tmp_path / "plain.csv", 'text,label\n"a, b",1\n\nc,0\n')
        columns(tmp_path / "plain.tsv", 'text\tlabel\n"a\t1\nb"\t0\n')
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        in_csv = notes(tmp_path / "a.csv", 'text,label\nz,0\n"a,1\nb,0\nc",1\n')
        in_tsv = notes(tmp_path / "a.tsv", 'text\tlabel\n"a"\t1\n"b"\t0\n')
    said = {record.getMessage() for record in caplog.records}
    assert in_csv == (
        "a.csv: 4 lines are 2 rows, as quoted cells hold line breaks; the longest row begins on line 3 and "
        "ends on line 5",
    )
    assert in_tsv == ("a.tsv: a tsv has no quoting, so the quotes around 2 cells are text",)
    assert said == {f"data file {tmp_path}/{note}" for note in (*in_csv, *in_tsv)}


def test_rows_between_two_quotes_are_not_taken_for_a_text(tmp_path: Path) -> None:
    lines = [f"review {k},{k % 2}" for k in range(40)]
    lines[5], lines[30] = f'"{lines[5]}', 'review 30",1'
    text = message(tmp_path / "a.csv", "\n".join(["text,label", *lines]))
    assert "a.csv: lines 7 to 32 are one row by their quotes, and the 24 lines in its longest cell" in text
    assert "save the table as jsonl" in text
    poem = "\n".join(f"line {k}" + ", and" * (k % 3) for k in range(40))
    assert columns(tmp_path / "b.csv", f'text,label\n"{poem}",1\n')["text"] == [poem]


def test_blank_lines_between_rows_are_counted(tmp_path: Path) -> None:
    content = "text,label\n\na,1\n\n\nb,0\n\n\n"
    assert notes(tmp_path / "a.csv", content) == ("a.csv: 3 blank lines skipped",)
    one_empty_cell = columns(tmp_path / "b.csv", 'text\n""\na\n\n')
    assert one_empty_cell == {"text": [None, "a"]}


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
@pytest.mark.parametrize("first", ["", "sep={}\n"])
def test_another_separator_is_recognised_and_said(
    tmp_path: Path, separator: str, name: str, first: str
) -> None:
    content = 'text;label\n"a; b, ""c""";1\nd, e;0\n'.replace(";", separator)
    read = columns(tmp_path / "a.csv", first.format(separator) + content)
    assert read == {"text": [f'a{separator} b, "c"', "d, e"], "label": ["1", "0"]}
    assert local_tables(tmp_path / "a.csv")["train"].notes == (f"a.csv: cells are separated by {name}",)


def test_a_tsv_without_a_tab_is_named(tmp_path: Path) -> None:
    text = message(tmp_path / "a.tsv", "text,label\na,1\n")
    assert "its first line, 'text,label', has no tab." in text
    assert "if commas do, name the file .csv" in text
    assert columns(tmp_path / "b.tsv", "text\na, b\n") == {"text": ["a, b"]}


def test_a_column_that_is_not_needed_may_hold_any_bytes(tmp_path: Path) -> None:
    rows = "".join(f"text {k},{k % 2},café\n" for k in range(30))
    (tmp_path / "a.csv").write_bytes(f"text,label,note\n{rows}".encode("latin-1"))
    splits = splits_of(str(tmp_path / "a.csv"))
    assert sum(map(len, (splits.train, splits.validation, splits.test))) == 30
    expected = r"line 2 is not UTF-8: 0xe9; as Windows-1252 it would read 'café'"
    with pytest.raises(AutopruneError, match=expected):
        splits_of(str(tmp_path / "a.csv"), text_columns=("note",))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PK\x03\x04rest", "it is a zip archive, such as a spreadsheet: save it as csv"),
        (gzip.compress(b"text,label\na,1\n", mtime=0), "it is compressed by gzip: name it .gz"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "it is a Git LFS pointer"),
        (b"PAR1rest", "it is a parquet file: name it .parquet"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl"])
def test_another_format_is_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    assert expected in message(tmp_path / name, content)


def test_cells_of_a_jsonl_are_as_they_were_written(tmp_path: Path) -> None:
    rows = [{"text": "2020-01-01", "more": 1}, {"text": "2020-01-02", "more": {"a": [1]}, "label": 0}]
    read = columns(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert read == {"text": ["2020-01-01", "2020-01-02"], "more": [1, {"a": [1]}], "label": [None, 0]}
    for bad in ("3", '"text"', "null"):
        text = message(tmp_path / "b.jsonl", f'{{"text": "a"}}\n{bad}')
        assert "b.jsonl, row 1 (the first is 0) is" in text
        assert "Write each row as an object" in text
    assert "b.jsonl has no rows" in message(tmp_path / "b.jsonl", "[]")
    assert "nested too deep" in message(tmp_path / "c.json", "[" * 100_000 + "]" * 100_000)


@pytest.mark.parametrize("packed", PACKERS)
def test_each_line_of_a_jsonl_is_a_row_or_an_error_that_names_it(tmp_path: Path, packed: str) -> None:
    path = tmp_path / f"a.jsonl{packed}"
    lines = [json.dumps({"text": f'"{k}', "label": k}) for k in range(30)]
    for content in ("\n".join(lines), "\ufeff" + "\r\n\r\n".join(lines) + "\r\n", f"[{','.join(lines)}]"):
        assert columns(path, content) == {"text": [f'"{k}' for k in range(30)], "label": [*range(30)]}
    for bad in (lines[7] + " x", lines[7][:-6], "\0"):
        text = message(path, "\n".join([*lines[:7], bad, *lines[8:]]))
        assert f"a.jsonl{packed} cannot be read (JSONDecodeError" in text
        assert "line 8 column" in text


def test_columns_of_one_name_are_told_and_none_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,text,text\na,0,b,c\n")
    table = local_tables(tmp_path / "a.csv")["train"]
    assert [*table.names] == ["text", "label", "text.1", "text.2"]
    assert "a.csv: 3 columns are named 'text'; all but the first are called 'text.1', 'text.2'" in table.notes
