"""How long a trial may work: generous, never less than any took, and known before the first has ended."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.history import History
from autoprune.strategy.promotion import RUNG_STEPS
from autoprune.strategy.trial_limits import FIRST_SECONDS, FLOOR_SECONDS, TIMES_LONGEST, TrialLimits
from tests.support.made_runs import SMALL

CANDIDATE = SMALL.untouched()
MEASURED = Measurement(100, 1.0, 90.0, kl=0.1)


def trial(seconds: float, rung: int = 0, training: float = 0.0, *, fails: bool = False) -> Trial:
    parts = {"finetune": training}
    if fails:
        return Trial(0, CANDIDATE, None, failure="TimedOut: x", rung=rung, seconds=seconds)
    return Trial(0, CANDIDATE, MEASURED, rung=rung, seconds=seconds, parts=parts)


@some.composite
def trials(draw: some.DrawFn) -> Trial:
    rest, training = draw(some.floats(0.1, 1e5)), draw(some.floats(0.0, 1e5))
    rung = draw(some.integers(0, 2))
    return trial(rest + training * (rung > 0), rung, training * (rung > 0), fails=draw(some.booleans()))


@hypothesis.given(some.lists(trials(), max_size=12), some.integers(0, 50))
def test_no_trial_like_one_before_is_ended_and_the_limit_is_finite(seen: list[Trial], steps: int) -> None:
    history, limits = History(), TrialLimits(steps)
    for one in seen:
        history = history.with_finished(one)
        limits.seconds(history, 0)
    done = [one for one in seen if one.measurement is not None]
    by_rung = [limits.seconds(history, rung) for rung in range(len(RUNG_STEPS))]
    assert by_rung == sorted(by_rung)
    assert all(FLOOR_SECONDS <= seconds < float("inf") for seconds in by_rung)
    for one in done if steps else ():
        assert by_rung[one.rung] >= TIMES_LONGEST * one.seconds * (1 - 1e-9)
    assert by_rung == [TrialLimits(steps).seconds(history, rung) for rung in range(len(RUNG_STEPS))]
    if not done:
        assert by_rung == [FIRST_SECONDS] * 3


def test_training_that_was_not_seen_is_guessed_from_its_steps() -> None:
    history = History().with_finished(trial(90.0))
    limits = TrialLimits(40)
    assert limits.seconds(history, 0) == 900
    assert limits.seconds(history, 1) == (10 + 40) * 90
    history = history.with_finished(trial(290.0, 1, 200.0))
    assert limits.seconds(history, 1) == 10 * (90 + 200)
    assert limits.seconds(history, 2) == 10 * (90 + 4 * 200)


def test_a_trial_that_hung_does_not_raise_the_limit() -> None:
    history = History().with_finished(trial(90.0)).with_finished(trial(6000.0, fails=True))
    assert TrialLimits(0).seconds(history, 0) == 900


@pytest.mark.parametrize("rung", [0, 1, 2])
def test_what_the_user_gives_holds(rung: int) -> None:
    history = History().with_finished(trial(90.0))
    assert TrialLimits(40, 30.0).seconds(history, rung) == 30.0
