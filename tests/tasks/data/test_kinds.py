"""Reading every kind of data: one contract for all kinds, then what is particular to each."""

from __future__ import annotations

import gzip
import importlib
import json
import logging
import random
import re
import sys
import types
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.images import digest
from autoprune.tasks.data.rows import Rows
from autoprune.tasks.data.splits import Splits
from autoprune.tasks.data.tables import from_dataset
from autoprune.tasks.kinds import KINDS, task_kind
from tests.support.splits import splits_of

SPLITS = ("train", "validation", "test")
quick = hypothesis.settings(deadline=None, max_examples=15)
Record = dict[str, Any]


def pixels(i: int) -> np.ndarray:
    """A small image that no other number has."""
    return np.random.default_rng(i).integers(0, 256, (3 + i % 2, 4, 3), dtype=np.uint8)


MAKERS: dict[str, Callable[[int], Record]] = {
    "text-classification": lambda i: {"text": f"text {i}", "label": i % 2},
    "text-regression": lambda i: {"sentence1": f"one {i}", "sentence2": "two", "score": i / 7},
    "token-classification": lambda i: {"tokens": ["word", str(i)], "ner_tags": ["O", f"B-{i % 2}"]},
    "sentence-embedding": lambda i: {"sentence": f"sentence {i}", "label": 1},
    "causal-lm": lambda i: {"document": f"document {i}\nof two lines"},
    "image-classification": lambda i: {"image": pixels(i), "label": f"class {i % 2}"},
}


def made(kind: str, count: int) -> list[Record]:
    return [{**MAKERS[kind](i), "by": f"g{i // 3}"} for i in range(count)]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], str]:
    """Registers what a data function gives; gives the function's name."""
    module: Any = types.ModuleType("made_data")
    monkeypatch.setitem(sys.modules, "made_data", module)

    def give(found: Any) -> str:
        module.rows = lambda: found
        return "made_data:rows"

    return give


def content(rows: Rows) -> list[Any]:
    """What a row holds, in a form that compares."""
    parts = [*rows.texts]
    if rows.images:
        parts.append(tuple((image.shape, image.tobytes()) for image in rows.images))
    if rows.labels:
        parts.append(rows.labels)
    return list(zip(*parts, strict=True))


def contents(splits: Splits) -> list[list[Any]]:
    return [content(getattr(splits, split)) for split in SPLITS]


def sizes(splits: Splits) -> tuple[int, ...]:
    return tuple(len(getattr(splits, split)) for split in SPLITS)


NAMES = [kind.name for kind in KINDS]


def read_splits(source: str, *, kind: str | None = None, **options: Any) -> Splits:
    """The splits of a source, for a kind by its name."""
    return splits_of(source, kind=task_kind(kind), **options)


def message(source: Path | str, **options: Any) -> str:
    with pytest.raises(AutopruneError) as caught:
        read_splits(str(source), **options)
    return str(caught.value)


def written(path: Path, records: list[Record]) -> str:
    path.write_text("\n".join(map(json.dumps, records)))
    return str(path)


# The contract of every kind


def test_the_contract_is_of_every_kind() -> None:
    assert set(MAKERS) == set(NAMES)


