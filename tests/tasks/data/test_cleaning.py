"""What is left out of training: rows that come twice, contradict each other, leak or are doubted."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as some
import pytest
from hypothesis import given, settings

from autoprune.core.errors import AutopruneError
from autoprune.run.cleaning import CLEANING, record_cleaning, recorded_cleaning
from autoprune.tasks.data.cleaning import (
    CONTRADICTED,
    DOUBTED,
    LEAKED,
    NEARLY,
    REPEATED,
    Cleaned,
    check_enough,
    cleaned,
)
from autoprune.tasks.data.repeats import Repeats, Spot, find_repeats
from autoprune.tasks.data.rows import Place, Rows
from autoprune.tasks.data.splits import Splits

LONG = "the film is long and slow but its last hour of quiet work in a far village is worth the wait"
OTHERS = (
    "a dull comedy of errors",
    "nothing in it is new",
    "great fun from start to end",
    "what a mess",
    "fine",
)


def rows_of(pairs: list[tuple[str, int]], table: str) -> Rows:
    texts, labels = (tuple(part) for part in zip(*pairs, strict=True))
    return Rows((texts,), labels, places=tuple(Place(table, k) for k in range(len(pairs))))


def made_splits(
    train: list[tuple[str, int]], validation: list[tuple[str, int]], test: list[tuple[str, int]]
) -> Splits:
    parts = {"train": train, "validation": validation, "test": test}
    rows = {split: rows_of(pairs, split) for split, pairs in parts.items()}
    return Splits(**rows, label_names=("bad", "good"), name="made", fingerprint="made")


def test_each_reason() -> None:
    train = [
        ("fine", 1),  # 0 stays
        ("Fine ", 1),  # 1 repeats it
        (LONG, 1),  # 2 stays
        (LONG + " .", 1),  # 3 nearly repeats it
        (LONG + " !", 0),  # 4 stays: nearly the same with another label
        ("a mess", 0),  # 5 stays: two of three say so
        ("a mess", 0),  # 6 repeats it
        ("a mess", 1),  # 7 contradicts
        ("nothing in it is new", 0),  # 8, 9 contradict each other
        ("nothing in it is new", 1),
        ("great fun from start to end", 1),  # 10 is in test
        ("a dull comedy of errors", 0),  # 11 is doubted
        ("one more row", 0),
    ]
    splits = made_splits(train, [("a row", 1)], [("great fun from start to END", 1)])
    what = cleaned(find_repeats(splits), splits.train, doubted=[11, 1])
    assert {row.number: row.reason for row in what.left_out} == {
        1: REPEATED, 3: NEARLY, 6: REPEATED, 7: CONTRADICTED, 8: CONTRADICTED, 9: CONTRADICTED, 10: LEAKED,
        11: DOUBTED,
    }  # fmt: skip
    assert what.kept == [0, 2, 4, 5, 12]
    assert "of 13 training rows 8 are left out by --clean-data" in what.line()
    assert sum(what.counts.values()) == 8


pairs = some.lists(some.tuples(some.sampled_from(OTHERS), some.integers(0, 1)), min_size=1, max_size=12)


@given(pairs, pairs, pairs)
@settings(max_examples=60, deadline=None)
def test_what_stays_is_clean_and_is_all_that_can(
    train: list[tuple[str, int]], validation: list[tuple[str, int]], test: list[tuple[str, int]]
) -> None:
    splits = made_splits(train, validation, test)
    what = cleaned(find_repeats(splits), splits.train)
    kept = splits.train.pick(what.kept)
    assert len(set(kept.keys())) == len(kept)
    held_out = {*splits.validation.keys(), *splits.test.keys()}
    assert not held_out & set(kept.keys())
    assert sorted([*what.kept, *(row.number for row in what.left_out)]) == list(range(len(train)))
    labels: dict[str, list[int]] = {}
    for text, label in train:
        labels.setdefault(text, []).append(label)
    can_stay = {
        text for text, of in labels.items() if of.count(0) != of.count(1) and text.casefold() not in held_out
    }
    assert set(kept.keys()) == can_stay
    if len(kept):
        again = made_splits(list(zip(kept.texts[0], kept.labels, strict=True)), validation, test)  # type: ignore[arg-type]
        assert not cleaned(find_repeats(again), again.train).left_out


def test_numbers_as_labels_contradict_nothing() -> None:
    spots = [Spot("train", k, Place("train", k), "a", label, "a") for k, label in enumerate((0.5, 0.7, 0.5))]
    rows = Rows((("a", "a", "a"),), (0.5, 0.7, 0.5), places=tuple(Place("train", k) for k in range(3)))
    assert cleaned(Repeats(spots, [[0, 1, 2]], []), rows).kept == [0, 1]


def test_a_class_without_a_row_is_refused() -> None:
    rows = rows_of([("a", 0), ("b", 1)], "train")
    check_enough(rows, [0, 1], ("bad", "good"))
    with pytest.raises(AutopruneError, match="no training row of class 'good'"):
        check_enough(rows, [0], ("bad", "good"))
    with pytest.raises(AutopruneError, match="no training row"):
        check_enough(rows, [], ())


def test_what_a_run_left_out_is_read_as_it_was_written(tmp_path: Path) -> None:
    splits = made_splits([("fine", 1), ("fine", 1), ("new", 0)], [("x", 0)], [("y", 1)])
    what = cleaned(find_repeats(splits), splits.train)
    assert recorded_cleaning(tmp_path) is None
    record_cleaning(tmp_path, what)
    record_cleaning(tmp_path, Cleaned((), 3))  # the first stays
    assert recorded_cleaning(tmp_path) == what
    (tmp_path / CLEANING).write_text('{"rows": 3}', encoding="utf-8")
    with pytest.raises(AutopruneError, match="damaged"):
        recorded_cleaning(tmp_path)
