"""Trials as plain data: what is counted as failed."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as some

from autoprune.space.levels import Candidate
from autoprune.space.trial import Measurement, Trial, failed_trials, searched_trials

quick = hypothesis.settings(deadline=None, max_examples=60)
MEASURED = Measurement(1000, 1.0, 80.0)


@quick
@hypothesis.given(some.lists(some.tuples(some.booleans(), some.booleans(), some.integers(0, 2))))
def test_failures_are_counted_at_every_rung_and_never_of_baselines(
    drawn: list[tuple[bool, bool, int]],
) -> None:
    trials = [
        Trial(
            number,
            Candidate(()),
            None if is_failed else MEASURED,
            "out of memory" if is_failed else None,
            name="uniform 8-bit" if is_baseline else None,
            rung=rung,
        )
        for number, (is_failed, is_baseline, rung) in enumerate(drawn)
    ]
    failed = [trial.number for trial in failed_trials(trials)]
    assert failed == [
        k for k, (is_failed, is_baseline, _) in enumerate(drawn) if is_failed and not is_baseline
    ]
    assert {trial.number for trial in failed_trials(trials)} <= {
        trial.number for trial in searched_trials(trials)
    }