@pytest.mark.parametrize("kind", NAMES)
@hypothesis.given(
    count=some.integers(20, 60), seed=some.integers(0, 9), order=some.randoms(use_true_random=False)
)
@hypothesis.settings(quick, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_splits_are_disjoint_whole_repeatable_and_blind_to_order(
    given: Callable[[Any], str], kind: str, count: int, seed: int, order: random.Random
) -> None:
    records = made(kind, count)
    first = read_splits(given(records), kind=kind, seed=seed)
    assert read_splits(given(records), kind=kind, seed=seed) == first
    parts = contents(first)
    assert sum(sizes(first)) == count == len({*chain(*parts)})
    assert abs(sizes(first)[0] - 0.7 * count) <= 1
    shuffled = order.sample(records, count)
    again = contents(read_splits(given(shuffled), kind=kind, seed=seed))
    assert [sorted(part) for part in again] == [sorted(part) for part in parts]


@pytest.mark.parametrize("kind", NAMES)
def test_groups_stay_together_and_equal_rows_too(given: Callable[[Any], str], kind: str) -> None:
    records = made(kind, 90)
    group = {content(read_one(given, kind, record))[0][:1]: record["by"] for record in records}
    splits = read_splits(given(records + records[:30]), kind=kind, group_by="by")
    groups = [{group[row[:1]] for row in part} for part in contents(splits)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 30
    twice = [*records, *(dict(record, by=f"h{i}") for i, record in enumerate(records[:30]))]
    rows = [set(part) for part in contents(read_splits(given(twice), kind=kind, group_by="by"))]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 90
    doubled = read_splits(given(records + records[:30]), kind=kind)
    rows = [set(part) for part in contents(doubled)]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 90
    assert sum(sizes(doubled)) == (90 if kind == "sentence-embedding" else 120)


def read_one(given: Callable[[Any], str], kind: str, record: Record) -> Rows:
    """One record as a training split of its own, beside others that make the splits valid."""
    others = made(kind, 8)[4:]
    splits = {"train": [record, *others], "validation": others, "test": others}
    train = read_splits(given(splits), kind=kind).train
    texts = tuple(column[:1] for column in train.texts)
    return Rows(texts, (), train.images[:1])


@pytest.mark.parametrize("kind", NAMES)
def test_limits_draw_subsets_and_the_fingerprint_follows(given: Callable[[Any], str], kind: str) -> None:
    source = given(made(kind, 60))
    whole = read_splits(source, kind=kind)
    assert whole.train != whole.test
    many, few = (read_splits(source, kind=kind, limits={"train": n}) for n in (30, 20))
    assert (sizes(many)[0], sizes(few)[0]) == (30, 20)
    assert set(content(few.train)) < set(content(many.train)) < set(content(whole.train))
    assert len({whole.fingerprint, many.fingerprint, few.fingerprint}) == 3
    assert read_splits(source, kind=kind, seed=1).fingerprint != whole.fingerprint


@pytest.mark.parametrize("kind", NAMES)
def test_every_source_gives_the_same(tmp_path: Path, given: Callable[[Any], str], kind: str) -> None:
    datasets: Any = importlib.import_module("datasets")
    records = made(kind, 30)
    plain = [{n: c.tolist() if isinstance(c, np.ndarray) else c for n, c in r.items()} for r in records]
    dataset = datasets.Dataset.from_list(plain)
    dataset.to_parquet(str(tmp_path / "a.parquet"))
    columns = {name: [record[name] for record in records] for name in records[0]}
    expected = read_splits(written(tmp_path / "a.jsonl", plain), kind=kind).fingerprint
    sources = [records, columns, dataset, dataset.with_format("numpy"), {"train": columns}]
    assert read_splits(str(tmp_path / "a.parquet"), kind=kind).fingerprint == expected
    for found in sources:
        assert read_splits(given(found), kind=kind).fingerprint == expected


def test_kinds_and_arguments_that_do_not_go_together(given: Callable[[Any], str]) -> None:
    source = given(made("causal-lm", 20))
    assert "data of kind 'own' cannot be read; allowed: text-classification," in message(source, kind="own")
    text = message(source, kind="causal-lm", label_column="label")
    assert text.startswith("--label-column is given, but rows of causal-lm have a text and no label.")
    text = message(source, kind="image-classification", text_columns=["text"])
    assert text.startswith(
        "--text-column is given, but rows of image-classification have an image and a label"
    )
    assert "--image-column is given" in message(source, kind="text-regression", image_column="image")
    assert "1 text column." in message(source, kind="causal-lm", text_columns=["document", "by"])
    assert "image_side 0 not allowed" in message(source, kind="image-classification", image_side=0)
    assert "made_data:rows is a function: revision" in message(source, kind="causal-lm", revision="main")


# Numbers


def test_scores_are_read_as_numbers_from_any_column_known(tmp_path: Path) -> None:
    for name in ("score", "similarity_score", "relatedness_score", "stars", "label"):
        rows = "\n".join(f"a {i},b {i},{i / 4}" for i in range(20))
        (tmp_path / "a.csv").write_text(f"sentence_A,sentence_B,{name}\n{rows}")
        splits = read_splits(str(tmp_path / "a.csv"), kind="text-regression")
        assert splits.label_names == ()
        read = sorted(chain(*contents(splits)), key=lambda row: row[2])
        assert read == [(f"a {i}", f"b {i}", i / 4) for i in range(20)]


def test_a_score_comes_before_a_label_and_unscored_splits_are_made(given: Callable[[Any], str]) -> None:
    train = [{"text": f"t{i}", "label": "entails", "score": i} for i in range(30)]
    hidden = [{"text": f"u{i}", "label": "entails", "score": -1} for i in range(30)]
    splits = read_splits(given({"train": train, "test": hidden}), kind="text-regression")
    assert sizes(splits) == (21, 3, 6)
    assert min(splits.test.labels) >= 0


@pytest.mark.parametrize("bad", ["pos", True, "inf", [1.0], "3,5"])
def test_a_score_that_is_no_number_is_refused(given: Callable[[Any], str], bad: Any) -> None:
    rows = [{"text": f"t{i}", "label": i if i else bad} for i in range(20)]
    text = message(given(rows), kind="text-regression")
    assert text == (
        f"label column 'label' of made_data:rows holds {bad!r}; allowed are finite numbers. "
        "To tell classes apart use --task text-classification."
    )


def test_classes_and_scores_tell_of_one_another(given: Callable[[Any], str]) -> None:
    datasets: Any = importlib.import_module("datasets")
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    columns = {"text": [f"t{i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    classes = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    assert "declares the classes neg, pos; allowed are finite" in message(
        given(classes), kind="text-regression"
    )
    fractions = given({**columns, "label": [i / 3 for i in range(20)]})
    assert "use --task text-regression for it" in message(fractions)
    assert "holds 2 only; scores that differ" in message(
        given({**columns, "label": [2] * 20}), kind="text-regression"
    )


# Tags


def tagged(given: Callable[[Any], str], **options: Any) -> Splits:
    return read_splits(given(options.pop("rows")), kind="token-classification", **options)


def test_declared_tags_keep_their_order_and_found_ones_are_sorted(given: Callable[[Any], str]) -> None:
    datasets: Any = importlib.import_module("datasets")
    label = datasets.Sequence(datasets.ClassLabel(names=["O", "B-X", "A-unseen"]))
    features = datasets.Features({"words": datasets.Sequence(datasets.Value("string")), "tags": label})
    columns = {"words": [["a", str(i)] for i in range(20)], "tags": [[0, 1]] * 20}
    splits = tagged(given, rows=datasets.Dataset.from_dict(columns, features=features))
    assert splits.label_names == ("O", "B-X", "A-unseen")
    assert set(splits.train.labels) == {(0, 1)}
    assert splits.train.texts[0][0][0] == "a"
    found = tagged(given, rows={**columns, "tags": [["O", "B-X"]] * 20})
    assert (found.label_names, set(found.train.labels)) == (("B-X", "O"), {(1, 0)})
    numbers = tagged(given, rows={**columns, "tags": [np.array([10, 9])] * 20})
    assert (numbers.label_names, set(numbers.train.labels)) == (("9", "10"), {(1, 0)})


def test_rows_without_words_or_tags_are_dropped(
    given: Callable[[Any], str], caplog: pytest.LogCaptureFixture
) -> None:
    rows = made("token-classification", 30)
    rows[3]["tokens"], rows[7]["ner_tags"], rows[9]["tokens"] = [], None, None
    with caplog.at_level(logging.WARNING):
        splits = tagged(given, rows=rows)
    assert sum(sizes(splits)) == 27
    assert splits.notes == (
        "tokens from tokens, tags from ner_tags; columns not read: by",
        "of 30 rows read 3 are left out: 2 without tokens, 1 without tags",
    )
    assert caplog.text == ""


@pytest.mark.parametrize("hidden", [-100, "-100", -100.0, -1, None, ""])
def test_tags_that_are_no_label_are_no_class_and_move_no_id(given: Callable[[Any], str], hidden: Any) -> None:
    last = (hidden, 0, 1, 2)
    rows = [{"tokens": ["a", str(i), "b"], "ner_tags": [hidden, i % 3, last[i % 4]]} for i in range(60)]
    rows += [{"tokens": ["none", str(i)], "ner_tags": [hidden, hidden]} for i in range(5)]
    splits = tagged(given, rows=rows)
    assert splits.label_names == ("0", "1", "2")
    expected = {(-100, i % 3, (-100, 0, 1, 2)[i % 4]) for i in range(60)}
    assert {tags for split in SPLITS for tags in getattr(splits, split).labels} == expected
    assert (splits.counts.read, splits.counts.left_out) == (65, {"without tags": 5})
    told = str(hidden).strip() if hidden not in (None, "") else "empty"
    assert splits.notes == (
        "of 65 rows read 5 are left out: 5 without tags",
        f"85 of 190 words have no label: 85 are {told}",
    )


def test_minus_one_is_a_tag_beside_names(given: Callable[[Any], str]) -> None:
    rows = [{"tokens": ["a", str(i)], "ner_tags": ["O", ("-1", "B", "-100")[i % 3]]} for i in range(60)]
    assert tagged(given, rows=rows).label_names == ("-1", "B", "O")


def test_ids_that_no_word_has_keep_their_place(given: Callable[[Any], str]) -> None:
    rows = [{"tokens": ["a", str(i)], "ner_tags": [0, (1, 4)[i % 2]]} for i in range(60)]
    splits = tagged(given, rows=rows)
    assert splits.label_names == ("0", "1", "2", "3", "4")
    assert {tag for tags in splits.train.labels for tag in tags} == {0, 1, 4}
    assert splits.notes == ("tags are ids of 0 to 4", "2 of 5 classes have no row: 2, 3")


def test_declared_tags_may_be_hidden(given: Callable[[Any], str]) -> None:
    datasets: Any = importlib.import_module("datasets")
    label = datasets.Sequence(datasets.ClassLabel(names=["O", "B-X"]))
    features = datasets.Features({"words": datasets.Sequence(datasets.Value("string")), "tags": label})
    columns = {"words": [["a", str(i), "b"] for i in range(20)], "tags": [[0, 1, -1]] * 20}
    splits = tagged(given, rows=datasets.Dataset.from_dict(columns, features=features))
    assert (splits.label_names, set(splits.train.labels)) == (("O", "B-X"), {(0, 1, -100)})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ner_tags": ["O"]}, "row 5 (the first is 0): ner_tags has 1 tags for 2 words ('word 5'...)"),
        ({"ner_tags": "O O"}, "row 5 (the first is 0): ner_tags holds 'O O'; a list of tags, one a word"),
        ({"tokens": "word 5"}, "row 5 (the first is 0): tokens holds 'word 5'; a list of words is needed"),
        ({"tokens": ["word", 5]}, "tokens holds ['word', 5]; a list of words is needed"),
        ({"ner_tags": [["O"], ["O"]]}, "holds lists, allowed is one class a word"),
    ],
)
def test_words_and_tags_that_do_not_fit(given: Callable[[Any], str], change: Record, expected: str) -> None:
    rows = made("token-classification", 20)
    rows[5] |= change
    rows[2]["tokens"] = []  # a row dropped before does not move the number
    assert expected in message(given(rows), kind="token-classification")


def test_tags_need_two_and_a_column(given: Callable[[Any], str]) -> None:
    rows = [{"tokens": ["a", str(i)], "ner_tags": ["O", "O"]} for i in range(20)]
    assert "1 classes found (O)" in message(given(rows), kind="token-classification")
    text = message(given([{"sentence": "a", "ner_tags": ["O"]}]), kind="token-classification")
    assert "no tokens column found" in text
    assert "known are tokens, words. Name it by --text-column." in text


# Sentences and documents


def test_both_sentences_of_a_pair_are_rows_and_each_comes_once(given: Callable[[Any], str]) -> None:
    rows = [{"sentence1": f"Sentence {i % 20}", "sentence2": f"sentence  {i}"} for i in range(40)]
    rows += [{"sentence1": "alone", "sentence2": None}]
    splits = read_splits(given(rows), kind="sentence-embedding")
    read = chain(*(getattr(splits, split).texts[0] for split in SPLITS))
    assert len(splits.train.texts) == 1
    assert splits.train.labels == ()
    assert Counter(" ".join(text.lower().split()) for text in read) == Counter(
        [*(f"sentence {i}" for i in range(40)), "alone"]
    )


def test_which_of_two_spellings_is_kept_does_not_depend_on_the_order(given: Callable[[Any], str]) -> None:
    rows = [{"text": f"Word {i}", "by": f"g{i % 30}"} for i in range(40)]
    rows += [{"text": f"word {i}", "by": f"g{7 * i % 30}"} for i in range(40)]
    kept = []
    for some_order in (rows, rows[::-1], sorted(rows, key=lambda row: row["text"][::-1])):
        for group in ("by", None):
            splits = read_splits(given(some_order), kind="sentence-embedding", group_by=group)
            kept.append([sorted(part) for part in contents(splits)])
    assert kept[0::2] == [kept[0]] * 3
    assert kept[1::2] == [kept[1]] * 3
    assert sum(map(len, kept[0])) == 40


def texts(source: Path | str, kind: str = "causal-lm", **options: Any) -> list[str]:
    splits = read_splits(str(source), kind=kind, **options)
    return sorted(chain(*(getattr(splits, split).texts[0] for split in SPLITS)))


def test_blank_lines_separate_documents_else_each_line_is_one(tmp_path: Path) -> None:
    articles = [f"Title {i}\nBody of {i}." for i in range(30)]
    (tmp_path / "a.txt").write_text("\n" + "\n \n\n".join(articles) + "\n\n", encoding="utf-8-sig")
    assert texts(tmp_path / "a.txt") == sorted(articles)
    (tmp_path / "b.txt").write_bytes("\r\n\r\n".join(articles).replace("\n", "\r\n").encode())
    assert len(texts(tmp_path / "b.txt")) == 30
    lines = [f"one article {i}" for i in range(30)]
    (tmp_path / "c.cor").write_text("\n".join(lines) + "\n")
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress("\r\n".join(lines).encode()))
    assert texts(tmp_path / "c.cor") == texts(tmp_path / "d.txt.gz") == sorted(lines)
    every = [line for article in articles for line in article.split("\n")]
    assert texts(tmp_path / "a.txt", kind="sentence-embedding") == sorted(every)


