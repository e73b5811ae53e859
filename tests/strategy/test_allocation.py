"""Rules of allocation: what each unit loses by a rule, and which model of a rule is taken."""

from __future__ import annotations

import itertools

import hypothesis
import hypothesis.strategies as some
import numpy as np
import pytest

from autoprune.core.errors import AutopruneError
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate, Choices, Level, SearchSpace
from autoprune.space.storage import storages_of
from autoprune.strategy.allocation import (
    ALLOCATIONS,
    Removable,
    allocated,
    check_allocations,
    erdos_renyi_kernel,
    global_threshold,
    uniform,
)
from autoprune.strategy.baselines import uniform_pruning
from tests.support.toy_search import costs_of, space_of

quick = hypothesis.settings(deadline=None, max_examples=40)
SPACE = space_of(4)
COSTS = costs_of(SPACE)


def units_of(seed: int, count: int = 4) -> dict[str, Removable]:
    rng = np.random.default_rng(seed)
    out = {}
    for k in range(count):
        size = int(rng.integers(2, 40))
        shapes = tuple((int(o), int(i), int(t)) for o, i, t in rng.integers(1, 99, (2, 3)))
        out[f"layer.{k}"] = Removable(rng.gamma(1.0, 10.0**k, size).astype(np.float32) + 1e-6, shapes)
    return out


def test_names_that_no_rule_has_are_refused_with_those_that_exist() -> None:
    check_allocations(tuple(ALLOCATIONS))
    with pytest.raises(AutopruneError, match="'lamp' does not exist; choose uniform, global-threshold, erk"):
        check_allocations(("erk", "lamp"))


@quick
@hypothesis.given(some.integers(0, 999))
def test_a_ladder_takes_more_at_every_rung(seed: int) -> None:
    units = units_of(seed)
    for rule in ALLOCATIONS.values():
        rungs = [np.array([shares[name] for name in units]) for shares in rule(units)]
        assert all(((rung >= 0) & (rung <= 1)).all() for rung in rungs)
        assert all((later >= sooner).all() for sooner, later in itertools.pairwise(rungs))
        assert rungs[0].min() <= 0.05
        assert rungs[-1].max() >= 0.9


@quick
@hypothesis.given(some.integers(0, 999))
def test_a_threshold_takes_the_pieces_below_it_of_all_units(seed: int) -> None:
    units = units_of(seed)
    pooled = sorted(
        (score / unit.scores.mean(), name) for name, unit in units.items() for score in unit.scores
    )
    for shares in global_threshold(units):
        gone = {name: round(shares[name] * len(unit.scores)) for name, unit in units.items()}
        first = [name for _, name in pooled[: sum(gone.values())]]
        assert gone == {name: first.count(name) for name in units}


def test_a_unit_whose_scores_are_all_larger_by_a_factor_loses_as_much() -> None:
    scores = np.random.default_rng(0).random(50).astype(np.float32)
    units = {"a": Removable(scores, ((8, 8, 0),)), "b": Removable(1000 * scores, ((8, 8, 0),))}
    assert all(shares["a"] == pytest.approx(shares["b"], abs=0.03) for shares in global_threshold(units))


@quick
@hypothesis.given(some.integers(0, 999))
def test_erk_keeps_shares_in_proportion_to_sides_over_products(seed: int) -> None:
    units = units_of(seed)
    raw = {
        name: sum(o + i + 2 * t**0.5 for o, i, t in unit.shapes) / sum(o * i * t for o, i, t in unit.shapes)
        for name, unit in units.items()
    }
    for shares in erdos_renyi_kernel(units):
        kept = {name: 1 - share for name, share in shares.items()}
        free = [name for name in units if 0 < kept[name] < 1 - 1e-9]
        ratios = [kept[name] / raw[name] for name in free]
        assert ratios == pytest.approx([ratios[0]] * len(ratios)) if ratios else True
        whole = [raw[name] for name in units if kept[name] >= 1 - 1e-9]
        assert not whole or not free or min(whole) >= max(raw[name] for name in free) - 1e-12


@quick
@hypothesis.given(seed=some.integers(0, 999), share=some.floats(0.05, 1.0))
def test_the_model_of_a_rule_fits_is_stored_alike_and_harms_least_of_its_ladder(
    seed: int, share: float
) -> None:
    units = units_of(seed)
    budget = Budget(round(share * COSTS.size_bytes(SPACE.untouched())))
    for rule, ladder in ALLOCATIONS.items():
        chosen = allocated(rule, units, SPACE, COSTS, budget)
        every = [
            Candidate(tuple((u.unit, u.nearest(Level(shares[u.unit], storage))) for u in SPACE.units))
            for shares in ladder(units)
            for storage in storages_of((3, 4, 8, 32))
        ]
        fit = [
            COSTS.damage(candidate)
            for candidate in every
            if COSTS.size_bytes(candidate) <= (budget.size_bytes or 0)
            and any(level.ratio > 0 for _, level in candidate.items)
        ]
        if chosen is None:
            assert not fit
            continue
        assert COSTS.damage(chosen) == min(fit)
        assert len({level.storage for _, level in chosen.items}) == 1


def test_the_uniform_rule_finds_what_uniform_pruning_does() -> None:
    units = units_of(0)
    for limit in (2000, 5000, 9000):
        budget = Budget(limit)
        ours, theirs = (
            allocated("uniform", units, SPACE, COSTS, budget),
            uniform_pruning(SPACE, COSTS, budget),
        )
        assert ours == theirs


def test_units_that_no_rule_knows_keep_their_rows() -> None:
    words = Choices("words", (0.0, 0.25, 0.5), storages_of((4, 32)))
    space = SearchSpace((*space_of(2).units, words))
    costs = costs_of(space)
    for rule in ALLOCATIONS:
        chosen = allocated(
            rule, units_of(1, 2), space, costs, Budget(costs.size_bytes(space.untouched()) // 4)
        )
        assert chosen is not None
        assert chosen["words"].ratio == 0.0


def test_nothing_to_remove_is_no_model() -> None:
    assert all(list(rule({})) == [] or rule is uniform for rule in ALLOCATIONS.values())
    for rule in ALLOCATIONS:
        assert allocated(rule, {}, SPACE, COSTS, Budget()) is None
