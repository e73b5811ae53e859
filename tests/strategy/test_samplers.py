"""Adapter to Optuna: any proposer is asked with the history, and only for candidates that are not given."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.space.levels import Candidate
from autoprune.strategy.history import Asked, History
from autoprune.strategy.samplers import OptunaProposer
from autoprune.strategy.study import Study
from tests.support.toy_search import Toy, small_toy


class InTurn:
    """A proposer that knows no Optuna: all candidates of the space in turn; it keeps what it was given."""

    warm_starts = 0

    def __init__(self, toy: Toy) -> None:
        units = [unit.unit for unit in toy.space.units]
        levels = itertools.product(*(tuple(unit.levels()) for unit in toy.space.units))
        self.every = [Candidate(tuple(zip(units, chosen, strict=True))) for chosen in levels]
        self.given: list[tuple[History, int]] = []

    def propose(self, history: History, number: int) -> Candidate:
        self.given.append((history, number))
        return next(candidate for candidate in self.every if candidate not in history.seen)


def test_any_proposer_is_asked_with_what_is_known_by_then(tmp_path: Path) -> None:
    toy = small_toy(2, (0.0, 0.5), (4, 8, 32))
    proposer = InTurn(toy)
    study = Study(tmp_path / "study.db", toy.space, proposer=proposer)
    first, second = study.ask(), study.ask()
    given = study.ask(first.candidate, rung=1)  # a candidate that is given needs no proposal
    told = study.tell(second.token, toy.trial(second.candidate))
    study.retime(told.number, {"latency_ms": 9.0})
    last = study.ask()
    assert [ask.candidate for ask in (first, second, last)] == proposer.every[:3]
    assert [number for _, number in proposer.given] == [first.token, second.token, last.token]
    start, one_in_flight, now = (history for history, _ in proposer.given)
    assert start == History()
    assert dict(one_in_flight.in_flight) == {first.token: Asked(first.token, first.candidate)}
    assert dict(now.in_flight) == {first.token: first, given.token: given}
    assert [trial.measurement.latency_ms for trial in now.finished if trial.measurement] == [9.0]


def test_a_sampler_of_optuna_proposes_for_a_trial_that_has_begun() -> None:
    space = Toy.of(2).space
    proposer = OptunaProposer("random", space=space, seed=0, repair=lambda one, seen, seed: one)
    with pytest.raises(RuntimeError, match="proposal 3 was asked for before its trial began"):
        proposer.propose(History(), 3)


def test_a_proposal_that_is_not_of_the_space_is_refused(tmp_path: Path) -> None:
    toy = small_toy(2, (0.0, 0.5), (4, 8, 32))
    proposer = InTurn(small_toy(2, (0.25,), (4, 8, 32)))
    study = Study(tmp_path / "study.db", toy.space, proposer=proposer)
    with pytest.raises(AutopruneError, match="is not offered"):
        study.ask()
    assert study.history == History()
