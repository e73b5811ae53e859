"""Batches cover every row, masks are where tokens are, and the metrics are their closed forms."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
from numpy.typing import NDArray

from autoprune.tasks.answers import divergence
from autoprune.tasks.data.rows import Rows
from autoprune.tasks.data.splits import Splits
from autoprune.tasks.encoding import encode
from autoprune.tasks.kinds import CAUSAL_LM
from autoprune.tasks.metrics import METRICS
from autoprune.tasks.scoring import accuracy
from autoprune.tasks.task import NO_LABEL, PAD_TO, Batch, Encoded, Task, with_label_order

quick = hypothesis.settings(deadline=None, max_examples=40)
INPUTS = ("input_ids", "token_type_ids", "attention_mask")
PAD = 7


def encoded(lengths: list[int]) -> Encoded:
    """Rows of these lengths; the token ids 100, 101, ... are all different."""
    total = sum(lengths)
    starts = np.cumsum([0, *lengths])
    types = np.concatenate([np.arange(n) * 2 >= n for n in lengths]).astype(np.uint8)
    labels = np.arange(len(lengths)) % 2
    return Encoded(np.arange(100, 100 + total, dtype=np.int32), types, starts, labels)


def task(data: Encoded, inputs: tuple[str, ...] = INPUTS) -> Task:
    return Task(data, data, data, ("no", "yes"), inputs, PAD)


lengths = some.lists(some.integers(1, 20), min_size=1, max_size=40)
sizes = some.integers(1, 9)


def rows_of(data: Encoded, batch: Batch) -> list[int]:
    """The row numbers of a batch by its first tokens, after checking that each is all there."""
    found = []
    for ids, types, mask in zip(*(batch[name] for name in INPUTS), strict=True):
        row = int(np.searchsorted(data.starts, ids[0] - 100, side="right")) - 1
        start, end = data.starts[row : row + 2]
        n = end - start
        assert mask.tolist() == [1] * n + [0] * (len(mask) - n)
        assert ids.tolist() == data.ids[start:end].tolist() + [PAD] * (len(ids) - n)
        assert types.tolist() == data.types[start:end].tolist() + [0] * (len(ids) - n)
        found.append(row)
    return found


# ---- batches ------------------------------------------------------------------------------------


@quick
@hypothesis.given(lengths, some.data())
def test_a_batch_holds_its_rows_padded_to_the_next_multiple(
    row_lengths: list[int], draw: some.DataObject
) -> None:
    data = encoded(row_lengths)
    rows = draw.draw(some.lists(some.integers(0, len(data) - 1), min_size=1, max_size=6))
    batch = task(data).batch(data, rows)
    assert rows_of(data, batch) == rows
    longest = max(row_lengths[k] for k in rows)
    for tensor in batch.values():
        assert tensor.dtype == np.int64
        assert tensor.shape == (len(rows), math.ceil(longest / PAD_TO) * PAD_TO)


def test_a_batch_has_the_inputs_of_the_model_in_their_order() -> None:
    data = encoded([3, 9])
    assert list(task(data, ("attention_mask", "input_ids")).batch(data, [0, 1])) == [
        "attention_mask",
        "input_ids",
    ]


@quick
@hypothesis.given(lengths, sizes)
def test_sorted_batches_cover_each_row_once_from_short_to_long(row_lengths: list[int], size: int) -> None:
    data = encoded(row_lengths)
    batches = list(task(data).sorted_batches(data, size))
    order = [int(row) for rows, _ in batches for row in rows]
    assert order == sorted(range(len(data)), key=lambda row: (row_lengths[row], row))
    assert all(rows_of(data, batch) == rows.tolist() for rows, batch in batches)
    assert [len(rows) for rows, _ in batches[:-1]] == [size] * (len(batches) - 1)
    assert 1 <= len(batches[-1][0]) <= size


def taken(data: Encoded, size: int, steps: int, seed: int) -> list[list[int]]:
    made = task(data).random_rows(data, size, steps, np.random.default_rng(seed))
    return [rows.tolist() for rows in made]


@quick
@hypothesis.given(lengths, sizes, some.integers(0, 99))
def test_random_rows_take_each_row_once_an_epoch(row_lengths: list[int], size: int, seed: int) -> None:
    data = encoded(row_lengths)
    epoch = math.ceil(len(data) / size)
    batches = taken(data, size, 3 * epoch, seed)
    for start in range(0, len(batches), epoch):
        rows = [row for batch in batches[start : start + epoch] for row in batch]
        assert sorted(rows) == list(range(len(data)))
    assert max(map(len, batches)) <= size


@quick
@hypothesis.given(lengths, sizes, some.integers(0, 99), some.integers(0, 12))
def test_random_rows_are_set_by_the_seed_and_fewer_steps_are_the_first_of_more(
    row_lengths: list[int], size: int, seed: int, steps: int
) -> None:
    data = encoded(row_lengths)
    first = taken(data, size, steps, seed)
    assert len(first) == steps
    assert first == taken(data, size, steps, seed)
    assert first == taken(data, size, steps + 5, seed)[:steps]


def test_another_seed_and_another_epoch_are_another_order() -> None:
    data = encoded([1 + k % 20 for k in range(200)])
    batches = taken(data, 10, 40, 0)
    assert batches != taken(data, 10, 40, 1)
    assert batches[:20] != batches[20:]


def test_random_rows_pad_less_than_shuffled_rows_and_are_not_in_order_of_length() -> None:
    rng = np.random.default_rng(0)
    row_lengths = rng.integers(1, 129, 640).tolist()
    data = encoded(row_lengths)
    widths = [max(row_lengths[k] for k in rows) for rows in taken(data, 8, 80, 0)]
    shuffled = np.array(row_lengths)[rng.permutation(640)].reshape(80, 8).max(1)
    assert sum(widths) < 0.8 * shuffled.sum()
    few = [max(row_lengths[k] for k in rows) for rows in taken(encoded(row_lengths[:64]), 8, 8, 0)]
    assert few != sorted(few)


@pytest.mark.parametrize(("batch", "sequence"), [(1, 4), (2, 32), (3, 128)])
def test_a_timing_batch_is_full_of_real_tokens(batch: int, sequence: int) -> None:
    data = encoded([5, 6])
    made = task(data, ("input_ids", "attention_mask")).timing_batch(batch, sequence)
    assert list(made) == ["input_ids", "attention_mask"]
    assert all(tensor.shape == (batch, sequence) and tensor.dtype == np.int64 for tensor in made.values())
    assert made["attention_mask"].all()
    assert set(made["input_ids"].ravel()) <= set(data.ids)
    expected = [100 + k % 11 for k in range(batch * sequence)]
    assert made["input_ids"].ravel().tolist() == expected


# ---- answers ------------------------------------------------------------------------------------


def test_answers_are_counted_by_row_or_by_place() -> None:
    """A classifier answers once a row, a language model at each token but the last."""
    data = encoded([5, 6, 2])
    assert task(data).answer_count(data) == 3
    assert replace(task(data), kind=CAUSAL_LM, metric=METRICS["perplexity"]).answer_count(data) == 4 + 5 + 1


# ---- metrics ------------------------------------------------------------------------------------


def draws(seed: int, rows: int = 30, classes: int = 4) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3, (rows, classes)).astype(np.float32)


def test_accuracy_is_the_percent_of_rows_that_are_right() -> None:
    logits = np.array([[2, 1], [0, 1], [5, -5], [-3, -2]], np.float32)
    assert accuracy(logits, np.array([0, 1, 0, 1])) == 100.0
    assert accuracy(logits, np.array([1, 1, 0, 1])) == 75.0
    assert accuracy(logits, np.array([1, 0, 1, 0])) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_counts_rows_as_a_loop_does(seed: int) -> None:
    logits = draws(seed)
    labels = np.random.default_rng(seed + 50).integers(0, 4, len(logits))
    right = sum(max(range(4), key=lambda k: row[k]) == y for row, y in zip(logits, labels, strict=True))
    assert accuracy(logits, labels) == pytest.approx(100 * right / len(logits))


@pytest.mark.parametrize("seed", range(3))
def test_divergence_of_equals_is_exactly_zero_and_never_negative(seed: int) -> None:
    one, other = draws(seed), draws(seed + 10)
    assert divergence(one, one) == 0.0
    assert divergence(one, other) > 0.0


@pytest.mark.parametrize("seed", range(3))
def test_divergence_does_not_see_a_shift_of_a_row(seed: int) -> None:
    one, other = draws(seed), draws(seed + 10)
    shift = np.arange(len(one), dtype=np.float32)[:, None]
    assert divergence(one + shift, other - shift) == pytest.approx(divergence(one, other), rel=1e-5)
    assert divergence(one + shift, one) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.9, 0.5), (0.01, 0.99)])
def test_divergence_of_two_classes_is_its_closed_form(p: float, q: float) -> None:
    """KL(p || q) = p log(p / q) + (1 - p) log((1 - p) / (1 - q)), the teacher's first."""
    teacher = np.log(np.array([[p, 1 - p]])).astype(np.float32)
    model = np.log(np.array([[q, 1 - q]])).astype(np.float32)
    closed = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert divergence(model, teacher) == pytest.approx(closed, abs=1e-6)