def test_a_folder_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for i in range(12):
        folder = tmp_path / "more" if i % 2 else tmp_path
        (folder / f"{i}.txt").write_text("\n\n".join(f"file {i} document {k}" for k in range(4)))
    assert len(texts(tmp_path)) == 48
    splits = read_splits(str(tmp_path), kind="causal-lm", group_by="file")
    files = [{text.split()[1] for text in getattr(splits, split).texts[0]} for split in SPLITS]
    assert sum(map(len, files)) == len(set.union(*files)) == 12
    (tmp_path / "train.txt").write_text("\n".join(f"t {i}" for i in range(30)))
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "x.txt").write_text("u 1\nu 2")
    named = read_splits(str(tmp_path), kind="causal-lm")
    assert sorted(named.test.texts[0]) == ["u 1", "u 2"]
    assert len(named.train) + len(named.validation) == 30


def test_text_files_that_cannot_be_read_or_are_for_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("é".encode("latin-1") * 9)
    assert "a.txt cannot be read (ValueError: line 1 is not UTF-8" in message(path, kind="causal-lm")
    path.write_text(" \n\n")
    assert "a.txt (train) has no row with a text. Give some." in message(path, kind="causal-lm")
    path.write_text("alone")
    few = r"too small: [a-z0-9, ]+ rows; each split needs some. Give more rows"
    assert re.search(few, message(path, kind="causal-lm"))
    assert "Plain text is for causal-lm, sentence-embedding (--task)." in message(path)
    (tmp_path / "empty").mkdir()
    assert "Or give text files (.txt)." in message(tmp_path / "empty", kind="causal-lm")


