"""Answers and labels -> a score of 0 to 100, larger is better, by the metrics that the field uses.

Scikit-learn and SciPy compute them; what is ours is the scale. Of a language model it is 100 / perplexity,
which is the geometric mean of the probabilities given to the tokens that came, in percent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.tasks.answers import Answers

PAIRED_ROWS = 1000
"""Most sentences whose similarities are compared, each with each: half a million pairs."""


def score(
    metric: str | Callable[[Any, Any], float],
    values: NDArray[np.float32],
    labels: NDArray[Any],
    teacher: Answers | None = None,
) -> float:
    """A score of answers [m k] with labels [m], or beside the teacher's answers where there are no labels.

    metric: a name of `kinds.METRICS`, or the user's function of answers and labels, taken as it is.
    """
    if not isinstance(metric, str):
        return float(metric(values, labels))
    if metric == "perplexity":
        return float(100.0 * np.exp(values[:, 0].astype(np.float64).mean()))
    if metric == "spearman":
        return 100.0 * _spearman(values[:, 0], labels)
    if metric == "agreement":
        if teacher is None:
            raise ValueError("agreement is with a teacher's answers")
        return 100.0 * _spearman(similarities(values), similarities(teacher.values))
    if metric == "accuracy":
        return accuracy(values, labels)
    return _of_classes(metric, values.argmax(-1), labels)


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Percent of answers whose largest logit [m k] is the label's [m]."""
    return 100.0 * float(np.mean(logits.argmax(-1) == labels))


def _of_classes(metric: str, found: NDArray[np.int64], labels: NDArray[Any]) -> float:
    from sklearn.metrics import f1_score, matthews_corrcoef

    if metric == "matthews":
        return 100.0 * float(matthews_corrcoef(labels, found))
    return 100.0 * float(f1_score(labels, found, average="macro", zero_division=0.0))


def similarities(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines of unit vectors [n d], each pair once, of the first thousand."""
    few = vectors[:PAIRED_ROWS]
    return np.asarray((few @ few.T)[np.triu_indices(len(few), 1)])


def _spearman(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Rank correlation; 0 where all are equal."""
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other).statistic)
