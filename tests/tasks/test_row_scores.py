"""Scores of rows: their mean is the metric's, and their text gives them back."""

from __future__ import annotations

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as some
import numpy as np
import pytest

from autoprune.tasks.answers import Answers
from autoprune.tasks.kinds import CAUSAL_LM
from autoprune.tasks.metrics import METRICS
from autoprune.tasks.row_scores import (
    LONGEST,
    ClassRows,
    class_rows,
    row_scores,
    rows_as_text,
    rows_of_text,
)
from autoprune.tasks.scoring import agreement_losses, rank_losses, similarity_agreement, spearman
from autoprune.tasks.task import Arrays, Encoded, Task

quick = hypothesis.settings(deadline=None, max_examples=40)


@quick
@hypothesis.given(arrays.arrays(np.bool_, some.integers(0, 70)))
def test_right_and_wrong_rows_come_back(scores: np.ndarray) -> None:
    found = rows_of_text(rows_as_text(scores))
    assert found is not None
    assert found.dtype == np.bool_
    assert found.tolist() == scores.tolist()


@quick
@hypothesis.given(arrays.arrays(np.float64, some.integers(0, 40), elements=some.floats(-1e6, 1e6)))
def test_numbers_come_back_as_half_floats(scores: np.ndarray) -> None:
    found = rows_of_text(rows_as_text(scores))
    assert found is not None
    assert found == pytest.approx(np.clip(scores, -60_000, 60_000), rel=1e-3, abs=1e-7)


def test_a_text_is_short_and_holds_nothing_else() -> None:
    assert len(rows_as_text(np.ones(1263, bool))) < 230
    for scores in (np.ones(10**6, bool), np.ones(10**6)):
        text = rows_as_text(scores)
        assert len(text) <= LONGEST
        found = rows_of_text(text)
        assert found is not None
        assert len(found) > 20_000


@pytest.mark.parametrize(
    "text", ["", "bits 3", "bits 3 ****", "bits 30 oA==", "words 3 oA==", "bits x oA==", "numbers 2 oA=="]
)
def test_other_text_is_no_scores(text: str) -> None:
    assert rows_of_text(text) is None


def classes(kind_metric: str) -> Task:
    rng = np.random.default_rng(0)
    data = Arrays({"x": rng.random((50, 2))}, rng.integers(0, 3, 50))
    return Task(data, data, data, ("a", "b", "c"), ("x",), 0, metric=METRICS[kind_metric])


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
def test_of_classes_it_is_whether_a_row_is_right(metric: str) -> None:
    task = classes(metric)
    logits = np.random.default_rng(1).random((50, 3)).astype(np.float32)
    scores = row_scores(task, task.validation, logits)
    assert scores is not None
    assert scores.dtype == np.bool_
    assert 100 * scores.mean() == pytest.approx(
        METRICS["accuracy"].score_answers(logits, task.validation.labels)
    )


def test_of_tokens_the_mean_over_rows_is_that_over_tokens() -> None:
    rng = np.random.default_rng(2)
    lengths = rng.integers(2, 9, 20)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    data = Encoded(
        rng.integers(0, 99, starts[-1]).astype(np.int32),
        np.zeros(starts[-1], np.uint8),
        starts,
        np.zeros(20, np.int64),
    )
    task = Task(data, data, data, (), ("input_ids",), 0, kind=CAUSAL_LM, metric=METRICS["perplexity"])
    values = -rng.random((task.answer_count(data), 4)).astype(np.float32)
    scores = row_scores(task, data, values)
    assert scores is not None
    assert scores.shape == (20,)
    assert 100 * np.exp(scores.mean()) == pytest.approx(task.score(data, values))


def test_without_ties_rank_losses_are_spearmans_correlation_less_100() -> None:
    rng = np.random.default_rng(3)
    values, labels = rng.random((80, 1)).astype(np.float32), rng.random(80)
    losses = rank_losses(values, labels)
    assert 100 + losses.mean() == pytest.approx(spearman(values, labels))


def test_agreement_losses_are_the_jackknifes_pseudo_values() -> None:
    """Their mean is the agreement's distance from 100, and their spread that of random sets of texts."""
    rng = np.random.default_rng(4)

    def unit(vectors: np.ndarray) -> np.ndarray:
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    means, errors = [], []
    for _ in range(60):
        teacher = rng.normal(size=(60, 8))
        ours, theirs = unit(teacher + 0.3 * rng.normal(size=teacher.shape)), unit(teacher)
        losses = agreement_losses(ours, np.zeros(60), Answers.plain(theirs))
        assert 100 + losses.mean() == pytest.approx(
            similarity_agreement(ours, np.zeros(60), Answers.plain(theirs)), abs=1e-4
        )
        means.append(losses.mean())
        errors.append(losses.std(ddof=1) / np.sqrt(60))
    assert 0.6 < np.mean(errors) / np.std(means) < 1.8


def test_a_metric_of_ones_own_has_right_and_wrong_rows_only_with_classes(tmp_path: object) -> None:
    task = classes("accuracy")
    own = Task(task.train, task.validation, task.test, (), ("x",), 0, own="somewhere:task")
    values = np.zeros((50, 3), np.float32)
    assert row_scores(own, own.validation, values) is None
    named = Task(task.train, task.validation, task.test, ("a", "b", "c"), ("x",), 0, own="somewhere:task")
    scores = row_scores(named, named.validation, values)
    assert scores is not None
    assert scores.tolist() == (named.validation.labels == 0).tolist()
    assert row_scores(named, named.validation, np.zeros(50, np.float32)) is None


@quick
@hypothesis.given(some.lists(some.tuples(some.integers(0, 3), some.booleans()), min_size=1, max_size=60))
def test_what_is_right_of_each_class_adds_up_to_the_accuracy(rows: list[tuple[int, bool]]) -> None:
    numbers, right = np.array([k for k, _ in rows]), np.array([is_right for _, is_right in rows])
    classes = ClassRows(("a", "b", "c", "d"), numbers)
    shares = classes.right(rows_as_text(right))
    assert shares is not None
    assert [share is None for share in shares] == [count == 0 for count in classes.counts]
    whole = sum((share or 0.0) * count for share, count in zip(shares, classes.counts, strict=True))
    assert whole / len(rows) == pytest.approx(100.0 * right.mean())


def test_the_class_that_lost_the_most_is_named_if_it_has_rows_enough() -> None:
    classes = ClassRows(("common", "rare", "odd"), np.repeat([0, 1, 2], [50, 10, 3]))
    original = np.ones(63, bool)
    now = original.copy()
    now[[0, 50, 51, 52, 60, 61, 62]] = False
    loss = classes.worst_loss(rows_as_text(now), rows_as_text(original))
    assert loss == ("rare", 70.0, 100.0)
    assert classes.worst_loss(rows_as_text(original), rows_as_text(now)) is None
    assert classes.worst_loss("", rows_as_text(original)) is None
    assert classes.right(rows_as_text(original[:5])) is None


def test_only_rows_of_a_class_each_have_classes() -> None:
    rows = Arrays({"x": np.zeros((4, 2), np.float32)}, np.array([0, 1, 1, 0]))
    named = Task(rows, rows, rows, ("no", "yes"), ("x",), pad_id=0)
    classes = class_rows(named, rows)
    assert classes is not None
    assert (classes.names, classes.counts) == (("no", "yes"), [2, 2])
    assert class_rows(Task(rows, rows, rows, (), ("x",), pad_id=0, kind=CAUSAL_LM), rows) is None
