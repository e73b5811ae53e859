"""What a proposal looks back at: all trials while they are few, then the latest and what others come to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoprune.space.trial import Trial
from autoprune.strategy.history import History
from autoprune.strategy.hypervolume import covers, staircase
from autoprune.strategy.lookback import Lookback
from autoprune.strategy.records import Records
from tests.support.toy_search import Toy

TOY = Toy.of(6)


def some_trials(count: int) -> list[Trial]:
    """Candidates at random, every third of which is trained some trials later."""
    candidates = TOY.random(count, seed=1, limit=TOY.costs.size_bytes(TOY.space.untouched()))
    trials: list[Trial] = []
    for k, candidate in enumerate(candidates):
        trials.append(TOY.trial(candidate, len(trials)))
        if k % 3 == 2:
            early = TOY.trial(candidates[k - 2], len(trials))
            assert early.measurement is not None
            trained = replace(early.measurement, kl=0.6 * early.measurement.kl)
            trials.append(replace(early, measurement=trained, rung=1))
    return trials


def followed(trials: list[Trial], latest: int, *, at_once: bool) -> Lookback:
    aim = TOY.aim()
    back, history = Lookback(aim.problem, aim.scale, aim.lattice, latest), History()
    for trial in trials:
        history = history.with_finished(trial)
        if not at_once:
            back.follow(history)
    back.follow(history)
    return back


def assert_same(a: Records, b: Records) -> None:
    assert a.older == b.older
    for name in ("chosen", "kl", "latency_ms", "trained_kl"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_few_trials_are_all_looked_at() -> None:
    trials = some_trials(40)
    every = Records.of(TOY.aim().problem, trials)
    assert_same(followed(trials, 40, at_once=False).records(), every)


@pytest.mark.parametrize("latest", [1, 10, 100])
def test_it_does_not_depend_on_when_it_was_asked(latest: int) -> None:
    trials = some_trials(400)
    step_by_step, at_once = (followed(trials, latest, at_once=flag).records() for flag in (False, True))
    assert_same(step_by_step, at_once)
    np.testing.assert_array_equal(step_by_step.covered, at_once.covered)


def test_older_trials_count_by_their_front_and_by_all_that_they_dominate() -> None:
    trials, latest, aim = some_trials(600), 50, TOY.aim()
    back = followed(trials, latest, at_once=False).records()
    every = Records.of(aim.problem, trials)
    assert len(back.kl) == back.older + latest
    assert back.older < 300
    np.testing.assert_array_equal(back.chosen[back.older :], every.chosen[-latest:])
    totals = aim.problem.totals(every.chosen[:-latest])
    final = np.fmin(every.kl, every.trained_kl)[:-latest]
    x, y = aim.scale.scaled_bytes(totals.size_bytes), aim.scale.scaled_ms(every.latency_ms[:-latest])
    points = np.stack([x, y, aim.scale.scaled_kl(final)], 1)
    assert back.covered is not None
    untrained = np.stack([x, y, aim.scale.scaled_kl(every.kl[:-latest])], 1)
    at_most, at_least = (covers(some, aim.lattice).any(0) for some in (points, untrained))
    np.testing.assert_array_equal(back.covered, at_most)
    assert not (at_least & ~back.covered).any()
    kept = {row.tobytes() for row in back.chosen[: back.older]}
    on_front = {every.chosen[k].tobytes() for k in staircase(points[:, [0, 2]])}
    assert on_front <= kept


def test_a_revised_record_is_looked_at_anew() -> None:
    trials = some_trials(30)
    history = History.of(trials)
    back = followed(trials, 100, at_once=True)
    m = trials[0].measurement
    assert m is not None
    revised = replace(trials[0], measurement=replace(m, latency_ms=99.0))
    back.follow(history.with_revised(revised))
    assert 99.0 in back.records().latency_ms
