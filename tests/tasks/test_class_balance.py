"""The original held against always answering the commonest class: stopped with the likely causes."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest

from autoprune.core.errors import AutopruneError
from autoprune.tasks.class_balance import FEWEST_ANSWERS, balance_notes, check_original, commonest_class
from autoprune.tasks.kinds import CAUSAL_LM, IMAGE_CLASSIFICATION, TEXT_REGRESSION, TOKEN_CLASSIFICATION
from autoprune.tasks.metrics import ACCURACY, METRICS
from autoprune.tasks.task import NO_LABEL, Arrays, Encoded, Task

NAMES = ("bad", "fair", "good")


def task(labels: list[int] | np.ndarray, **options: Any) -> Task:
    """A task whose rows have one token each, with these labels."""
    count = len(labels)
    rows = Encoded(
        np.ones(count, np.int32),
        np.zeros(count, np.uint8),
        np.arange(count + 1),
        np.asarray(labels, np.int64),
    )
    return Task(rows, rows, rows, NAMES, ("input_ids",), pad_id=0, **options)


def logits(answers: np.ndarray | list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[np.asarray(answers)]


def stopped(task: Task, values: np.ndarray, *, is_fitted: bool = False, has_names: bool = True) -> str:
    with pytest.raises(AutopruneError) as caught:
        check_original(task, values, is_fitted=is_fitted, has_names=has_names)
    return str(caught.value)


def passes(task: Task, values: np.ndarray) -> str:
    return check_original(task, values, is_fitted=False, has_names=True)


LABELS = np.repeat([0, 1, 2], [40, 30, 30])


def test_a_swapped_order_of_labels_is_named() -> None:
    swapped = np.array([2, 1, 0])[LABELS]
    text = stopped(task(LABELS), logits(swapped))
    assert text.startswith(
        "the original model's 30.0 % over 100 validation rows is not above 40.0 %, which always answering "
        "'bad' scores: a search has nothing to keep. Likely: (1) the labels are in another order than the "
        "model's: its accuracy is 100.0 % if it answers 'bad' for 'good', 'good' for 'bad'. Name the labels "
        "as id2label of its config.json does, or number them so"
    )


def test_answers_of_one_class_and_pictures_have_other_causes() -> None:
    text = stopped(task(LABELS), logits([0] * 100), has_names=False)
    assert "(1) the labels are in another order than the model's, whose names of classes are not" in text
    assert "(2) its text is read otherwise than in its training" in text
    assert "(3) its head is not trained, or its inputs are not what it knows: 100 % of its answers" in text
    rows = Arrays({"pixel_values": np.zeros((100, 3, 2, 2), np.float32)}, LABELS)
    pictures = Task(rows, rows, rows, NAMES, ("pixel_values",), pad_id=0, kind=IMAGE_CLASSIFICATION)
    assert "see size, mean, std and channel order of its preprocessor_config.json" in stopped(
        pictures, logits([0] * 100)
    )


def test_a_head_that_was_fitted_here_has_its_own_cause() -> None:
    text = stopped(task(LABELS), logits([0] * 100), is_fitted=True)
    assert "Likely: (1) the head that was fitted here learned nothing: give a model that is trained" in text
    assert "order" not in text


def test_a_dominating_class_points_at_other_metrics_by_which_the_model_may_pass() -> None:
    labels = np.repeat([0, 1], [97, 3])
    answers = np.where(np.arange(100) < 3, 1, labels)  # three mistakes, and all of the rare class
    text = stopped(task(labels), logits(answers))
    assert "97.0 % over 100 validation rows is not above 97.0 %" in text
    assert "(1) 'bad' is 97 % of the rows, so that accuracy says little: --metric f1 or matthews" in text
    assert passes(task(labels, metric=METRICS["f1"]), logits(answers)) == ""
    assert passes(task(labels, metric=METRICS["matthews"]), logits(answers)) == ""
    assert balance_notes(task(labels)) == [
        "'bad' is 97 % of 100 validation rows, which is what always answering it scores: --metric f1 or "
        "matthews counts the other classes as much"
    ]
    assert balance_notes(task(labels, metric=METRICS["f1"])) == []
    assert balance_notes(task(LABELS)) == []


def test_few_rows_tell_little_and_are_not_stopped() -> None:
    labels = np.arange(FEWEST_ANSWERS - 1) % 3
    answers = (labels + 1) % 3
    answers[:9] = labels[:9]
    said = passes(task(labels), logits(answers))
    assert "18.4 % over 49 validation rows is not above" in said
    assert said.endswith("; so few rows tell little")


def test_words_without_a_label_do_not_count() -> None:
    labels = np.where(np.arange(200) % 2, NO_LABEL, np.arange(200) % 3)
    words = task(labels, kind=TOKEN_CLASSIFICATION, metric=METRICS["f1"])
    common = commonest_class(words, words.validation)
    assert common is not None
    assert (common.answers, round(common.percent)) == (100, 34)
    labelled = words.labels(words.validation, np.arange(200))
    assert passes(words, logits(labelled)) == ""
    assert "over 100 validation words" in stopped(words, logits([common.number] * 100))


@pytest.mark.parametrize("kind", [CAUSAL_LM, TEXT_REGRESSION])
def test_what_has_no_classes_is_not_judged(kind: Any) -> None:
    other = task(LABELS, kind=kind, metric=kind.usual_metric)
    assert balance_notes(other) == []
    assert passes(other, np.zeros((100, 1), np.float32)) == ""


@pytest.mark.filterwarnings("ignore:A single label was found")
@hypothesis.given(
    labels=some.lists(some.integers(0, 2), min_size=FEWEST_ANSWERS, max_size=120),
    answers=some.lists(some.integers(0, 2), min_size=120, max_size=120),
    metric=some.sampled_from([ACCURACY, METRICS["f1"], METRICS["matthews"]]),
)
@hypothesis.settings(max_examples=200, deadline=None)
def test_it_is_stopped_exactly_where_no_more_is_scored_than_by_the_commonest_class(
    labels: list[int], answers: list[int], metric: Any
) -> None:
    judged = task(labels, metric=metric)
    values = logits(answers[: len(labels)])
    common = max(range(3), key=labels.count)
    is_above = judged.score(judged.validation, values) > judged.score(
        judged.validation, logits([common] * len(labels))
    )
    if is_above:
        assert passes(judged, values) == ""
    else:
        assert "is not above" in stopped(judged, values)
    if len(set(labels)) > 1:
        assert passes(judged, logits(labels)) == ""


ROTATED = np.array([0, 2, 1])[LABELS]
"""Answers of a model whose second and third class are the data's third and second: 40 % are right."""


def test_a_better_order_stops_what_beats_guessing_where_labels_count_by_number() -> None:
    answers = np.where(np.arange(100) < 45, LABELS, ROTATED)  # above the commonest class's 40 %
    text = stopped(task(LABELS), logits(answers), has_names=False)
    assert text.startswith(
        "no class of the data has a name of the model's, and of 100 validation answers it has 45.0 % right. "
        "Likely the labels are in another order than the model's: its accuracy is 95.0 % if it answers "
        "'fair' for 'good', 'good' for 'fair'."
    )


def test_an_order_is_not_doubted_where_names_tell_it_or_the_gain_may_be_chance() -> None:
    answers = np.where(np.arange(100) < 45, LABELS, ROTATED)
    assert passes(task(LABELS), logits(answers)) == ""
    assert check_original(task(LABELS), logits(answers), is_fitted=True, has_names=False) == ""
    few = np.where(np.arange(100) % 10 < 6, LABELS, ROTATED)  # 76 % right
    assert check_original(task(LABELS), logits(few), is_fitted=False, has_names=False) == ""
