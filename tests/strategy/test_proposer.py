"""Our proposer on a toy search: what is proposed next, alone and through a study."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoprune.core.errors import AutopruneError, ExhaustedError
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate, Level
from autoprune.strategy.acquisition import Scale
from autoprune.strategy.aim import Aim
from autoprune.strategy.history import FLIGHT_SHARE, Asked, History
from autoprune.strategy.hypervolume import covers, kl_scale
from autoprune.strategy.proposer import HypervolumeProposer
from autoprune.strategy.records import Records
from autoprune.strategy.solver.mckp import solve, sweep
from autoprune.strategy.study import Study
from tests.support.toy_search import Toy, small_toy


def between(scale: Scale, share: float) -> float:
    """Milliseconds at a share of the range that candidates are predicted to take."""
    return scale.low_ms + share * (scale.high_ms - scale.low_ms)


def proposals(toy: Toy, aim: Aim, count: int, seed: int = 0, *, volume: bool = False) -> list[Candidate]:
    """What one worker would try."""
    out: list[Candidate] = []
    flying = np.zeros((0, len(toy.space.units)), np.intp)
    known = toy.records([])
    for k in range(count):
        one = aim.largest_gain(known, flying, frozenset(out), seed=1000 * seed + k, volume=volume)
        assert one is not None
        out.append(one)
        known = known.joined(toy.records([one]))
    return out


@pytest.mark.parametrize("volume", [False, True])
def test_a_proposal_is_new_allowed_and_within_the_size(volume: bool) -> None:
    toy = Toy.of(6)
    limit = toy.costs.size_bytes(toy.space.uniform(Level.of(0.0, 4)))
    found = proposals(toy, toy.aim(Budget(limit)), 30, volume=volume)
    assert len(set(found)) == 30
    for candidate in found:
        toy.space.check(candidate)
        assert toy.costs.size_bytes(candidate) <= limit


def test_a_proposal_depends_on_trials_and_seed_alone_not_on_the_order_of_trials() -> None:
    toy = Toy.of(6)
    aim, tried = toy.aim(), toy.random(12, 1, 1e9)
    flying = toy.records(tried[:2]).chosen

    def next_of(trials: Sequence[Candidate], seed: int) -> Candidate | None:
        return aim.largest_gain(toy.records(trials), flying, frozenset(tried), seed=seed, volume=True)

    firsts = [next_of(tried, seed) for seed in range(8)]
    assert firsts == [next_of(tried, seed) for seed in range(8)]
    assert firsts == [next_of(tried[::-1], seed) for seed in range(8)]


def test_a_proposal_leaves_what_it_reads_alone() -> None:
    toy = Toy.of(4)
    known = toy.records(toy.random(9, 1, 1e9))
    before = [x.copy() for x in (known.chosen, known.kl, known.latency_ms)]
    toy.aim().largest_gain(known, known.chosen[:2], frozenset(), seed=1, volume=True)
    for old, new in zip(before, (known.chosen, known.kl, known.latency_ms), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_is_in_flight_pushes_the_next_elsewhere() -> None:
    """Proposals of four workers that start at once lie at least a fortieth of the range apart."""
    toy = Toy.of(8)
    aim = toy.aim()
    asked: list[Candidate] = []
    for k in range(4):
        flying = np.reshape([aim.problem.chosen(candidate) for candidate in asked], (-1, 8)).astype(np.intp)
        one = aim.largest_gain(toy.records([]), flying, frozenset(asked), seed=2 * k, volume=False)
        assert one is not None
        asked.append(one)
    places = np.sort([toy.costs.size_bytes(candidate) for candidate in asked])
    assert np.diff(places).min() > (aim.scale.byte_range.high - aim.scale.byte_range.low) / 40


def test_the_limit_counts_where_it_is_just_above_the_smallest() -> None:
    toy = Toy.of(4)
    small = toy.costs.size_bytes(toy.costs.smallest(toy.space))
    limit = round(1.004 * small)
    aim = toy.aim(Budget(limit))
    flying = np.zeros((0, 4), np.intp)
    for seed in range(6):
        one = aim.largest_gain(toy.records([]), flying, frozenset(), seed=seed, volume=False)
        assert one is None or toy.costs.size_bytes(one) <= limit


@pytest.mark.parametrize("seed", range(4))
def test_learning_beats_the_solver_alone_and_chance(seed: int) -> None:
    """60 trials each of a truth with hidden factors, in hypervolume of bytes and log KL."""
    toy = Toy.of(10, seed=seed)
    limit = toy.costs.size_bytes(toy.space.uniform(Level.of(0.0, 8)))
    aim = toy.aim(Budget(limit))
    ours = toy.area(aim, proposals(toy, aim, 60, seed))
    targets = np.linspace(aim.scale.byte_range.low, aim.scale.byte_range.high, 60)
    alone = {aim.problem.candidate(choice) for choice in sweep(aim.problem, targets, np.zeros(1))}
    chance = toy.area(aim, toy.random(60, seed, limit))
    solver = toy.area(aim, list(alone))
    ideal = sweep(toy.truth, targets, np.zeros(1))
    most = toy.area(aim, [aim.problem.candidate(choice) for choice in ideal])
    assert chance < solver < ours
    assert ours > solver + 0.3 * (most - solver)


@pytest.mark.parametrize("volume", [False, True])
def test_before_any_trial_proposals_lie_on_the_solvers_front(volume: bool) -> None:
    """Damage within a twentieth of the least at their size; then spread over the sizes."""
    toy = Toy.of(8)
    aim = toy.aim(Budget(toy.costs.size_bytes(toy.space.uniform(Level.of(0.0, 8)))))
    flying = np.zeros((0, 8), np.intp)
    for seed in range(4):
        one = aim.largest_gain(toy.records([]), flying, frozenset(), seed=seed, volume=volume)
        assert one is not None
        best = solve(aim.problem, limit_bytes=toy.costs.size_bytes(one))
        assert best is not None
        assert toy.costs.damage(one) <= 1.05 * aim.problem.totals(best[None]).damage[0]


@pytest.mark.parametrize("seed", range(2))
def test_with_latency_counted_more_of_the_volume_is_reached(seed: int) -> None:
    """In (bytes, milliseconds, log KL), after 15 trials each."""
    toy = Toy.of(8, seed=seed)
    aim = toy.aim()

    def volume(found: Sequence[Candidate]) -> float:
        totals, sizes = aim.problem.totals(toy.records(found).chosen), aim.scale.byte_range
        x = (totals.size_bytes - sizes.low) / (sizes.high - sizes.low)
        y = (totals.latency_ms - aim.scale.low_ms) / (aim.scale.high_ms - aim.scale.low_ms)
        points = np.stack([x, y, kl_scale(toy.records(found).kl)], 1)
        return float(covers(points, aim.lattice).any(0).mean())

    plane, whole = (volume(proposals(toy, aim, 15, volume=by_volume)) for by_volume in (False, True))
    assert plane < whole


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_a_limit_of_latency_is_kept_as_predicted_with_what_trials_taught(share: float) -> None:
    """Measured milliseconds are 1.5 times those predicted; after a trial that is known."""
    toy = Toy.of(5)
    plain = toy.aim()
    slow = 1.5
    limit = slow * between(plain.scale, share)
    aim = toy.aim(Budget(None, limit))
    known = toy.records([toy.space.untouched()])
    known = Records(known.chosen, known.kl, known.latency_ms * slow)
    seen: set[Candidate] = set()
    for seed in range(8):
        one = aim.largest_gain(known, np.zeros((0, 5), np.intp), seen, seed=seed, volume=True)
        assert one is not None
        assert slow * toy.costs.latency_ms(one) <= limit
        seen.add(one)


# ---- through a study ----------------------------------------------------------------------------


def study_of(toy: Toy, path: Path, budget: Budget | None = None, *, seed: int = 0) -> Study:
    aim = toy.aim(budget)
    return Study(path, toy.space, proposer=HypervolumeProposer(aim, seed))


@pytest.mark.parametrize("tight", [False, True])
def test_a_tiny_space_is_tried_out_completely_each_once_and_then_there_is_an_error(
    tight: bool, tmp_path: Path
) -> None:
    toy = small_toy(2, (0.0, 0.5), (4, 8, 32))
    every = [
        Candidate(tuple(zip((unit.unit for unit in toy.space.units), levels, strict=True)))
        for levels in itertools.product(*(tuple(unit.levels()) for unit in toy.space.units))
    ]
    limit = int(np.median([toy.costs.size_bytes(candidate) for candidate in every])) if tight else None
    study = study_of(toy, tmp_path / "study.db", Budget(limit))
    want = {candidate for candidate in every if limit is None or toy.costs.size_bytes(candidate) <= limit}
    found = []
    for k in range(len(want)):
        asked = study.ask()
        found.append(asked.candidate)
        study.tell(asked.token, toy.trial(asked.candidate, k))
    assert len(found) == len(set(found))
    assert set(found) == want
    with pytest.raises(AutopruneError, match="no candidate of this search space is left to try"):
        study.ask()


def test_many_workers_that_start_at_once_get_different_candidates(tmp_path: Path) -> None:
    toy = Toy.of(5)
    study = study_of(toy, tmp_path / "study.db")
    asked = [study.ask() for _ in range(8)]
    assert len({ask.candidate for ask in asked}) == 8
    for ask in asked[::-1]:
        study.tell(ask.token, toy.trial(ask.candidate))
    assert study.ask().candidate not in {ask.candidate for ask in asked}


def test_it_learns_from_untrained_trials_alone(tmp_path: Path) -> None:
    """Trained, failed and unmeasured trials leave the next proposal as it would be without them."""
    toy = Toy.of(5)
    base = toy.random(6, 3, 1e9)
    trials = [toy.trial(candidate) for candidate in base]
    measured = trials[0].measurement
    assert measured is not None
    others = [
        replace(trials[0], rung=1, measurement=replace(measured, kl=5.0)),
        replace(trials[1], measurement=None, failure="out of memory"),
        replace(trials[2], measurement=replace(measured, kl=float("nan"))),
    ]
    problem = toy.aim().problem
    known = Records.of(problem, [*trials, *others])
    np.testing.assert_array_equal(known.chosen, Records.of(problem, trials).chosen)
    np.testing.assert_array_equal(known.kl, Records.of(problem, trials).kl)
    joined = Records.of(problem, trials[:2]).joined(Records.of(problem, trials[2:]))
    np.testing.assert_array_equal(joined.kl, known.kl)


def test_the_answer_to_a_budget_is_the_least_damage_by_what_was_learned() -> None:
    toy = Toy.of(6, spread=1.0)
    aim = toy.aim()
    known = toy.records(toy.random(150, 1, 1e9))
    limit = toy.costs.size_bytes(toy.space.uniform(Level.of(0.0, 4)))
    untaught, taught = (aim.answer(trials, Budget(limit)) for trials in (toy.records([]), known))
    assert untaught is not None
    assert taught is not None
    best = solve(aim.problem, limit_bytes=limit)
    assert best is not None
    assert untaught == aim.problem.candidate(best)
    assert toy.costs.size_bytes(taught) <= limit
    assert toy.kl(taught) <= 1.05 * toy.kl(untaught)
    fast = aim.answer(known, Budget(limit, aim.scale.low_ms * 1.3))
    assert fast is not None
    assert toy.costs.latency_ms(fast) <= aim.scale.low_ms * 1.3
    assert aim.answer(known, Budget(10)) is None


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_no_proposal_is_over_the_latency_limit_to_the_last_that_is_within(
    share: float, tmp_path: Path
) -> None:
    toy = small_toy(2, (0.0, 0.5), (4, 8, 32))
    plain = toy.aim()
    limit = between(plain.scale, share)
    every = itertools.product(*(tuple(unit.levels()) for unit in toy.space.units))
    units = [unit.unit for unit in toy.space.units]
    allowed = {Candidate(tuple(zip(units, levels, strict=True))) for levels in every}
    allowed = {candidate for candidate in allowed if toy.costs.latency_ms(candidate) <= limit}
    study = study_of(toy, tmp_path / "study.db", Budget(None, limit))
    found = []
    for k in range(len(allowed)):
        asked = study.ask()
        found.append(asked.candidate)
        study.tell(asked.token, toy.trial(asked.candidate, k))
    assert set(found) == allowed
    with pytest.raises(ExhaustedError, match="is left to try"):
        study.ask()


@pytest.mark.parametrize("units", [12, 30])
@pytest.mark.parametrize("share", [0.0005, 0.01])
def test_under_a_tight_limit_of_latency_there_is_a_proposal(units: int, share: float) -> None:
    toy = Toy.of(units)
    plain = toy.aim()
    limit = between(plain.scale, share)
    for seed in range(3):
        one = toy.aim(Budget(None, limit)).largest_gain(
            toy.records([]), np.zeros((0, units), np.intp), frozenset(), seed=seed, volume=True
        )
        assert one is not None
        assert toy.costs.latency_ms(one) <= limit


def test_what_a_study_asks_of_our_proposer_is_what_it_proposes(tmp_path: Path) -> None:
    toy = Toy.of(4)
    study = study_of(toy, tmp_path / "study.db", seed=5)
    proposer = HypervolumeProposer(toy.aim(), seed=5)
    for _ in range(4):
        expected = proposer.propose(study.history, number=len(study.history.finished))
        asked = study.ask()
        assert asked.candidate == expected
        study.tell(asked.token, toy.trial(asked.candidate))


# ---- very many workers --------------------------------------------------------------------------


def flying(toy: Toy, count: int, finished: int = 20) -> History:
    """A history with so many candidates in flight."""
    candidates = toy.random(finished + count, 1, 1e9)
    history = History.of(toy.trial(candidate, k) for k, candidate in enumerate(candidates[:finished]))
    for token, candidate in enumerate(candidates[finished:]):
        history = history.with_asked(Asked(token, candidate))
    return history


def asked_for(proposer: HypervolumeProposer, history: History, count: int) -> tuple[list[Candidate], History]:
    """What so many free workers are given, one after the other."""
    out: list[Candidate] = []
    for _ in range(count):
        number = len(history.finished) + len(history.in_flight)
        out.append(proposer.propose(history, number))
        history = history.with_asked(Asked(number, out[-1]))
    return out, history


def test_with_few_in_flight_nothing_is_proposed_ahead() -> None:
    """Each proposal is that of a proposer that was never asked before."""
    toy, history = Toy.of(5), flying(Toy.of(5), FLIGHT_SHARE - 4)
    proposer = HypervolumeProposer(toy.aim(), seed=1)
    for _ in range(4):
        fresh = HypervolumeProposer(toy.aim(), seed=1)
        (expected,), _ = asked_for(fresh, history, 1)
        (found,), history = asked_for(proposer, history, 1)
        assert found == expected


@pytest.mark.parametrize("milliseconds", [False, True])
def test_what_is_proposed_ahead_is_new_and_within_the_budget(milliseconds: bool) -> None:
    toy = Toy.of(6)
    limit = toy.costs.size_bytes(toy.space.uniform(Level.of(0.0, 4)))
    budget = Budget(limit, between(toy.aim().scale, 0.3) if milliseconds else None)
    proposer, history = HypervolumeProposer(toy.aim(budget), 0, at_once=8), flying(toy, 19)
    found, after = asked_for(proposer, history, 20)
    assert len(set(found)) == 20
    assert not set(found) & set(history.seen)
    assert all(budget.allows(toy.costs.size_bytes(x), toy.costs.latency_ms(x)) for x in found)
    again, _ = asked_for(HypervolumeProposer(toy.aim(budget), 0, at_once=8), history, 20)
    assert again == found
    assert len(after.in_flight) == 39


def test_proposals_ahead_are_made_anew_once_as_many_trials_finished() -> None:
    toy = Toy.of(6)
    proposer, history = HypervolumeProposer(toy.aim(), 0, at_once=5), flying(toy, 8)
    (first, second, third), after = asked_for(proposer, history, 3)
    assert len({first, second, third}) == 3
    ahead = HypervolumeProposer(toy.aim(), 0, at_once=5)
    tokens = list(after.in_flight)
    (one,), with_one = asked_for(ahead, history, 1)
    assert one == first
    for token in tokens[:4]:
        with_one = with_one.with_finished(toy.trial(with_one.in_flight[token].candidate, 99), token=token)
    assert asked_for(ahead, with_one, 1)[0] == [second]  # four finished: what was proposed still holds
    later = with_one.with_finished(toy.trial(with_one.in_flight[tokens[4]].candidate, 99), token=tokens[4])
    fresh = HypervolumeProposer(toy.aim(), 0, at_once=5)
    assert asked_for(ahead, later, 1)[0] == asked_for(fresh, later, 1)[0]


@pytest.mark.parametrize("seed", range(2))
def test_proposals_ahead_find_as_much_as_one_at_a_time(seed: int) -> None:
    """Thirty-two workers, 256 candidates: hypervolume in bytes and log KL."""
    toy = Toy.of(8, seed=seed)
    areas = []
    for at_once in (9, 1):
        proposer, history = HypervolumeProposer(toy.aim(), seed, at_once), History()
        _, history = asked_for(proposer, history, 32)
        for _ in range(256 - 32):
            token, asked = next(iter(history.in_flight.items()))
            trial = toy.trial(asked.candidate, len(history.finished))
            _, history = asked_for(proposer, history.with_finished(trial, token=token), 1)
        areas.append(toy.area(toy.aim(), [trial.candidate for trial in history.finished]))
    assert areas[0] > 0.99 * areas[1]
