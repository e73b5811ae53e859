"""Whether one model is more accurate than another, by a paired test on the same validation rows.

Two independent standard errors forget that both models answered the same rows: most rows both get right or
both get wrong, and only the others tell them apart. Numbers only.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from autoprune.space.trial import Trial
from autoprune.tasks.row_scores import rows_of_text

LEVEL = 0.05
"""Probability, one-sided, with which two models that are equally accurate are told apart."""


def told_apart(better: Trial, other: Trial) -> bool | None:
    """Whether `better` is more accurate than `other` by a test of `LEVEL`; None where rows are not kept.

    Of rows that are right or wrong the exact sign test of those that the two answer differently (McNemar,
    Note on the sampling error of the difference between correlated proportions, 1947). Of other scores
    Student's t of the rows' differences (Gosset, 1908). The scores are those of `tasks/row_scores`; F1 and
    Matthews' correlation are no means over rows, so that of them too it is right and wrong answers that are
    compared. The better one being the best of many, the test is a little too ready to tell them apart.
    """
    return scores_told_apart(better.row_scores, other.row_scores)


@lru_cache(maxsize=65_536)
def scores_told_apart(better: str, other: str) -> bool | None:
    """The same of two models' rows as text: of a front the same pairs are asked for again and again."""
    ours, theirs = rows_of_text(better), rows_of_text(other)
    if ours is None or theirs is None or ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return None
    return (_sign_test if ours.dtype == np.bool_ else _t_test)(ours, theirs) < LEVEL


def better_than_guessing(accuracy: float, chance: float, answers: int) -> bool:
    """Whether an accuracy over so many answers is above that of always answering alike, by a test of `LEVEL`.

    accuracy, chance: in percent; a chance of 0 is none. The exact binomial test.
    """
    if chance <= 0:
        return True
    right = round(accuracy / 100.0 * answers)
    return _at_least(right, answers, min(chance / 100.0, 1.0)) < LEVEL


def _sign_test(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Probability that of the rows answered differently so many would favour ours by a fair coin."""
    won, lost = int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours))
    return _at_least(won, won + lost, 0.5)


def _at_least(successes: int, trials: int, chance: float) -> float:
    """Probability of so many successes or more (the binomial's upper tail)."""
    return 1.0 if successes <= 0 else float(special.bdtrc(successes - 1, trials, chance))


def _t_test(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Probability of so large a mean difference of the rows, or a larger one, if there were none."""
    step = ours - theirs
    count = len(step)
    if count < 2 or not step.any():
        return 1.0
    mean, error = float(step.mean()), float(step.std(ddof=1)) / math.sqrt(count)
    if error == 0.0:
        return 0.0 if mean > 0 else 1.0
    return float(special.stdtr(count - 1, -mean / error))