# Images

pillow: Any = pytest.importorskip("PIL.Image", reason="Pillow, of the extra `vision`, is not installed")


def photographs(folder: Path, suffix: str = ".png", count: int = 30) -> str:
    """The images of `made` as files in class folders."""
    for i in range(count):
        path = folder / f"class {i % 2}" / "deeper" / f"{i}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pillow.fromarray(pixels(i)).save(path)
    return str(folder)


def images(source: str, **options: Any) -> Splits:
    return read_splits(source, kind="image-classification", **options)


def one_image(given: Callable[[Any], str], cell: Any, **options: Any) -> np.ndarray:
    """How a cell is read."""
    cells = [cell, *map(pixels, range(1, 4))]
    split = {"image": cells, "label": [0, 1, 0, 1]}
    return images(given(dict.fromkeys(SPLITS, split)), **options).train.images[0]


def test_pixels_are_the_same_from_folders_files_bytes_and_arrays(
    tmp_path: Path, given: Callable[[Any], str]
) -> None:
    datasets: Any = importlib.import_module("datasets")
    folder = photographs(tmp_path / "images")
    files = sorted(Path(folder).rglob("*.png"), key=lambda path: (path.parent.parent.name, path))
    labels = [path.parent.parent.name for path in files]
    relative = [str(path.relative_to(tmp_path)) for path in files]
    written(
        tmp_path / "a.jsonl", [{"file_name": f, "label": n} for f, n in zip(relative, labels, strict=True)]
    )
    (tmp_path / "a.csv").write_text(
        "\n".join(["img,category", *map(",".join, zip(relative, labels, strict=True))])
    )
    stored = datasets.Dataset.from_dict({"image": list(map(str, files)), "label": labels})
    stored = stored.cast_column("image", datasets.Image())
    stored.to_parquet(str(tmp_path / "a.parquet"))
    stored.save_to_disk(str(tmp_path / "saved"))
    cells = [path.read_bytes() for path in files], [pillow.open(path) for path in files]
    expected = images(folder)
    assert expected.label_names == ("class 0", "class 1")
    for name in ("a.jsonl", "a.csv", "a.parquet", "saved"):
        assert images(str(tmp_path / name)).fingerprint == expected.fingerprint, name
    for found in (stored, *({"image": column, "label": labels} for column in cells)):
        assert images(given(found)).fingerprint == expected.fingerprint
    assert from_dataset(stored).read("image")[0].keys() == {"bytes", "path"}  # not decoded all at once
    some_array = expected.train.images[0]
    assert (some_array.dtype, some_array.shape[2], some_array.flags.writeable) == (np.uint8, 3, False)


