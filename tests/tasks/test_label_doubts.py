"""Doubted labels: the rule against its definition, and planted wrong labels."""

from __future__ import annotations

import hypothesis.strategies as some
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from autoprune.tasks.label_doubts import (
    FOLDS,
    dealt,
    doubted_labels,
    doubted_of,
    held_out_confidence,
    standardised,
    text_features,
)


def by_definition(confidence: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[int, int]:
    """Equations 1 and 2 of the paper, row by row and class by class."""
    classes = range(confidence.shape[1])
    threshold = {}
    for j in classes:
        own = [confidence[k, j] for k in range(len(labels)) if labels[k] == j]
        if own and sum(own) > 0:
            threshold[j] = sum(own) / len(own)
    doubted = {}
    for k, label in enumerate(labels):
        reached = {j: confidence[k, j] for j in threshold if confidence[k, j] >= threshold[j]}
        if reached and label in threshold:
            best = max(reached, key=lambda j: reached[j])
            if best != label:
                doubted[k] = best
    return doubted


@given(some.integers(0, 10_000), some.integers(2, 5), some.integers(10, 60))
@settings(max_examples=60, deadline=None)
def test_the_rule_is_the_papers(seed: int, classes: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.dirichlet(np.ones(classes), rows)
    labels = rng.integers(0, classes, rows)
    doubts = doubted_labels(confidence, labels, fewest=1)
    assert {doubt.row: doubt.likelier for doubt in doubts} == by_definition(confidence, labels)
    margins = [doubt.confidence - doubt.likelier_confidence for doubt in doubts]
    assert margins == sorted(margins)


def blobs(rows: int, classes: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of classes that are well apart, 5 standard deviations, and their true labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    centres = rng.normal(size=(classes, 16))
    centres *= 5 / np.linalg.norm(centres, axis=1, keepdims=True)
    return (centres[labels] + rng.normal(size=(rows, 16))).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_planted_wrong_labels_are_found(classes: int) -> None:
    """One label in ten is another class's. Recall is 0.75 or more, and precision 0.97 or more.

    The rule is careful by design: a class's threshold is a mean, which a part of its rows is below.
    """
    features, labels = blobs(1500, classes, seed=classes)
    rng = np.random.default_rng(0)
    wrong = rng.choice(1500, 150, replace=False)
    given_labels = labels.copy()
    given_labels[wrong] = (labels[wrong] + rng.integers(1, classes, 150)) % classes
    keys = [str(k) for k in range(1500)]
    doubts = doubted_of(standardised(features), given_labels, keys, classes, seed=0)
    told = {doubt.row for doubt in doubts}
    right = told & set(wrong)
    assert len(right) / 150 >= 0.75
    assert len(right) / len(told) >= 0.97
    named = [doubt.likelier == labels[doubt.row] for doubt in doubts if doubt.row in right]
    assert np.mean(named) >= 0.95


def test_few_labels_are_doubted_where_none_is_wrong() -> None:
    features, labels = blobs(1500, 3, seed=7)
    doubts = doubted_of(standardised(features), labels, [str(k) for k in range(1500)], 3, seed=0)
    assert len(doubts) <= 15


def test_copies_of_a_row_are_in_one_fold_and_classes_in_all() -> None:
    labels = np.repeat([0, 1], [40, 10])
    keys = [f"{k // 2}" for k in range(50)]
    folds = dealt(labels, keys, FOLDS, seed=3)
    assert all(folds[k] == folds[k + 1] for k in range(0, 50, 2))
    assert {(int(f), int(c)) for f, c in zip(folds, labels, strict=True)} == {
        (f, c) for f in range(FOLDS) for c in (0, 1)
    }
    assert (folds == dealt(labels, keys, FOLDS, seed=3)).all()


def test_a_class_of_few_rows_is_not_judged() -> None:
    features, labels = blobs(300, 2, seed=1)
    labels[:4] = 2
    doubts = doubted_of(standardised(features), labels, [str(k) for k in range(300)], 3, seed=0)
    assert all(2 not in (doubt.label, doubt.likelier) for doubt in doubts)


def test_confidence_is_of_classifiers_that_have_not_seen_the_row() -> None:
    """Features that are the row's own number tell nothing of it to the others."""
    labels = np.random.default_rng(0).integers(0, 2, 200)
    confidence = held_out_confidence(np.eye(200), labels, [str(k) for k in range(200)], 2, seed=0)
    assert np.allclose(confidence.sum(1), 1.0)
    assert abs(confidence[np.arange(200), labels].mean() - 0.5) < 0.1


def test_texts_without_a_word_are_no_error() -> None:
    assert text_features(["...", "!!"]).shape == (2, 1)
