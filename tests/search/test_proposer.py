"""The own sampler's parts: volumes by counting cells, factors that are known, and what is proposed next.

A toy stands in for models. Its divergence is a sum over the units, as predicted but for a hidden
factor on what removal and what rounding does in each unit, and a little noise of each candidate.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as some
import numpy as np
import pytest
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError, ExhaustedError
from autoprune.evaluation.seeds import candidate_text
from autoprune.search import damage_model
from autoprune.search.damage_model import Features, Learned, Taught
from autoprune.search.hypervolume import KL_CEILING, KL_FLOOR, added_area, area, covers, kl_area, kl_scale
from autoprune.search.proposer import Aim, Records
from autoprune.search.repair import repair as repaired
from autoprune.search.samplers import OURS, Repair
from autoprune.search.solver.mckp import Problem, solve, sweep
from autoprune.search.study import Study
from autoprune.space.budget import Budget
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import Candidate, Choices, Level, SearchSpace
from autoprune.space.storage import FLOAT_BITS, storages_of
from autoprune.space.trial import Measurement, Trial

Array = NDArray[np.float64]
Choice = NDArray[np.intp]

quick = hypothesis.settings(deadline=None, max_examples=60)

# ---- volume -------------------------------------------------------------------------------------

CELLS = 12


def points(most: int) -> some.SearchStrategy[Array]:
    """Points on a lattice of the unit square, so that ties and edges are common."""
    shape = some.tuples(some.integers(0, most), some.just(2))
    return arrays.arrays(np.int64, shape, elements=some.integers(0, CELLS)).map(lambda x: x / CELLS)


def counted(known: Array) -> float:
    """Share of the cells of the lattice that some point dominates."""
    low = np.stack(np.meshgrid(np.arange(CELLS), np.arange(CELLS)), -1).reshape(-1, 2) / CELLS + 0.5 / CELLS
    return float(covers(known, low).any(0).mean()) if len(known) else 0.0


@quick
@hypothesis.given(points(9))
def test_area_is_the_share_of_cells_dominated(known: Array) -> None:
    assert area(known) == pytest.approx(counted(known), abs=1e-12)


@quick
@hypothesis.given(points(5), points(9))
def test_what_a_point_adds_is_the_area_with_it_less_that_without(new: Array, known: Array) -> None:
    found = added_area(new, known)
    assert found.shape == (len(new),)
    for point, gain in zip(new, found, strict=True):
        more = area(np.concatenate([known, point[None]])) - area(known)
        assert gain == pytest.approx(more, abs=1e-12)


@quick
@hypothesis.given(points(9), some.integers(0, 99))
def test_area_knows_no_order_and_no_point_lowers_it(known: Array, seed: int) -> None:
    mixed = np.random.default_rng(seed).permutation(known)
    assert area(mixed) == pytest.approx(area(known), abs=1e-12)
    values = [area(known[:k]) for k in range(len(known) + 1)]
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(values))


@quick
@hypothesis.given(some.lists(some.floats(0, 10), min_size=2, max_size=9))
def test_the_scale_of_divergence_grows_and_stays_in_the_unit_interval(kl: list[float]) -> None:
    scaled = kl_scale(np.sort(kl))
    assert (np.diff(scaled) >= 0).all()
    assert (scaled >= 0).all()
    assert (scaled <= 1).all()
    inside = np.linspace(KL_FLOOR, KL_CEILING, 9)
    assert (np.diff(kl_scale(inside)) > 0).all()


def test_kl_area_is_in_shares_of_the_box() -> None:
    size, kl = np.array([100.0, 150.0]), np.array([(KL_FLOOR * KL_CEILING) ** 0.5, KL_FLOOR])
    assert kl_area(size, kl, low=100, high=200) == pytest.approx(0.5 * 0.5 + 0.5)
    assert kl_area(size + 100, kl, low=100, high=200) == 0.0  # at or beyond the largest that counts
    assert kl_area(size[:0], kl[:0], low=100, high=200) == 0.0


def test_covers_is_domination_with_equality() -> None:
    lattice = np.array([[0.5, 0.5, 0.5], [0.5, 0.4, 0.9]])
    assert covers(np.full((1, 3), 0.5), lattice).tolist() == [[True, False]]


# ---- a toy --------------------------------------------------------------------------------------


def space_of(units: int, ratios: Sequence[float] = (0.0, 0.25, 0.5, 0.75)) -> SearchSpace:
    return SearchSpace(
        tuple(Choices(f"layer.{k}", tuple(ratios), storages_of((3, 4, 8, 32))) for k in range(units))
    )


def costs_of(space: SearchSpace, seed: int = 0) -> Costs:
    """Units of many sizes; damage grows with the square of the ratio and four times for a bit less."""
    rng, table = np.random.default_rng(seed), {}
    for one in space.units:
        size, removal, rounding, ms = rng.lognormal(0, 0.7, 4) * [8000, 0.06, 1.0, 0.5]
        table[one.unit] = {
            level: Cost(
                round(size * (1 - level.ratio) * level.storage.bits / 8),
                removal * (0.2 * level.ratio + level.ratio**2)
                + (
                    rounding * 4.0**-level.storage.bits * (1 - level.ratio)
                    if level.storage.bits < FLOAT_BITS
                    else 0.0
                ),
                ms * (1 - level.ratio) * (0.6 if level.storage.bits <= 8 else 1.0),
            )
            for level in one.levels()
        }
    return Costs(500, table, fixed_ms=0.3)


@dataclass(frozen=True)
class Toy:
    """A space, its predicted costs and what is true of it."""

    space: SearchSpace
    costs: Costs
    truth: Problem
    noise: float

    @classmethod
    def of(cls, units: int = 10, *, seed: int = 0, spread: float = 0.6, noise: float = 0.05) -> Toy:
        space = space_of(units)
        costs = costs_of(space, seed)
        plain = Problem.of(space, costs)
        parts = Features.of(plain)
        rng = np.random.default_rng(seed + 1000)
        factors = np.exp(spread * rng.standard_normal((2, units, 1)))
        true = factors[0] * parts.removal + factors[1] * parts.rounding
        return cls(space, costs, plain.with_damage(true), noise)

    def aim(self, budget: Budget | None = None) -> Aim:
        return Aim.of(Problem.of(self.space, self.costs), budget or Budget())

    def kl(self, candidate: Candidate) -> float:
        """What is measured; the noise is the candidate's own."""
        total = float(self.truth.totals(self.truth.chosen(candidate)[None])[2][0])
        draw = random.Random(candidate_text(candidate)).gauss(0.0, 1.0)
        return total * float(np.exp(self.noise * draw))

    def trial(self, candidate: Candidate, number: int = 0) -> Trial:
        m = Measurement(
            self.costs.size_bytes(candidate), self.costs.latency_ms(candidate), 80.0, kl=self.kl(candidate)
        )
        return Trial(number, candidate, m, rung=0)

    def records(self, candidates: Sequence[Candidate]) -> Records:
        trials = [self.trial(one, k) for k, one in enumerate(candidates)]
        return Records.of(Problem.of(self.space, self.costs), trials)

    def random(self, count: int, seed: int, limit: float) -> list[Candidate]:
        """Different candidates within a limit: levels at random, the larger ones repaired."""
        rng, out = random.Random(seed), list[Candidate]()
        while len(out) < count:
            one = Candidate(tuple((u.unit, rng.choice(list(u.levels()))) for u in self.space.units))
            seen = frozenset(out)
            out.append(repaired(one, seen, seed, space=self.space, costs=self.costs, limit_bytes=int(limit)))
        return out

    def area(self, aim: Aim, candidates: Sequence[Candidate]) -> float:
        """Measured hypervolume in (bytes, log KL)."""
        size = np.array([float(self.costs.size_bytes(one)) for one in candidates])
        kl = np.array([self.kl(one) for one in candidates])
        return kl_area(size, kl, low=aim.low_bytes, high=aim.high_bytes)