def test_an_image_column_can_be_named_and_an_array_feature_is_read(given: Callable[[Any], str]) -> None:
    datasets: Any = importlib.import_module("datasets")
    cells = np.random.default_rng(0).integers(0, 256, (30, 5, 4, 3), dtype=np.uint8)
    features = {"scan": datasets.Array3D((5, 4, 3), "uint8"), "label": datasets.Value("int64")}
    columns = {"scan": cells, "label": np.arange(30) % 2}
    dataset = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    read = images(given(dataset), image_column="scan")
    assert read == images(given(columns), image_column="scan")
    assert {image.tobytes() for image in read.train.images} < {image.tobytes() for image in cells}
    assert "no image column found" in message(given(columns), kind="image-classification")


def test_folders_named_as_splits_are_splits_unless_they_are_classes(tmp_path: Path) -> None:
    photographs(tmp_path / "a" / "train")
    photographs(tmp_path / "a" / "val", count=10)
    splits = images(str(tmp_path / "a"))
    assert len(splits.validation) == 10
    assert len(splits.train) + len(splits.test) == 30
    for i in range(30):
        path = tmp_path / "b" / ("bus", "train")[i % 2] / f"{i}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        pillow.fromarray(pixels(i)).save(path)
    assert images(str(tmp_path / "b")).label_names == ("bus", "train")
    photographs(tmp_path / "a" / "valid", count=4)
    assert "has two folders for validation. Keep one." in message(tmp_path / "a", kind="image-classification")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_of_pillow_becomes_three_bytes(given: Callable[[Any], str], mode: str) -> None:
    grey = np.arange(0, 240, 12, dtype=np.uint8).reshape(4, 5)
    colour = np.stack([grey, grey, grey], 2)
    if mode == "I;16":
        image = pillow.fromarray(grey.astype(np.uint16) * 257)
        assert image.mode == mode
    else:
        image = pillow.fromarray(colour).convert(mode)
    read = one_image(given, image)
    assert (read.shape, read.dtype) == ((4, 5, 3), np.uint8)
    if mode not in ("1", "CMYK", "P"):
        assert np.abs(read.astype(int) - colour).max() <= 1