def test_divergence_is_the_mean_of_the_rows_and_finite_for_the_surest() -> None:
    model, teacher = draws(1), draws(2)
    each = [divergence(model[k : k + 1], teacher[k : k + 1]) for k in range(len(model))]
    assert divergence(model, teacher) == pytest.approx(sum(each) / len(each))
    sure = np.array([[1e4, -1e4]], np.float32)
    assert divergence(-sure, sure) == pytest.approx(2e4)


# ---- tokens -------------------------------------------------------------------------------------

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "was", "good", "bad", "##ly"]
ID = {word: k for k, word in enumerate(WORDS)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    transformers: Any = importlib.import_module("transformers")
    path: Path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    path.write_text("\n".join(WORDS))
    return transformers.BertTokenizerFast(str(path))


def splits(*columns: tuple[str, ...]) -> Splits:
    rows = Rows(columns, tuple(k % 2 for k in range(len(columns[0]))))
    return Splits(rows, rows, rows, ("no", "yes"), "toy", "")


def tokens(data: Encoded, row: int) -> list[str]:
    return [WORDS[k] for k in data.ids[data.starts[row] : data.starts[row + 1]]]


def test_texts_become_tokens_end_to_end(tokenizer: Any) -> None:
    found = encode(splits(("The film was good", "badly", "")), tokenizer, max_length=128)
    data = found.validation
    assert len(data) == 3
    assert data.lengths.tolist() == [6, 4, 2]
    assert data.starts.tolist() == [0, 6, 10, 12]
    assert tokens(data, 0) == ["[CLS]", "the", "film", "was", "good", "[SEP]"]
    assert tokens(data, 1) == ["[CLS]", "bad", "##ly", "[SEP]"]
    assert tokens(data, 2) == ["[CLS]", "[SEP]"]
    assert not data.types.any()
    assert data.labels.tolist() == [0, 1, 0]
    assert (found.label_names, found.pad_id) == (("no", "yes"), ID["[PAD]"])
    assert sorted(found.inputs) == sorted(INPUTS)


def test_pairs_are_one_row_of_two_segments(tokenizer: Any) -> None:
    pairs = splits(("the film", "good"), ("was bad", "bad"))
    found = encode(pairs, tokenizer, max_length=128)
    assert tokens(found.train, 0) == ["[CLS]", "the", "film", "[SEP]", "was", "bad", "[SEP]"]
    assert found.train.types[:7].tolist() == [0, 0, 0, 0, 1, 1, 1]
    batch = found.batch(found.train, [1, 0])
    assert (
        batch["input_ids"][0].tolist()
        == [ID[w] for w in ("[CLS]", "good", "[SEP]", "bad", "[SEP]")] + [0] * 3
    )
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0]]
    assert batch["attention_mask"].sum(1).tolist() == [5, 7]