def proposals(toy: Toy, aim: Aim, count: int, seed: int = 0, *, volume: bool = False) -> list[Candidate]:
    """What one worker would try."""
    out: list[Candidate] = []
    flying = np.zeros((0, len(toy.space.units)), np.intp)
    known = toy.records([])
    for k in range(count):
        one = aim.propose(known, flying, frozenset(out), seed=1000 * seed + k, volume=volume)
        assert one is not None
        out.append(one)
        known = known.joined(toy.records([one]))
    return out


# ---- corrections --------------------------------------------------------------------------------


def learned(toy: Toy, candidates: Sequence[Candidate]) -> Learned:
    known = toy.records(candidates)
    return Learned.of(Features.of(Problem.of(toy.space, toy.costs)), known.chosen, known.kl)


def error(one: Taught, toy: Toy, new: Sequence[Candidate]) -> float:
    """Root mean square error of the logarithm of predicted divergence."""
    known = toy.records(new)
    return float(np.sqrt(np.mean(np.log(one.kl(known.chosen) / known.kl) ** 2)))


def test_parts_of_the_damage_add_up_and_the_prior_predicts_their_sum() -> None:
    toy = Toy.of(5)
    problem = Problem.of(toy.space, toy.costs)
    features = Features.of(problem)
    np.testing.assert_allclose(features.removal + features.rounding, problem.damage)
    assert (features.rounding >= 0).all()
    prior = learned(toy, []).mean()
    np.testing.assert_allclose(prior.damage(), problem.damage)
    chosen = toy.records(toy.random(20, 0, 1e9)).chosen
    np.testing.assert_allclose(prior.kl(chosen), problem.totals(chosen)[2])