def test_a_grey_image_is_one_plane_seen_thrice(given: Callable[[Any], str]) -> None:
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    for cell in (grey, grey[:, :, None], grey.tolist(), grey.astype(np.float32), pillow.fromarray(grey)):
        read = one_image(given, cell)
        assert read.strides[2] == 0
        assert (read == grey[:, :, None]).all()
    assert (one_image(given, grey + 0.6) == grey[:, :, None] + 1).all()
    assert (one_image(given, grey > 9)[..., 0] == 255 * (grey > 9)).all()
    opaque = np.dstack([grey, grey, grey, grey])
    assert (one_image(given, opaque) == opaque[..., :3]).all()


def test_a_camera_held_sideways_is_turned(tmp_path: Path, given: Callable[[Any], str]) -> None:
    image = pillow.fromarray(pixels(1))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    read = one_image(given, str(tmp_path / "a.png"))
    assert (read == np.rot90(pixels(1), -1)).all()


def test_large_images_are_shrunk_to_the_side_asked_for(tmp_path: Path, given: Callable[[Any], str]) -> None:
    cell = np.kron(pixels(0), np.ones((40, 40, 1), np.uint8))
    assert cell.shape == (120, 160, 3)
    pillow.fromarray(cell).save(tmp_path / "a.jpg", quality=95)
    for large in (cell, pillow.fromarray(cell), str(tmp_path / "a.jpg")):
        read = one_image(given, large, image_side=30)
        assert read.shape == (30, 40, 3)
        assert abs(read.mean() - cell.mean()) < 2
    assert one_image(given, cell, image_side=120).shape == cell.shape
    assert one_image(given, cell[..., 0], image_side=30).strides[2] == 0


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (np.full((4, 4), 0.5), "holds numbers of 0.5 to 0.5; allowed is a file's path or bytes, or numbers"),
        (np.full((4, 4), 300), "holds numbers of 300 to 300"),
        (np.full((4, 4), np.nan), "holds numbers of nan to nan"),
        (np.zeros((3, 8, 8)), "holds numbers [3 8 8] as an image; allowed is"),
        ([[1, 2], [3]], "holds list as an image"),
        (7, "holds int as an image"),
        (b"no image", "an image of 8 bytes cannot be read (UnidentifiedImageError"),
        ("gone.png", "row 0 (the first is 0): no image file 'gone.png'. Relative paths start at"),
    ],
)
def test_cells_that_are_no_images(given: Callable[[Any], str], cell: Any, expected: str) -> None:
    with pytest.raises(AutopruneError) as caught:
        one_image(given, cell)
    assert expected in str(caught.value)


