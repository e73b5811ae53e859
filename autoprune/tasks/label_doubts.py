"""Labels that a classifier which never saw them doubts: confident learning's rule. No torch.

A classifier is fitted on all folds but one and asked about that one, fold by fold. A class's threshold is its
mean confidence in the rows that bear its label. A row whose largest confidence, of the classes that reach
their thresholds, is another class's than its label is doubted (Northcutt, Jiang and Chuang, Confident
learning: estimating uncertainty in dataset labels, arXiv 1911.00068, 2021: the off-diagonal of the confident
joint, equations 1 and 2).

Shapes: n rows, f features, k classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
"""Parts that rows are dealt into; each is judged by a classifier of the others."""

FEWEST_OF_CLASS = 2 * FOLDS
"""Rows of a class below which its labels are not judged: each fit has seen eight tenths of them."""

STRENGTH = 1.0
"""C of the logistic regression on features of mean 0 and variance 1, or of tf-idf."""


@dataclass(frozen=True)
class Doubt:
    """A row whose label is doubted: its number, label, the likelier class, and the confidence in each."""

    row: int
    label: int
    likelier: int
    confidence: float
    likelier_confidence: float


def doubted_labels(
    confidence: NDArray[np.float64], labels: NDArray[np.int64], *, fewest: int = FEWEST_OF_CLASS
) -> list[Doubt]:
    """The rows whose labels [n] are doubted by confidences [n k], the most doubted first.

    Args:
        fewest: rows of a class below which no label is doubted for or against it.

    >>> sure = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95]])
    >>> [(doubt.row, doubt.likelier) for doubt in doubted_labels(sure, np.array([0, 0, 1, 1, 0]), fewest=2)]
    [(4, 1)]
    """
    classes = confidence.shape[1]
    counts = np.bincount(labels, minlength=classes)
    own = confidence[np.arange(len(labels)), labels]
    sums = np.bincount(labels, weights=own, minlength=classes)
    is_judged = (counts >= fewest) & (sums > 0)
    thresholds = np.where(is_judged, sums / np.maximum(counts, 1), np.inf)
    reaching = np.where(confidence >= thresholds, confidence, -1.0)
    likelier = reaching.argmax(1)
    doubted = np.flatnonzero((reaching.max(1) >= 0) & (likelier != labels) & is_judged[labels])
    doubts = [
        Doubt(int(k), int(labels[k]), int(likelier[k]), float(own[k]), float(confidence[k, likelier[k]]))
        for k in doubted
    ]
    return sorted(doubts, key=lambda doubt: (doubt.confidence - doubt.likelier_confidence, doubt.row))


def doubted_of(
    features: Any, labels: Sequence[Any], keys: Sequence[str], classes: int, *, seed: int
) -> list[Doubt]:
    """The rows whose labels are doubted, by features [n f] of rows with a class each; most first.

    keys: as `held_out_confidence` takes them.
    """
    numbers = np.asarray(labels, np.int64)
    return doubted_labels(held_out_confidence(features, numbers, keys, classes, seed=seed), numbers)


def held_out_confidence(
    features: Any, labels: NDArray[np.int64], keys: Sequence[str], classes: int, *, seed: int
) -> NDArray[np.float64]:
    """The confidence [n k] that a logistic regression of the other folds has in each class of a row.

    Args:
        features: [n f], an array or a sparse matrix.
        keys: of the rows; rows of one key are in one fold, or a copy would tell its label.
    """
    from sklearn.linear_model import LogisticRegression

    folds = dealt(labels, keys, FOLDS, seed=seed)
    confidence = np.zeros((len(labels), classes))
    for fold in range(FOLDS):
        judged, seen = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        known = np.unique(labels[seen])
        if not len(judged) or not len(known):
            continue
        if len(known) == 1:
            confidence[judged, known[0]] = 1.0
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it stopped at the last iteration
            model = LogisticRegression(C=STRENGTH, max_iter=200).fit(features[seen], labels[seen])
        confidence[np.ix_(judged, model.classes_)] = model.predict_proba(features[judged])
    return confidence


def dealt(labels: NDArray[np.int64], keys: Sequence[str], folds: int, *, seed: int) -> NDArray[np.int64]:
    """The fold of each row [n], 0 to folds - 1: each class is dealt out evenly, rows of one key together."""
    first: dict[str, int] = {}
    for k, key in enumerate(keys):
        first.setdefault(key, k)
    order = np.random.default_rng(seed).permutation(np.fromiter(first.values(), np.int64))
    order = order[np.argsort(labels[order], kind="stable")]
    of_key = {keys[row]: place % folds for place, row in enumerate(order)}
    return np.array([of_key[key] for key in keys], np.int64)


def text_features(texts: Sequence[str]) -> Any:
    """Words and pairs of words of texts, weighted by tf-idf: sparse [n f]."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    reader = TfidfVectorizer(
        ngram_range=(1, 2), max_features=30_000, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
    )  # nosec B106 # words are no secret
    try:
        return reader.fit_transform(texts)
    except ValueError:  # no text has a word
        return np.zeros((len(texts), 1))


def standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features [n f] of mean 0 and variance 1."""
    spread = features.std(0)
    return np.asarray((features - features.mean(0)) / np.where(spread > 0, spread, 1.0), np.float32)
