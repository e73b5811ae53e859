"""History: every step returns a new one, and what is derived from it is right."""

from __future__ import annotations

from dataclasses import replace

from autoprune.space.levels import Candidate, Level
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.history import Asked, History


def candidate(bits: int) -> Candidate:
    return Candidate((("layer", Level.of(0.0, bits)),))


def trial(number: int, bits: int, rung: int = 0) -> Trial:
    return Trial(number, candidate(bits), Measurement(1000, 1.0, 80.0), rung=rung)


def test_a_history_that_is_taken_up_again_has_nothing_in_flight() -> None:
    history = History.of((trial(0, 8), trial(1, 4)))
    assert history.in_flight == {}
    assert history.seen == {candidate(8), candidate(4)}
    assert history.begun == {(candidate(8), 0), (candidate(4), 0)}


def test_what_is_asked_is_in_flight_until_it_is_finished() -> None:
    before = History.of((trial(0, 8),))
    first, second = Asked(1, candidate(4)), Asked(2, candidate(8), rung=1)
    asked = before.with_asked(first).with_asked(second)
    assert dict(asked.in_flight) == {1: first, 2: second}
    assert asked.seen == {candidate(8), candidate(4)}
    assert asked.begun == {(candidate(8), 0), (candidate(4), 0), (candidate(8), 1)}
    after = asked.with_finished(trial(1, 8, rung=1), token=2)
    assert dict(after.in_flight) == {1: first}
    assert [done.number for done in after.finished] == [0, 1]
    assert after.begun == asked.begun
    assert (before.in_flight, len(before.finished), len(asked.in_flight)) == ({}, 1, 2)  # as they were


def test_a_baseline_ends_nothing_that_is_in_flight() -> None:
    asked = History().with_asked(Asked(0, candidate(4)))
    after = asked.with_finished(trial(0, 32))
    assert after.in_flight == asked.in_flight
    assert after.seen == {candidate(4), candidate(32)}


def test_a_later_score_takes_the_place_of_the_record_and_changes_nothing_else() -> None:
    history = History.of((trial(0, 8), trial(1, 4))).with_asked(Asked(5, candidate(2)))
    revised = replace(history.finished[1], test_accuracy=81.0)
    after = history.with_revised(revised)
    assert after.finished == (history.finished[0], revised)
    assert (after.in_flight, after.seen, after.begun) == (history.in_flight, history.seen, history.begun)
