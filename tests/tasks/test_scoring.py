"""Answers and scores against closed forms, slow truths and the library's own definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from autoprune.tasks.answers import SMALLEST, Answers, divergence, log_probabilities, spread_of, watch
from autoprune.tasks.kinds import KINDS
from autoprune.tasks.metrics import METRICS, Metric
from autoprune.tasks.scoring import similarities


def logits_of(seed: int, places: int = 40, outputs: int = 300) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((places, outputs)) * 3).astype(np.float32)


def test_every_kind_has_a_metric_and_the_first_is_usual() -> None:
    assert all(kind.metrics[0] == kind.usual_metric for kind in KINDS)
    assert [kind.usual_metric.name for kind in KINDS] == [
        "accuracy",
        "f1",
        "spearman",
        "agreement",
        "perplexity",
        "accuracy",
    ]


def test_log_probabilities_are_those_of_the_whole_softmax() -> None:
    logits = logits_of(0)
    watched = watch(logits, np.arange(40), 9)
    whole = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum(1, keepdims=True))
    assert watched.shape == (40, 9)
    assert np.allclose(log_probabilities(logits, watched), np.take_along_axis(whole, watched, 1), atol=1e-5)
    assert np.array_equal(watched[:, 0], np.arange(40))
    assert all(
        set(row[1:]) == set(np.argsort(row_logits)[-8:])
        for row, row_logits in zip(watched, logits, strict=True)
    )


def test_a_divergence_of_what_is_watched_is_at_most_the_whole_one_and_all_of_it_if_all_is_watched() -> None:
    teacher, model = logits_of(1), logits_of(1) + logits_of(2) / 4
    labels = np.zeros(40, np.int64)
    whole = divergence(model, teacher)
    before = 0.0
    for count in (2, 9, 33, 300):
        watched = watch(teacher, labels, count)
        known = Answers(log_probabilities(teacher, watched), np.arange(41), watched)
        found = divergence(log_probabilities(model, watched), known)
        assert before <= found <= whole + 1e-6
        before = found
    assert before == pytest.approx(whole, rel=0.05)


def test_of_vectors_it_is_half_the_squared_distance_by_the_spread() -> None:
    values = logits_of(3, outputs=4)
    spread = spread_of(values)
    assert spread == pytest.approx(sum(values[:, k].astype(float).var() for k in range(4)))
    teacher = Answers(values, np.arange(41), spread=spread)
    assert divergence(values, teacher) == 0.0
    assert divergence(values + 1, teacher) == pytest.approx(4 / (2 * spread), rel=1e-5)


def test_perplexity_is_the_reciprocal_of_the_geometric_mean_probability() -> None:
    p = np.array([0.5, 0.25, 0.125], np.float32)
    found = METRICS["perplexity"].score_answers(np.log(p)[:, None], np.zeros(3))
    assert 100 / found == pytest.approx(np.exp(-np.log(p).mean())) == pytest.approx(4.0)


def test_correlations_are_of_ranks() -> None:
    values = logits_of(4, outputs=1)
    labels = values[:, 0] ** 3
    assert METRICS["spearman"].score_answers(values, labels) == pytest.approx(100.0)
    assert METRICS["spearman"].score_answers(-values, labels) == pytest.approx(-100.0)
    assert METRICS["spearman"].score_answers(np.ones_like(values), labels) == 0.0


def test_agreement_is_that_of_all_pairs_of_sentences() -> None:
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (logits_of(5), logits_of(6)))
    mixed = one + 0.5 * other
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(40) for j in range(i + 1, 40)]
    slow = spearmanr([mixed[i] @ mixed[j] for i, j in pairs], [one[i] @ one[j] for i, j in pairs]).statistic
    teacher = Answers(one, np.arange(41), spread=spread_of(one))
    metric = METRICS["agreement"]
    assert metric.score_answers(one, np.zeros(40), teacher) == pytest.approx(100.0)
    assert metric.score_answers(mixed, np.zeros(40), teacher) == pytest.approx(100 * slow, abs=1e-3)
    assert len(similarities(one)) == len(pairs)
    with pytest.raises(ValueError, match="teacher"):
        metric.score_answers(one, np.zeros(40))


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
def test_classes_that_are_all_right_score_a_hundred(metric: str) -> None:
    labels = np.arange(40) % 3
    logits = np.eye(3, dtype=np.float32)[labels]
    assert METRICS[metric].score_answers(logits, labels) == pytest.approx(100.0)
    assert METRICS[metric].score_answers(np.roll(logits, 1, axis=1), labels) < 1.0


def test_a_metric_of_ones_own_is_taken_as_it_is() -> None:
    own = Metric("sum", compute=lambda answers, labels, teacher: float(len(answers) + len(labels)))
    assert own.score_answers(np.zeros((3, 1), np.float32), np.zeros(4)) == 7.0
    with pytest.raises(ValueError, match="only its task computes the metric 'bare'"):
        Metric("bare").score_answers(np.zeros((3, 1), np.float32), np.zeros(4))


def test_places_follow_the_rows_asked_for() -> None:
    teacher = Answers(logits_of(7, places=6), np.array([0, 1, 4, 6]))
    assert teacher.places([2, 0]).tolist() == [4, 5, 0]
    assert teacher.first(2).values.shape == (4, 300)
    assert 0 < SMALLEST < 1e-6
