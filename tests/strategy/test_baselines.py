"""Which baselines are trained as long as finalists."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as some

from autoprune.space.budget import Budget
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import Candidate, Choices, Level, SearchSpace
from autoprune.space.storage import storages_of
from autoprune.space.trial import ORIGINAL, Measurement, Trial
from autoprune.strategy.baselines import baselines, rivals
from autoprune.strategy.promotion import FINALISTS, WORTH_TRAINING_KL

BUDGET = Budget(size_bytes=1000)


def test_a_uniform_model_is_named_by_the_storage_that_it_has() -> None:
    for also, names in (("codebook4", {"uniform codebook4"}), (8, {"uniform 8-bit"}), (3, {"uniform 3-bit"})):
        levels = {Level(0.0, storage): Cost(10) for storage in storages_of((32, also))}
        space = SearchSpace((Choices("a", (0.0,), storages_of((32, also))),))
        assert baselines(space, Costs(0, {"a": levels}), BUDGET).keys() == {ORIGINAL, *names}


@some.composite
def some_trials(draw: some.DrawFn) -> list[Trial]:
    """The original, untrained baselines, and trials of all rungs, some of these candidates."""
    trials = [Trial(0, candidate(0), Measurement(4000, 9.0, 85.0, 0.0), name=ORIGINAL, rung=0)]
    for k in range(1, draw(some.integers(1, 8))):
        size, kl = draw(some.integers(500, 1500)), draw(some.sampled_from([0.0, 1e-4, 0.01, 0.1]))
        m = Measurement(size, 5.0, draw(some.integers(700, 860)) / 10, kl)
        plain = draw(some.booleans())
        rung = 0 if plain else draw(some.integers(0, 2))
        which = k if plain else draw(some.integers(1, 8))
        trials.append(Trial(k, candidate(which), m, name=f"uniform {k}" if plain else None, rung=rung))
    return trials


def candidate(k: int) -> Candidate:
    return Candidate((("a", Level.of(0.0, k or 32)),))


@hypothesis.given(some_trials())
@hypothesis.settings(deadline=None)
def test_they_are_the_most_accurate_in_the_budget_that_training_can_mend(trials: list[Trial]) -> None:
    chosen = rivals(trials, BUDGET)
    fit = [
        (trial.measurement.accuracy, trial)
        for trial in trials
        if trial.name not in (None, ORIGINAL) and trial.measurement is not None
        if trial.measurement.size_bytes <= 1000 and trial.measurement.kl > WORTH_TRAINING_KL
    ]
    long = {trial.candidate for trial in trials if trial.rung == 2}
    assert len(chosen) <= FINALISTS
    assert {trial.number for trial in chosen} <= {trial.number for _, trial in fit}
    assert not {trial.candidate for trial in chosen} & long
    for one in chosen:
        better = [trial for score, trial in fit if one.measurement and score > one.measurement.accuracy]
        assert len(better) < FINALISTS
    if fit and not long:
        assert len(chosen) == min(len(fit), FINALISTS)


@hypothesis.given(some_trials(), some.integers(1, 7))
@hypothesis.settings(deadline=None)
def test_a_baseline_that_was_asked_for_is_trained_wherever_it_ranks(trials: list[Trial], k: int) -> None:
    plain, asked = rivals(trials, BUDGET), rivals(trials, BUDGET, asked={f"uniform {k}"})
    assert [trial for trial in asked if trial in plain] == plain
    assert {trial.name for trial in asked if trial not in plain} <= {f"uniform {k}"}
    fit = [
        trial
        for trial in trials
        if trial.name == f"uniform {k}" and trial.measurement is not None
        if trial.measurement.size_bytes <= 1000 and trial.measurement.kl > WORTH_TRAINING_KL
        if trial.candidate not in {other.candidate for other in trials if other.rung == 2}
    ]
    assert all(trial in asked for trial in fit)


@hypothesis.given(some_trials())
@hypothesis.settings(deadline=None)
def test_once_trained_none_is_left_however_they_came_out(trials: list[Trial]) -> None:
    for trial in rivals(trials, BUDGET):
        trials = [*trials, Trial(len(trials), trial.candidate, failure="no memory", name="x", rung=2)]
    assert rivals(trials, BUDGET) == []
