"""The named points, and the paired test that says which models are as accurate as which."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import hypothesis
import hypothesis.strategies as some
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, ttest_rel

from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.point_names import POINT_NAMES, also, by_trial
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.paired import LEVEL, better_than_guessing, told_apart
from autoprune.strategy.pareto import front, within
from autoprune.strategy.points import (
    MOST_LOST,
    best,
    points_of,
    worth_training_longer,
)
from autoprune.tasks.row_scores import rows_as_text

quick = hypothesis.settings(deadline=None, max_examples=60)
ROWS = 1263


def right(count: int, *, wrong_first: int = 0, rows: int = ROWS) -> NDArray[np.bool_]:
    """So many right rows, after the first few wrong ones."""
    scores = np.zeros(rows, bool)
    scores[wrong_first : wrong_first + count] = True
    return scores


def trial(number: int, size: int, scores: NDArray[np.bool_], *, latency: float = 1.0, **more: Any) -> Trial:
    m = Measurement(size, latency, 100 * float(scores.mean()), kl=0.1)
    return Trial(number, Candidate(()), m, row_scores=rows_as_text(scores), **more)


def numbers(trials: list[Trial], budget: Budget = Budget(), *, chance: float = 0.0) -> dict[str, int | None]:  # noqa: B008
    return points_of(trials, budget, answers=ROWS, chance=chance).numbers()


def accuracy_of(one: Trial) -> float:
    assert one.measurement is not None
    return one.measurement.accuracy


# ---- the test -----------------------------------------------------------------------------------


@quick
@hypothesis.given(some.integers(0, 2**32 - 1), some.integers(2, 400), some.floats(0, 0.5))
def test_right_and_wrong_rows_are_told_apart_by_the_exact_sign_test(
    seed: int, rows: int, flipped: float
) -> None:
    draw = np.random.default_rng(seed)
    ours = draw.random(rows) < 0.8
    theirs = ours ^ (draw.random(rows) < flipped)
    won, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    chance = binomtest(won, won + lost, alternative="greater").pvalue if won + lost else 1.0
    assert told_apart(trial(0, 1, ours), trial(1, 1, theirs)) == (chance < LEVEL)


@quick
@hypothesis.given(some.integers(0, 2**32 - 1), some.integers(3, 200), some.floats(-0.5, 1.0))
def test_scores_are_told_apart_by_students_test_of_their_differences(
    seed: int, rows: int, step: float
) -> None:
    draw = np.random.default_rng(seed)
    theirs = draw.normal(size=rows)
    ours = theirs + step + draw.normal(size=rows)
    ours, theirs = (scores.astype(np.float16).astype(float) for scores in (ours, theirs))
    one, other = (
        Trial(k, Candidate(()), row_scores=rows_as_text(scores)) for k, scores in enumerate((ours, theirs))
    )
    chance = ttest_rel(ours, theirs, alternative="greater").pvalue
    hypothesis.assume(abs(chance - LEVEL) > 1e-9)
    assert told_apart(one, other) == (chance < LEVEL)
    assert told_apart(one, one) is False
    lower = replace(one, row_scores=rows_as_text(np.round(ours) - 1.0))
    upper = replace(one, row_scores=rows_as_text(np.round(ours)))
    assert (told_apart(upper, lower), told_apart(lower, upper)) == (
        True,
        False,
    )  # by the same step everywhere


def test_models_that_are_equal_are_rarely_told_apart() -> None:
    """Of 2,000 pairs that err on random rows no more than the level, as far as 4 standard errors."""
    draw = np.random.default_rng(0)
    pairs = [(draw.random(300) < 0.85, draw.random(300) < 0.85) for _ in range(2000)]
    share = np.mean([told_apart(trial(0, 1, x), trial(1, 1, y)) for x, y in pairs])
    assert share <= LEVEL + 4 * math.sqrt(LEVEL * (1 - LEVEL) / len(pairs))


def test_nothing_is_said_of_rows_that_were_not_kept_or_are_others() -> None:
    one = trial(0, 1, right(1000))
    for text in ("", rows_as_text(right(10, rows=20)), rows_as_text(np.zeros(ROWS)), "nonsense"):
        assert told_apart(one, replace(one, row_scores=text)) is None
        assert told_apart(replace(one, row_scores=text), one) is None


def test_guessing_is_told_by_the_exact_binomial_test() -> None:
    for rows, accuracy in ((100, 50.0), (100, 58.0), (100, 59.0), (1263, 52.0), (1263, 53.0)):
        chance = binomtest(round(accuracy / 100 * rows), rows, 0.5, alternative="greater").pvalue
        assert better_than_guessing(accuracy, 50.0, rows) == (chance < LEVEL)
    assert better_than_guessing(0.0, 0.0, 100)


# ---- the points ---------------------------------------------------------------------------------


def test_best_is_what_costs_least_of_those_that_are_not_told_apart() -> None:
    """7 rows of 1,263 apart, 12.5 MB or 6.8 MB: not settled where as many other rows go the other way."""
    large = trial(1, 125, right(1069), latency=12.5)
    within_noise = trial(2, 68, right(1062, wrong_first=20), latency=6.4)  # 20 rows against 13
    inferior = trial(3, 60, right(1061), latency=6.0)  # 8 rows against none: told apart
    trials = [large, within_noise, inferior]
    assert told_apart(large, within_noise) is False
    assert told_apart(large, inferior) is True
    wanted = {"best": 2, "accurate": 1, "small": 2, "fast": 2, "knee": 3}
    for budget in (Budget(), Budget(200), Budget(None, 20.0)):
        assert numbers(trials, budget) == wanted
    without = [replace(one, row_scores="") for one in trials]
    assert numbers(without, Budget(200))["best"] == 3  # by one standard error, as runs of before


def test_what_loses_more_than_a_point_is_not_as_accurate_however_few_rows_there_are() -> None:
    few = [trial(0, 9, right(45, rows=50)), trial(1, 1, right(44, wrong_first=1, rows=50))]
    assert told_apart(few[0], few[1]) is False
    assert accuracy_of(few[0]) - accuracy_of(few[1]) > MOST_LOST
    assert numbers(few)["best"] == 0


def test_a_low_score_may_lose_a_fiftieth() -> None:
    """Scores of perplexity 12.5, 12.74 and 12.82 whose rows say nothing."""
    rows = rows_as_text(np.zeros(100))
    scores = (8.0, 7.85, 7.8)
    trials = [
        Trial(k, Candidate(()), Measurement(9 - k, 1.0, score, 0.1), row_scores=rows)
        for k, score in enumerate(scores)
    ]
    assert numbers(trials)["small"] == 1


def test_small_and_fast_are_what_no_budget_hides() -> None:
    scores = right(1000)
    small, fast = trial(0, 10, scores, latency=9.0), trial(1, 90, scores, latency=2.0)
    both, accurate = trial(2, 20, scores, latency=3.0), trial(3, 100, right(1003), latency=10.0)
    trials = [small, fast, both, accurate]
    assert told_apart(accurate, small) is False
    assert numbers(trials) == {"best": 2, "accurate": 3, "small": 0, "fast": 1, "knee": 0}
    assert numbers(trials, Budget(200))["best"] == 1
    assert numbers(trials, Budget(None, 20.0))["best"] == 0


def test_a_trial_that_a_uniform_model_of_its_size_does_not_stand_out_from_is_offered_if_it_is_faster() -> (
    None
):
    uniform = trial(0, 1000, right(1000), latency=9.0, name="uniform 8-bit")
    faster, slower = (trial(1, 995, right(998), latency=ms) for ms in (3.0, 8.95))
    inferior = trial(1, 995, right(990), latency=3.0)
    assert numbers([uniform, faster], Budget(2000))["best"] == 1
    assert numbers([uniform, slower], Budget(2000))["best"] == 0
    assert numbers([uniform, inferior], Budget(2000))["best"] == 0
    assert numbers([uniform, replace(faster, row_scores="")], Budget(2000))["best"] == 0


def test_the_knee_is_better_than_guessing_where_anything_is() -> None:
    guess, sound, large = (
        trial(k, size, right(count)) for k, (size, count) in enumerate(((1, 640), (50, 900), (100, 1100)))
    )
    assert numbers([guess, sound, large], chance=50.0)["knee"] in (1, 2)
    assert numbers([guess], chance=50.0)["knee"] == 0
    assert numbers([guess, sound, large])["knee"] == numbers([guess, sound, large], chance=0.0)["knee"]


@some.composite
def many(draw: some.DrawFn) -> list[Trial]:
    """Trials of 40 rows, some without their rows, some baselines."""
    out = []
    for k in range(draw(some.integers(0, 9))):
        seed, rows = draw(some.integers(0, 20)), draw(some.booleans())
        scores = np.random.default_rng(seed).random(40) < 0.9
        name = draw(some.sampled_from([None, None, None, "uniform 8-bit", "original"]))
        one = trial(k, draw(some.integers(1, 6)), scores, latency=float(draw(some.integers(1, 6))), name=name)
        out.append(one if rows else replace(one, row_scores=""))
    return out


@quick
@hypothesis.given(many(), some.sampled_from([Budget(), Budget(4), Budget(None, 4.0), Budget(4, 4.0)]))
def test_every_point_is_within_the_budget_and_best_small_and_fast_are_as_accurate(
    trials: list[Trial], budget: Budget
) -> None:
    points = points_of(trials, budget, answers=40)
    fit = within(trials, budget)
    assert all(one in fit for one in points.distinct())
    assert (points.best is None) == (points.accurate is None) == (not points.as_accurate)
    assert points.best == best(trials, budget, answers=40)
    if points.accurate is not None:
        assert all(one in points.as_accurate for one in (points.best, points.small, points.fast))
        assert points.accurate in points.as_accurate
        assert all(accuracy_of(one) <= accuracy_of(points.accurate) for one in points.as_accurate)
        compressed = front(one for one in trials if one.name != "original")
        assert all(one in compressed for one in points.as_accurate)
    if points.small is not None and points.fast is not None:
        cheapest = [one.measurement for one in points.as_accurate if one.measurement]
        assert points.small.measurement
        assert points.small.measurement.size_bytes == min(m.size_bytes for m in cheapest)
        assert points.fast.measurement
        assert points.fast.measurement.latency_ms == min(m.latency_ms for m in cheapest)
    shown = worth_training_longer(trials, budget, answers=40)
    assert {one.number for one in shown} >= {one.number for one in points.distinct()} - {
        points.knee.number if points.knee else None
    }


@quick
@hypothesis.given(some.dictionaries(some.sampled_from(POINT_NAMES), some.integers(0, 3) | some.none()))
def test_each_trial_is_told_once_with_all_its_names(points: dict[str, int | None]) -> None:
    words = by_trial(points)
    assert set(words) == {number for number in points.values() if number is not None}
    assert sum(map(len, words.values())) == sum(number is not None for number in points.values())
    for told in words.values():
        assert (also(told) == "") == (len(told) == 1)
        assert all(word in also(told) for word in told[1:])


def test_of_equally_fast_models_within_the_noise_of_timing_the_nearest_to_the_teacher_is_shipped() -> None:
    scores = right(1000)
    untrained, trained, slower = (
        trial(number, 14_000_000 - number, scores, latency=latency)
        for number, latency in ((1, 13.7), (2, 14.2), (3, 14.6))
    )
    divergences = {1: 0.004, 2: 0.003, 3: 0.001}
    trials = [
        replace(t, measurement=replace(t.measurement, kl=divergences[t.number]))
        for t in (untrained, trained, slower)
        if t.measurement is not None
    ]
    assert numbers(trials, Budget(size_bytes=20_000_000))["best"] == 2
    assert numbers(trials, Budget(size_bytes=20_000_000))["fast"] == 2
