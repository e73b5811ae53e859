"""Surrogate model of divergence: factors that are known, and the regression in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from autoprune.space.levels import Candidate
from autoprune.strategy.records import MOST_TRIALS
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.surrogates.damage_model import KL_NOISE, DamageModel, Features, Posterior
from tests.support.toy_search import Toy


def learned(toy: Toy, candidates: Sequence[Candidate]) -> Posterior:
    known = toy.records(candidates)
    return Posterior.of(Features.of(Problem.of(toy.space, toy.costs)), known.chosen, known.kl)


def error(one: DamageModel, toy: Toy, new: Sequence[Candidate]) -> float:
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
    np.testing.assert_allclose(prior.table(), problem.damage)
    chosen = toy.records(toy.random(20, 0, 1e9)).chosen
    np.testing.assert_allclose(prior.kl(chosen), problem.totals(chosen).damage)


def test_a_prediction_is_the_sum_times_what_the_features_weigh() -> None:
    """The fast way through the units against the rows that the regression is made of."""
    toy = Toy.of(5)
    features = Features.of(Problem.of(toy.space, toy.costs))
    chosen = toy.records(toy.random(20, 0, 1e9)).chosen
    rows, predicted = features.rows(chosen)
    weights = np.random.default_rng(0).uniform(-0.1, 0.1, len(features.scales))
    np.testing.assert_allclose(DamageModel(features, weights).kl(chosen), predicted * np.exp(rows @ weights))
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
    share = plain.truth.damage[unit][new.chosen[:, unit]] / plain.truth.totals(new.chosen).damage
    heavy = share > 0.4
    wrong = np.log(taught.kl(new.chosen) / new.kl)[heavy]
    before = np.log(plain.truth.totals(new.chosen).damage / new.kl)[heavy]
    assert abs(np.median(wrong)) < 0.05
    assert np.sqrt(np.mean(wrong**2)) < 0.1
    assert factor == 1 or abs(np.median(before)) > 0.3
    # What the solver is told, next to the other units: drawn to one, as priors do.
    felt = np.where(plain.truth.damage > 1e-3, taught.table() / np.maximum(plain.truth.damage, 1e-9), np.nan)
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
    taught = Posterior.of(features, chosen[:20], measured[:20]).mean()
    assert np.sqrt(np.mean(np.log(taught.kl(chosen[20:]) / measured[20:]) ** 2)) < 0.1


def test_the_posterior_is_that_of_the_weights_in_closed_form() -> None:
    """The dual form against ridge regression's: precision S^-2 + R'R / noise^2."""
    toy = Toy.of(3)
    one = learned(toy, toy.random(40, 1, 1e9))
    precision = np.diag(one.features.scales**-2) + one.rows.T @ one.rows / KL_NOISE**2
    mean = np.linalg.solve(precision, one.rows.T @ one.target / KL_NOISE**2)
    np.testing.assert_allclose(one.mean().weights, mean, atol=1e-6)


def test_bad_measurements_teach_nothing_and_only_the_latest_are_learned_from() -> None:
    toy = Toy.of(3)
    problem = Problem.of(toy.space, toy.costs)
    features = Features.of(problem)
    chosen = toy.records(toy.random(6, 1, 1e9)).chosen
    bad = np.array([np.nan, np.inf, 0.0, -1.0, np.nan, 0.0])
    np.testing.assert_allclose(Posterior.of(features, chosen, bad).mean().table(), problem.damage)
    many = np.random.default_rng(0).integers(16, size=(MOST_TRIALS + 50, 3))
    kl = np.maximum(problem.totals(many).damage, 1e-6)
    assert len(Posterior.of(features, many, kl).target) == MOST_TRIALS
    strange = np.where(np.arange(len(kl)) < 50, 1.0, kl)
    np.testing.assert_array_equal(
        Posterior.of(features, many, strange).mean().weights, Posterior.of(features, many, kl).mean().weights
    )
    assert np.isfinite(Posterior.of(features, many, kl * 1e-9).mean().kl(many)).all()


def test_the_original_teaches_nothing_of_how_mild_levels_do() -> None:
    """It is predicted to do no damage; what is measured of it is the runtime's own rounding."""
    toy = Toy.of(5)
    tried = toy.random(30, 1, 1e9)
    known = toy.records(tried)
    original = Problem.of(toy.space, toy.costs).chosen(toy.space.untouched())[None]
    features = Features.of(Problem.of(toy.space, toy.costs))
    taught = Posterior.of(
        features, np.concatenate([original, known.chosen]), np.append(1e-6, known.kl)
    ).mean()
    np.testing.assert_array_equal(taught.weights, learned(toy, tried).mean().weights)