def test_a_prediction_is_the_sum_times_what_the_features_weigh() -> None:
    """The fast way through the units against the rows that the regression is made of."""
    toy = Toy.of(5)
    features = Features.of(Problem.of(toy.space, toy.costs))
    chosen = toy.records(toy.random(20, 0, 1e9)).chosen
    rows, predicted = features.rows(chosen)
    weights = np.random.default_rng(0).uniform(-0.1, 0.1, len(features.scales))
    np.testing.assert_allclose(Taught(features, weights).kl(chosen), predicted * np.exp(rows @ weights))
    shares, places = rows[:, 3 : features.places.min()], rows[:, features.places.min() :]
    np.testing.assert_allclose(shares.sum(1), 3.0)  # each part under three features
    np.testing.assert_array_equal(places.sum(1), 5)  # each unit at one level


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.0, 3.0])
def test_a_unit_that_is_worse_than_predicted_is_found_out(factor: float) -> None:
    """After 150 candidates at random, of new ones in which that unit does most of the damage."""
    plain = Toy.of(6, spread=0.0)
    unit = int(plain.truth.damage.mean(1).argmax())
    damage = plain.truth.damage.copy()
    damage[unit] *= factor
    toy = replace(plain, truth=plain.truth.with_damage(damage))
    taught = learned(toy, toy.random(150, 1, 1e9)).mean()
    new = toy.records(toy.random(200, 77, 1e9))
    share = plain.truth.damage[unit][new.chosen[:, unit]] / plain.truth.totals(new.chosen)[2]
    heavy = share > 0.4
    wrong = np.log(taught.kl(new.chosen) / new.kl)[heavy]
    before = np.log(plain.truth.totals(new.chosen)[2] / new.kl)[heavy]
    assert abs(np.median(wrong)) < 0.05
    assert np.sqrt(np.mean(wrong**2)) < 0.1
    assert factor == 1 or abs(np.median(before)) > 0.3
    # What the solver is told, next to the other units: drawn to one, as priors do.
    felt = np.where(plain.truth.damage > 1e-3, taught.damage() / np.maximum(plain.truth.damage, 1e-9), np.nan)
    found = float(np.nanmedian(felt[unit]) / np.nanmedian(np.delete(felt, unit, 0)))
    assert found == pytest.approx(factor, rel=0.2) if factor >= 1 else found < 0.7


