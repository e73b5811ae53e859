"""Leaders that are followed one by one give the front, the points and the counts that all trials give."""

from __future__ import annotations

from collections import Counter

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.space.budget import Budget
from autoprune.space.trial import (
    Measurement,
    Trial,
    cause_of,
    failed_trials,
    finished,
    searched_trials,
    tried_trials,
)
from autoprune.strategy.history import History
from autoprune.strategy.leaders import Leaders
from autoprune.strategy.pareto import dominates, front, hypervolume
from autoprune.strategy.points import points_of
from tests.strategy.test_pareto import NOTHING, REFERENCE, many, quick


def numbers(trials: list[Trial]) -> list[int]:
    return [trial.number for trial in trials]


@quick
@hypothesis.given(many(), some.sampled_from([Budget(), Budget(4), Budget(None, 3.0)]))
def test_leaders_are_all_that_front_and_points_depend_on(trials: list[Trial], budget: Budget) -> None:
    history, leaders = History(), Leaders()
    for k, trial in enumerate(trials):
        history = history.with_finished(trial)
        leaders.follow(history)
        done = trials[: k + 1]
        assert numbers(front(leaders.trials)) == numbers(front(done))
        named = points_of(leaders.trials, budget, answers=10), points_of(done, budget, answers=10)
        assert named[0].numbers() == named[1].numbers()
        volumes = [hypervolume(some_, REFERENCE) for some_ in (leaders.trials, done)]
        assert volumes[0] == pytest.approx(volumes[1], abs=1e-12)
        counts = [len(counted(done)) for counted in (tried_trials, searched_trials, failed_trials)]
        assert [leaders.tried, leaders.searched, leaders.failed] == counts
        assert leaders.causes == Counter(cause_of(str(trial.failure)) for trial in failed_trials(done))


@quick
@hypothesis.given(many())
def test_a_front_is_what_no_other_dominates(trials: list[Trial]) -> None:
    done = finished(trials)
    expected = {trial.number for trial, m in done if not any(dominates(other, m) for _, other in done)}
    assert set(numbers(front(trials))) == expected


def test_a_revised_record_counts_as_it_is_now() -> None:
    """Timed again it is slower, and another takes its place."""
    fast = Trial(0, NOTHING, Measurement(5, 1.0, 95.0))
    other = Trial(1, NOTHING, Measurement(5, 2.0, 95.0))
    history = History.of([fast, other])
    leaders = Leaders()
    leaders.follow(history)
    assert numbers(front(leaders.trials)) == [0]
    before = leaders.version
    leaders.follow(history.with_revised(Trial(0, NOTHING, Measurement(5, 3.0, 95.0))))
    assert numbers(front(leaders.trials)) == [1]
    assert leaders.version > before
