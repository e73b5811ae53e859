"""Members and weights of ensembles: against brute force, and against a closed form."""

from __future__ import annotations

import itertools

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.export import ensemble_selection
from autoprune.export.averaged import averaged, check_can_be_averaged
from autoprune.export.ensemble_selection import (
    AnsweringModel,
    MemberAnswers,
    choose_members,
    choose_weights,
    equal_weights,
    least_costs,
)
from autoprune.space.budget import Budget
from autoprune.tasks.kinds import (
    CAUSAL_LM,
    KINDS,
    OWN,
    SENTENCE_EMBEDDING,
    TEXT_CLASSIFICATION,
    TEXT_REGRESSION,
)


def mean(answers: list[MemberAnswers], weights: tuple[float, ...]) -> MemberAnswers:
    return averaged(answers, weights, TEXT_CLASSIFICATION)


def scoring(labels: NDArray[np.int64]):  # type: ignore[no-untyped-def]
    return lambda values: (float((values.argmax(-1) == labels).mean()), 0.0)


def front(seed: int, count: int, rows: int = 12) -> tuple[list[AnsweringModel], NDArray[np.int64]]:
    """Models of random answers and bytes."""
    rng = np.random.default_rng(seed)
    models = [
        AnsweringModel(
            rng.normal(size=(rows, 3)).astype(np.float32),
            int(rng.integers(1, 20)),
            float(rng.integers(1, 20)),
        )
        for _ in range(count)
    ]
    return models, rng.integers(0, 3, rows)


@hypothesis.given(seed=some.integers(0, 10_000), count=some.integers(2, 6), size=some.integers(2, 5))
@hypothesis.settings(deadline=None)
def test_of_few_models_the_best_set_within_the_limit_is_chosen(seed: int, count: int, size: int) -> None:
    models, labels = front(seed, count)
    budget = Budget(35, 40.0)
    chosen = choose_members(models, size, budget, mean, scoring(labels))
    fitting = [
        numbers
        for numbers in itertools.combinations(range(count), size)
        if budget.allows(
            sum(models[k].size_bytes for k in numbers), sum(models[k].latency_ms for k in numbers)
        )
    ]
    if not fitting:
        assert chosen is None
        return
    assert chosen in fitting

    def value(numbers: tuple[int, ...]) -> float:
        probabilities = [np.exp(models[k].answers) for k in numbers]
        shares = [p / p.sum(-1, keepdims=True) for p in probabilities]
        return float((np.mean(shares, 0).argmax(-1) == labels).mean())

    assert value(chosen) == max(map(value, fitting))


@hypothesis.given(seed=some.integers(0, 10_000), limit=some.integers(1, 60))
@hypothesis.settings(deadline=None)
def test_forward_selection_takes_each_model_once_and_stays_within_the_limit(seed: int, limit: int) -> None:
    models, labels = front(seed, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble_selection, "MOST_SETS", 0)
        chosen = choose_members(models, 3, Budget(limit), mean, scoring(labels))
    size, _ = least_costs(models, 3)
    assert (chosen is None) == (size > limit)
    if chosen is not None:
        assert len(set(chosen)) == 3
        assert sum(models[k].size_bytes for k in chosen) <= limit


def test_forward_selection_begins_with_the_best_model() -> None:
    models, labels = front(1, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble_selection, "MOST_SETS", 0)
        (first,) = choose_members(models, 1, Budget(), mean, scoring(labels)) or ()
    scores = [scoring(labels)(model.answers)[0] for model in models]
    assert scores[first] == max(scores)


def test_a_model_that_is_always_wrong_gets_the_least_weight() -> None:
    labels = np.array([0, 1, 2] * 4)
    right = np.eye(3, dtype=np.float32)[labels] * 2
    wrong = np.eye(3, dtype=np.float32)[(labels + 1) % 3] * 3
    weights = choose_weights([right, wrong, right], mean, scoring(labels))
    assert sum(weights) == pytest.approx(1.0)
    assert min(weights) > 0
    assert weights[1] == min(weights)
    assert choose_weights([right, right], mean, scoring(labels)) == (0.5, 0.5)


# ---- the average --------------------------------------------------------------------------------


@hypothesis.given(seed=some.integers(0, 10_000), count=some.integers(1, 4))
@hypothesis.settings(deadline=None)
def test_softmax_of_the_average_is_the_mean_of_the_probabilities(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    answers = [rng.normal(scale=5, size=(4, 6, 3)).astype(np.float32) for _ in range(count)]
    weights = tuple(rng.dirichlet(np.ones(count)))
    shares = [
        np.exp(a.astype(np.float64)) / np.exp(a.astype(np.float64)).sum(-1, keepdims=True) for a in answers
    ]
    by_hand = sum(w * p for w, p in zip(weights, shares, strict=True))
    found = np.exp(averaged(answers, weights, TEXT_CLASSIFICATION).astype(np.float64))
    assert np.allclose(found, by_hand, rtol=1e-5, atol=1e-12)


def test_the_average_of_huge_logits_is_finite() -> None:
    huge = np.float32([[3e38, -3e38, 0.0]])
    assert np.isfinite(np.exp(averaged([huge, -huge], (0.5, 0.5), TEXT_CLASSIFICATION))).all()


def test_numbers_are_averaged_as_they_are_and_vectors_have_length_1() -> None:
    one, other = np.float32([[1.0, 0.0]]), np.float32([[0.0, 1.0]])
    assert averaged([one, other], (0.25, 0.75), TEXT_REGRESSION).tolist() == [[0.25, 0.75]]
    assert np.allclose(averaged([one, other], (0.5, 0.5), SENTENCE_EMBEDDING), 0.5**0.5)


def test_kinds_that_have_no_average_are_refused_by_name() -> None:
    for kind in KINDS:
        if kind != CAUSAL_LM:
            check_can_be_averaged(kind)
    with pytest.raises(AutopruneError, match="not for a language model"):
        check_can_be_averaged(CAUSAL_LM)
    with pytest.raises(AutopruneError, match="only its function knows"):
        check_can_be_averaged(OWN)


def test_equal_weights_add_up_to_one() -> None:
    assert all(sum(equal_weights(count)) == pytest.approx(1.0) for count in range(1, 9))
