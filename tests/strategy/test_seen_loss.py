"""From what divergence on a fine-tune is worth its time, by what accuracy was seen to lose."""

from __future__ import annotations

import math

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate, Level
from autoprune.space.trial import ORIGINAL, Measurement, Trial
from autoprune.strategy.baselines import rivals
from autoprune.strategy.promotion import WORTH_TRAINING_KL, finalist, promotion
from autoprune.strategy.seen_loss import MOST_KL, SHOWN_ERRORS, SeenLoss

ANSWERS, CHANCE = 1250, 50.0


def tried(number: int, kl: float, accuracy: float, name: str | None = None) -> Trial:
    levels = Candidate((("a", Level.of(0.0, number)),))
    m = Measurement(10**6 * (number + 1), 10.0 / (number + 1), accuracy, kl=kl)
    return Trial(number, levels, m, name=name, rung=0)


def run_of(points_a_nat: float, divergences: list[float]) -> list[Trial]:
    """An original of 80 %, and trials that lose in proportion."""
    trials = [tried(0, 0.0, 80.0, ORIGINAL)]
    return trials + [tried(k, kl, 80.0 - points_a_nat * kl) for k, kl in enumerate(divergences, 1)]


@hypothesis.given(
    some.floats(1.0, 400.0),
    some.lists(some.floats(1e-3, 0.1), min_size=4, max_size=20),
    some.integers(60, 10**6),
)
def test_it_is_where_the_loss_is_half_a_standard_error(
    points_a_nat: float, divergences: list[float], answers: int
) -> None:
    worth = SeenLoss.of(run_of(points_a_nat, divergences)).worth_training(answers, CHANCE)
    error = 100.0 * math.sqrt(0.8 * 0.2 / answers)
    exact = min(MOST_KL, max(WORTH_TRAINING_KL, SHOWN_ERRORS * error / points_a_nat))
    assert worth == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("trials", [[], run_of(80.0, [0.1, 0.2, 0.3]), run_of(80.0, [0.1] * 9)[1:]])
def test_without_an_original_or_with_few_trials_all_is_worth_training_as_before(trials: list[Trial]) -> None:
    assert SeenLoss.of(trials).worth_training(ANSWERS, CHANCE) == WORTH_TRAINING_KL


def test_of_scores_that_are_no_share_of_right_answers_nothing_is_told() -> None:
    assert SeenLoss.of(run_of(80.0, [0.1] * 9)).worth_training(ANSWERS, 0.0) == WORTH_TRAINING_KL


def test_where_accuracy_does_not_fall_only_large_divergence_is_trained() -> None:
    assert SeenLoss.of(run_of(-5.0, [0.1] * 9)).worth_training(ANSWERS, CHANCE) == MOST_KL


def test_what_is_below_is_neither_promoted_nor_trained_longer_as_a_candidate_or_a_rival() -> None:
    near, far = tried(1, 0.004, 79.9), tried(2, 0.02, 78.0)
    trials = [tried(0, 0.0, 80.0, ORIGINAL), near, far, *(tried(k, 0.004, 79.9) for k in range(3, 9))]
    begun = {(trial.candidate, 0) for trial in trials}
    assert promotion(trials, begun, Budget(), worth=0.006) == far.candidate
    assert promotion(trials, begun | {(far.candidate, 1)}, Budget(), worth=0.006) is None
    assert finalist(trials, begun, Budget(), answers=ANSWERS, worth=0.006) == far.candidate
    plain = [tried(1, 0.004, 79.9, "uniform 4-bit"), tried(2, 0.02, 78.0, "uniform 2-bit")]
    assert rivals(plain, Budget(), worth=0.006) == plain[1:]


def test_the_solvers_answers_are_trained_whatever_accuracy_can_show() -> None:
    near = tried(1, 0.004, 79.9)
    begun = {(near.candidate, 0)}
    assert promotion([near], begun, Budget(), first={near.candidate}, worth=0.006) == near.candidate