def test_files_that_are_no_images(tmp_path: Path, given: Callable[[Any], str]) -> None:
    folder = photographs(tmp_path / "images", ".jpg")
    first = next(Path(folder).rglob("*.jpg"))
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    text = message(folder, kind="image-classification")
    assert f"image file {first} cannot be read (OSError: " in text
    assert "write it again, or take it out" in text
    assert "Images are for --task image-classification." in message(folder)
    (tmp_path / "one" / "class").mkdir(parents=True)
    first.rename(tmp_path / "one" / "class" / "a.jpg")
    assert "Or give a folder of one sub-folder a class" in message(
        tmp_path / "one", kind="image-classification"
    )


def test_a_missing_pillow_names_the_extra(
    tmp_path: Path, given: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photographs(tmp_path / "images")
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.ImageOps", None)
    assert "reading images needs Pillow" in message(folder, kind="image-classification")
    assert "pip install 'autoprune[vision]'" in message(folder, kind="image-classification")
    assert sum(sizes(images(given(made("image-classification", 30))))) == 30  # arrays need no Pillow


def test_rows_compare_by_pixels_and_rows_without_an_image_are_dropped(given: Callable[[Any], str]) -> None:
    records = made("image-classification", 30)
    first = images(given(records))
    changed = [dict(record, image=record["image"].copy()) for record in records]
    assert images(given(changed)) == first
    assert digest(np.zeros((2, 8, 3), np.uint8)) != digest(np.zeros((4, 4, 3), np.uint8))
    changed[4]["image"][0, 0, 0] ^= 1
    assert images(given(changed)).fingerprint != first.fingerprint
    gaps = [None, float("nan"), " ", {"bytes": None, "path": None}]
    for record, gap in zip(changed, gaps, strict=False):
        record["image"] = gap
    assert sum(sizes(images(given(changed)))) == 26


# Functions


def test_rows_without_a_group_are_dealt_one_by_one(given: Callable[[Any], str]) -> None:
    rows = [
        dict(row, by=("g", None, " ", float("nan"))[min(i // 10, 3)])
        for i, row in enumerate(made("causal-lm", 90))
    ]
    splits = read_splits(given(rows), kind="causal-lm", group_by="by")
    assert min(sizes(splits)) >= 5
    grouped = [sum(int(text.split()[1]) < 10 for text in getattr(splits, name).texts[0]) for name in SPLITS]
    assert sorted(grouped) == [0, 0, 10]


def test_a_function_of_a_module_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data_module.py").write_text(
        "def rows():\n    return [{'text': f't{i}', 'label': i % 2} for i in range(30)]\n"
        "def broken():\n    return {}['gone']\n"
        "def needs(one):\n    return one\n"
        "number = 3\n"
    )
    (tmp_path / "my_wrong_module.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert sum(sizes(read_splits("my_data_module:rows"))) == 30
    assert "raised KeyError: 'gone', in my_data_module.py line 4" in message("my_data_module:broken")
    assert "called without arguments" in message("my_data_module:needs")
    assert "data function 'my_data_module:gone'" in message("my_data_module:gone")
    assert "data function 'my_data_module:number'" in message("my_data_module:number")
    assert "data function 'no_such_module:rows'" in message("no_such_module:rows")
    text = message("my_wrong_module:rows")
    assert "its module raised ZeroDivisionError" in text
    assert "my_wrong_module.py line 1" in text


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, "gave a NoneType; allowed are a datasets.Dataset or DatasetDict"),
        ("text", "gave a str; allowed"),
        ([], "gave an empty list; allowed"),
        ([1, 2], "gave a list; allowed"),
        ({}, "gave columns of none rows"),
        ({"text": "abc"}, "gave a dict with str as 'text'"),
        ({"text": ["a"], "label": [1, 2]}, "gave columns of text 1, label 2 rows. Give some, all of as many"),
        ({"train": {"text": ["a"]}, "test": 3}, "gave a int; allowed"),
        (
            {"left": {"text": ["a"]}, "right": {"text": ["a"]}},
            "has the splits left, right: none is train or test",
        ),
    ],
)
def test_a_function_that_gives_something_else(given: Callable[[Any], str], found: Any, expected: str) -> None:
    text = message(given(found))
    assert text.startswith("data function 'made_data:rows' ")
    assert expected in text


def test_a_function_gives_splits_of_any_form(given: Callable[[Any], str]) -> None:
    datasets: Any = importlib.import_module("datasets")
    records = [{"text": f"t{i}", "label": i % 2} for i in range(60)]
    columns: Mapping[str, Any] = {name: [record[name] for record in records[20:40]] for name in records[0]}
    mixed = {"train": records[:20], "dev": columns, "test": datasets.Dataset.from_list(records[40:])}
    splits = read_splits(given(mixed))
    assert [text for split in SPLITS for text in getattr(splits, split).texts[0]] == [
        r["text"] for r in records
    ]
    parts = {name: datasets.Dataset.from_list(records) for name in ("train", "test")}
    assert len(read_splits(given(datasets.DatasetDict(parts))).test) == 60
    uneven = [{"text": f"t{i}", **({"label": i % 2} if i else {})} for i in range(30)]
    assert sum(sizes(read_splits(given(uneven)))) == 29