def test_a_truth_that_adds_up_is_recovered_and_so_is_one_that_saturates() -> None:
    """Of new candidates, from trials of others: 0.4 and 1.0 before, near the noise after 200."""
    toy = Toy.of(8, noise=0.02)
    new = toy.random(60, 9, 1e9)
    errors = [error(learned(toy, toy.random(n, 1, 1e9)).mean(), toy, new) for n in (0, 30, 200)]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.1 < errors[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_bend_that_all_share_is_learned_from_few(seed: int) -> None:
    """Measured is the square root of predicted: a parabola in logarithms is enough."""
    toy = Toy.of(8, seed=seed)
    candidates = toy.random(80, 1, 1e9)
    features = Features.of(Problem.of(toy.space, toy.costs))
    chosen = toy.records(candidates).chosen
    measured = features.rows(chosen)[1] ** 0.5 / 5
    taught = Learned.of(features, chosen[:20], measured[:20]).mean()
    assert np.sqrt(np.mean(np.log(taught.kl(chosen[20:]) / measured[20:]) ** 2)) < 0.1


def test_the_posterior_is_that_of_the_weights_in_closed_form() -> None:
    """The dual form against ridge regression's: precision S^-2 + R'R / noise^2."""
    toy = Toy.of(3)
    one = learned(toy, toy.random(40, 1, 1e9))
    precision = np.diag(one.features.scales**-2) + one.rows.T @ one.rows / damage_model.NOISE**2
    mean = np.linalg.solve(precision, one.rows.T @ one.target / damage_model.NOISE**2)
    np.testing.assert_allclose(one.mean().weights, mean, atol=1e-6)


def test_bad_measurements_teach_nothing_and_only_the_latest_are_learned_from() -> None:
    toy = Toy.of(3)
    problem = Problem.of(toy.space, toy.costs)
    features = Features.of(problem)
    chosen = toy.records(toy.random(6, 1, 1e9)).chosen
    bad = np.array([np.nan, np.inf, 0.0, -1.0, np.nan, 0.0])
    np.testing.assert_allclose(Learned.of(features, chosen, bad).mean().damage(), problem.damage)
    many = np.random.default_rng(0).integers(16, size=(damage_model.MOST_TRIALS + 50, 3))
    kl = np.maximum(problem.totals(many)[2], 1e-6)
    assert len(Learned.of(features, many, kl).target) == damage_model.MOST_TRIALS
    strange = np.where(np.arange(len(kl)) < 50, 1.0, kl)
    np.testing.assert_array_equal(
        Learned.of(features, many, strange).mean().weights, Learned.of(features, many, kl).mean().weights
    )
    assert np.isfinite(Learned.of(features, many, kl * 1e-9).mean().kl(many)).all()


# ---- proposals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("volume", [False, True])
def test_a_proposal_is_new_allowed_and_within_the_size(volume: bool) -> None:
    toy = Toy.of(6)
    limit = toy.costs.size_bytes(toy.space.uniform(Level.of(0.0, 4)))
    found = proposals(toy, toy.aim(Budget(limit)), 30, volume=volume)
    assert len(set(found)) == 30
    for one in found:
        toy.space.check(one)
        assert toy.costs.size_bytes(one) <= limit


def test_a_proposal_depends_on_trials_and_seed_alone_not_on_the_order_of_trials() -> None:
    toy = Toy.of(6)
    aim, tried = toy.aim(), toy.random(12, 1, 1e9)
    flying = toy.records(tried[:2]).chosen

    def next_of(trials: Sequence[Candidate], seed: int) -> Candidate | None:
        return aim.propose(toy.records(trials), flying, frozenset(tried), seed=seed, volume=True)

    firsts = [next_of(tried, seed) for seed in range(8)]
    assert firsts == [next_of(tried, seed) for seed in range(8)]
    assert firsts == [next_of(tried[::-1], seed) for seed in range(8)]


def test_a_proposal_leaves_what_it_reads_alone() -> None:
    toy = Toy.of(4)
    known = toy.records(toy.random(9, 1, 1e9))
    before = [x.copy() for x in (known.chosen, known.kl, known.latency_ms)]
    toy.aim().propose(known, known.chosen[:2], frozenset(), seed=1, volume=True)
    for old, new in zip(before, (known.chosen, known.kl, known.latency_ms), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_is_in_flight_pushes_the_next_elsewhere() -> None:
    """Proposals of four workers that start at once lie at least a fortieth of the range apart."""
    toy = Toy.of(8)
    aim = toy.aim()
    asked: list[Candidate] = []
    for k in range(4):
        flying = np.reshape([aim.problem.chosen(one) for one in asked], (-1, 8)).astype(np.intp)
        one = aim.propose(toy.records([]), flying, frozenset(asked), seed=2 * k, volume=False)
        assert one is not None
        asked.append(one)
    places = np.sort([toy.costs.size_bytes(one) for one in asked])
    assert np.diff(places).min() > (aim.high_bytes - aim.low_bytes) / 40


def test_the_limit_counts_where_it_is_just_above_the_smallest() -> None:
    toy = Toy.of(4)
    small = toy.costs.size_bytes(toy.costs.smallest(toy.space))
    limit = round(1.004 * small)
    aim = toy.aim(Budget(limit))
    flying = np.zeros((0, 4), np.intp)
    for seed in range(6):
        one = aim.propose(toy.records([]), flying, frozenset(), seed=seed, volume=False)
        assert one is None or toy.costs.size_bytes(one) <= limit


@pytest.mark.parametrize("seed", range(4))
def test_learning_beats_the_solver_alone_and_chance(seed: int) -> None:
    """60 trials each of a truth with hidden factors, in hypervolume of bytes and log KL."""
    toy = Toy.of(10, seed=seed)
    limit = toy.costs.size_bytes(toy.space.uniform(Level.of(0.0, 8)))
    aim = toy.aim(Budget(limit))
    ours = toy.area(aim, proposals(toy, aim, 60, seed))
    targets = np.linspace(aim.low_bytes, aim.high_bytes, 60)
    alone = {aim.problem.candidate(one) for one in sweep(aim.problem, targets, np.zeros(1))}
    chance = toy.area(aim, toy.random(60, seed, limit))
    solver = toy.area(aim, list(alone))
    ideal = sweep(toy.truth, targets, np.zeros(1))
    most = toy.area(aim, [aim.problem.candidate(one) for one in ideal])
    assert chance < solver < ours
    assert ours > solver + 0.3 * (most - solver)


@pytest.mark.parametrize("volume", [False, True])
def test_before_any_trial_proposals_lie_on_the_solvers_front(volume: bool) -> None:
    """Damage within a twentieth of the least at their size; then spread over the sizes."""
    toy = Toy.of(8)
    aim = toy.aim(Budget(toy.costs.size_bytes(toy.space.uniform(Level.of(0.0, 8)))))
    flying = np.zeros((0, 8), np.intp)
    for seed in range(4):
        one = aim.propose(toy.records([]), flying, frozenset(), seed=seed, volume=volume)
        assert one is not None
        best = solve(aim.problem, limit_bytes=toy.costs.size_bytes(one))
        assert best is not None
        assert toy.costs.damage(one) <= 1.05 * aim.problem.totals(best[None])[2][0]


@pytest.mark.parametrize("seed", range(2))
def test_with_latency_counted_more_of_the_volume_is_reached(seed: int) -> None:
    """In (bytes, milliseconds, log KL), after 15 trials each."""
    toy = Toy.of(8, seed=seed)
    aim = toy.aim()

    def volume(found: Sequence[Candidate]) -> float:
        size, ms, _ = aim.problem.totals(toy.records(found).chosen)
        x = (size - aim.low_bytes) / (aim.high_bytes - aim.low_bytes)
        y = (ms - aim.low_ms) / (aim.high_ms - aim.low_ms)
        points = np.stack([x, y, kl_scale(toy.records(found).kl)], 1)
        return float(covers(points, aim.lattice).any(0).mean())

    plane, whole = (volume(proposals(toy, aim, 15, volume=one)) for one in (False, True))
    assert plane < whole


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_a_limit_of_latency_is_kept_as_predicted_with_what_trials_taught(share: float) -> None:
    """Measured milliseconds are 1.5 times those predicted; after a trial that is known."""
    toy = Toy.of(5)
    plain = toy.aim()
    slow = 1.5
    limit = slow * (plain.low_ms + share * (plain.high_ms - plain.low_ms))
    aim = toy.aim(Budget(None, limit))
    known = toy.records([toy.space.untouched()])
    known = Records(known.chosen, known.kl, known.latency_ms * slow)
    seen: set[Candidate] = set()
    for seed in range(8):
        one = aim.propose(known, np.zeros((0, 5), np.intp), seen, seed=seed, volume=True)
        assert one is not None
        assert slow * toy.costs.latency_ms(one) <= limit
        seen.add(one)


# ---- as a sampler of a study --------------------------------------------------------------------


def repair_of(toy: Toy, limit: int | None) -> Repair:
    def repair(one: Candidate, seen: AbstractSet[Candidate], seed: int) -> Candidate:
        return repaired(one, seen, seed, space=toy.space, costs=toy.costs, limit_bytes=limit)

    return repair


def study_of(toy: Toy, path: Path, budget: Budget | None = None, *, seed: int = 0) -> Study:
    aim = toy.aim(budget)
    repair = repair_of(toy, aim.budget.size_bytes)
    return Study(path, toy.space, sampler=OURS, seed=seed, repair=repair, aim=aim)


def small_toy(units: int, ratios: Sequence[float], bits: Sequence[int]) -> Toy:
    space = SearchSpace(tuple(Choices(f"layer.{k}", tuple(ratios), storages_of(bits)) for k in range(units)))
    costs = costs_of(space)
    return Toy(space, costs, Problem.of(space, costs), 0.05)


@pytest.mark.parametrize("tight", [False, True])
def test_a_tiny_space_is_tried_out_completely_each_once_and_then_there_is_an_error(
    tight: bool, tmp_path: Path
) -> None:
    toy = small_toy(2, (0.0, 0.5), (4, 8, 32))
    every = [
        Candidate(tuple(zip((one.unit for one in toy.space.units), levels, strict=True)))
        for levels in itertools.product(*(tuple(one.levels()) for one in toy.space.units))
    ]
    limit = int(np.median([toy.costs.size_bytes(one) for one in every])) if tight else None
    study = study_of(toy, tmp_path / "study.db", Budget(limit))
    want = {one for one in every if limit is None or toy.costs.size_bytes(one) <= limit}
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
    assert len({one.candidate for one in asked}) == 8
    for one in asked[::-1]:
        study.tell(one.token, toy.trial(one.candidate))
    assert study.ask().candidate not in {one.candidate for one in asked}


def test_it_learns_from_untrained_trials_alone(tmp_path: Path) -> None:
    """Trained, failed and unmeasured trials leave the next proposal as it would be without them."""
    toy = Toy.of(5)
    base = toy.random(6, 3, 1e9)
    trials = [toy.trial(one) for one in base]
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
    untaught, taught = (aim.answer(one, Budget(limit)) for one in (toy.records([]), known))
    assert untaught is not None
    assert taught is not None
    best = solve(aim.problem, limit_bytes=limit)
    assert best is not None
    assert untaught == aim.problem.candidate(best)
    assert toy.costs.size_bytes(taught) <= limit
    assert toy.kl(taught) <= 1.05 * toy.kl(untaught)
    fast = aim.answer(known, Budget(limit, aim.low_ms * 1.3))
    assert fast is not None
    assert toy.costs.latency_ms(fast) <= aim.low_ms * 1.3
    assert aim.answer(known, Budget(10)) is None


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_no_proposal_is_over_the_latency_limit_to_the_last_that_is_within(
    share: float, tmp_path: Path
) -> None:
    toy = small_toy(2, (0.0, 0.5), (4, 8, 32))
    plain = toy.aim()
    limit = plain.low_ms + share * (plain.high_ms - plain.low_ms)
    every = itertools.product(*(tuple(one.levels()) for one in toy.space.units))
    units = [one.unit for one in toy.space.units]
    allowed = {Candidate(tuple(zip(units, levels, strict=True))) for levels in every}
    allowed = {one for one in allowed if toy.costs.latency_ms(one) <= limit}
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
    limit = plain.low_ms + share * (plain.high_ms - plain.low_ms)
    for seed in range(3):
        one = toy.aim(Budget(None, limit)).propose(
            toy.records([]), np.zeros((0, units), np.intp), frozenset(), seed=seed, volume=True
        )
        assert one is not None
        assert toy.costs.latency_ms(one) <= limit


def test_the_original_teaches_nothing_of_how_mild_levels_do() -> None:
    """It is predicted to do no damage; what is measured of it is the runtime's own rounding."""
    toy = Toy.of(5)
    tried = toy.random(30, 1, 1e9)
    known = toy.records(tried)
    original = Problem.of(toy.space, toy.costs).chosen(toy.space.untouched())[None]
    features = Features.of(Problem.of(toy.space, toy.costs))
    taught = Learned.of(features, np.concatenate([original, known.chosen]), np.append(1e-6, known.kl)).mean()
    np.testing.assert_array_equal(taught.weights, learned(toy, tried).mean().weights)