def test_rows_are_cut_at_the_limit_and_keep_their_last_mark(tokenizer: Any) -> None:
    long = "good " * 50
    one = encode(splits((long, "bad")), tokenizer, max_length=8).test
    assert one.lengths.tolist() == [8, 3]
    assert tokens(one, 0) == ["[CLS]", *["good"] * 6, "[SEP]"]
    pair = encode(splits((long,), ("bad",)), tokenizer, max_length=8).test
    assert tokens(pair, 0) == ["[CLS]", *["good"] * 4, "[SEP]", "bad", "[SEP]"]  # the longer is cut


def test_the_tokenizers_own_limit_holds_too(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "model_max_length", 5)
    assert encode(splits(("good " * 50,)), tokenizer, max_length=128).train.lengths.tolist() == [5]


def test_words_are_counted_as_they_came(tokenizer: Any) -> None:
    texts = tuple(" ".join(WORDS[5 + (k * j) % 5] for j in range(k)) for k in range(12))
    data = encode(splits(texts), tokenizer, max_length=64).train
    for row, text in enumerate(texts):
        assert Counter(tokens(data, row)) == Counter(["[CLS]", *text.split(), "[SEP]"])


def test_places_without_a_label_stay_so_in_another_order_of_classes() -> None:
    data = replace(encoded([3, 2]), labels=np.array([0, NO_LABEL, 2, 1, NO_LABEL]))
    assert with_label_order(data, [2, 0, 1]).labels.tolist() == [2, NO_LABEL, 1, 0, NO_LABEL]
