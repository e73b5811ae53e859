"""Answers and labels -> a score of 0 to 100, larger is better. `metrics.METRICS` names these functions.

Scikit-learn and SciPy compute the scores; what is ours is the scale. NumPy too is imported where a function
needs it: commands that only print the names of metrics have no arrays.

Shapes: m answered places, k outputs, n rows, d features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from autoprune.tasks.answers import Answers

PAIRED_ROWS = 1000
"""Most sentences whose similarities are compared, each with each: half a million pairs."""


def accuracy(values: NDArray[np.float32], labels: NDArray[Any], teacher: Answers | None = None) -> float:
    """Percent of answers whose largest logit [m k] is the label's [m]."""
    import numpy as np

    return 100.0 * float(np.mean(values.argmax(-1) == labels))


def f1(values: NDArray[np.float32], labels: NDArray[Any], teacher: Answers | None = None) -> float:
    """The mean of all classes' F1 scores, in percent."""
    from sklearn.metrics import f1_score

    return 100.0 * float(f1_score(labels, values.argmax(-1), average="macro", zero_division=0.0))


def matthews(values: NDArray[np.float32], labels: NDArray[Any], teacher: Answers | None = None) -> float:
    """Matthews' correlation of the predicted classes with the labels, in percent."""
    from sklearn.metrics import matthews_corrcoef

    return 100.0 * float(matthews_corrcoef(labels, values.argmax(-1)))


def spearman(values: NDArray[np.float32], labels: NDArray[Any], teacher: Answers | None = None) -> float:
    """The rank correlation of the numbers [m 1] with the labels [m], in percent."""
    return 100.0 * _rank_correlation(values[:, 0], labels)


def similarity_agreement(
    values: NDArray[np.float32], labels: NDArray[Any], teacher: Answers | None = None
) -> float:
    """The rank correlation of all pairs' similarities with those of the teacher's vectors, in percent.

    Raises:
        ValueError: without the teacher's answers.
    """
    if teacher is None:
        raise ValueError("agreement is with a teacher's answers")
    return 100.0 * _rank_correlation(similarities(values), similarities(teacher.values))


def next_token(values: NDArray[np.float32], labels: NDArray[Any], teacher: Answers | None = None) -> float:
    """The geometric mean of the probabilities of the tokens that came, in percent: 100 / perplexity.

    values: log-probabilities [m w], that of the token that came first.
    """
    import numpy as np

    return float(100.0 * np.exp(values[:, 0].astype(np.float64).mean()))


def right_answers(
    values: NDArray[np.float32], labels: NDArray[Any], teacher: Answers | None = None
) -> NDArray[Any]:
    """Whether the largest logit [m k] is the label's, for each answer [m]."""
    import numpy as np

    return np.asarray(values.argmax(-1) == labels)


def rank_losses(
    values: NDArray[np.float32], labels: NDArray[Any], teacher: Answers | None = None
) -> NDArray[Any]:
    """What each row [m] takes from Spearman's correlation, in percent: without ties the mean is it less 100.

    The squared difference of the row's two ranks (Spearman, 1904).
    """
    from scipy.stats import rankdata

    gap = rankdata(values[:, 0]) - rankdata(labels)
    losses: NDArray[Any] = -600.0 * gap**2 / max(len(labels) ** 2 - 1.0, 1.0)
    return losses


def agreement_losses(
    values: NDArray[np.float32], labels: NDArray[Any], teacher: Answers | None = None
) -> NDArray[Any]:
    """What each of the first `PAIRED_ROWS` rows takes from the agreement, in percent.

    Each pair belongs to two rows, so these are jackknife pseudo-values, whose mean is that of all pairs
    (Arvesen, Jackknifing U-statistics, 1969).

    Raises:
        ValueError: without the teacher's answers.
    """
    import numpy as np
    from scipy.stats import rankdata

    if teacher is None:
        raise ValueError("agreement is with a teacher's answers")
    ours, theirs = (rankdata(similarities(vectors)) for vectors in (values, teacher.values))
    losses = -600.0 * (ours - theirs) ** 2 / max(len(ours) ** 2 - 1.0, 1.0)
    rows = min(len(values), PAIRED_ROWS)
    pairs = np.zeros((rows, rows))
    pairs[np.triu_indices(rows, 1)] = losses
    by_row = (pairs + pairs.T).sum(1) / max(rows - 1, 1)
    return np.asarray(2.0 * by_row - by_row.mean())


def log_probabilities_of_next(
    values: NDArray[np.float32], labels: NDArray[Any], teacher: Answers | None = None
) -> NDArray[Any]:
    """The log-probability of the token that came, for each answer [m], nats."""
    return values[:, 0]


def similarities(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines of unit vectors [n d], each pair once, of the first `PAIRED_ROWS`."""
    import numpy as np

    few = vectors[:PAIRED_ROWS]
    return np.asarray((few @ few.T)[np.triu_indices(len(few), 1)])


def _rank_correlation(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Spearman's; 0 where all of one side are equal."""
    import numpy as np
    from scipy.stats import spearmanr

    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(spearmanr(x, y).statistic)
