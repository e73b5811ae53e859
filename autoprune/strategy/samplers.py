"""Samplers by name: our proposer and Optuna's samplers, and the adapter that lets Optuna ask a proposer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from autoprune.core.errors import AutopruneError
from autoprune.space.levels import Candidate, SearchSpace
from autoprune.strategy.aim import Aim
from autoprune.strategy.history import History
from autoprune.strategy.optuna_trials import candidate_of, distributions_of
from autoprune.strategy.proposer import HypervolumeProposer, Proposer, trial_seed

OURS = "autoprune"
"""Name of our own sampler: see `proposer`."""

SAMPLERS = (OURS, "tpe", "nsga2", "random", "gp")
"""Names a user may choose from."""

WARM_STARTS = 8
"""Candidates from the repair's ladders of sizes before one of Optuna's samplers is asked."""

POPULATION = 20
"""Trials in a generation of NSGA-II: Optuna's 50 would make two generations of a run of 100."""

STARTUP_TRIALS = 10
"""Trials at random before TPE and GP fit a model (Optuna's own default for both)."""

Repair = Callable[[Candidate, AbstractSet[Candidate], int], Candidate]
"""(proposed, seen, seed) -> a candidate within the budget that is not in `seen`."""


def check_sampler(name: str) -> None:
    """Raise `AutopruneError` for a sampler that does not exist or cannot run here."""
    if name not in SAMPLERS:
        raise AutopruneError(f"sampler {name!r} does not exist; choose {', '.join(SAMPLERS)}")
    if name == "gp":
        absent = [package for package in ("torch", "scipy") if importlib.util.find_spec(package) is None]
        if absent:
            raise AutopruneError(
                f"sampler 'gp' needs {' and '.join(absent)}: pip install {' '.join(absent)}, "
                "or choose another sampler"
            )


def make_proposer(
    name: str, *, space: SearchSpace, seed: int, repair: Repair, aim: Aim | None = None
) -> Proposer:
    """The proposer of a sampler's name. Ours needs the aim, Optuna's samplers the repair.

    Raises:
        AutopruneError: for a sampler that does not exist or cannot run here.
    """
    check_sampler(name)
    if name != OURS:
        return OptunaProposer(name, space=space, seed=seed, repair=repair)
    if aim is None:
        raise AutopruneError(f"sampler {OURS} needs predicted costs; none were given")
    return HypervolumeProposer(aim, seed)


class ProposerSampler(BaseSampler):
    """Adapter to Optuna: a trial gets all its parameters at once, those of a proposer's candidate.

    history: what the search knows of its past now.
    """

    def __init__(self, proposer: Proposer, *, space: SearchSpace, history: Callable[[], History]) -> None:
        self._proposer, self._space, self._history = proposer, space, history
        self._distributions = dict(distributions_of(space))

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if isinstance(self._proposer, OptunaProposer):
            self._proposer.begin_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        candidate = self._proposer.propose(self._history(), trial.number)
        self._space.check(candidate)  # Optuna would replace a wrong level without a word
        return dict(candidate.params())

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise RuntimeError(f"{param_name} was asked for outside of the search space")

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        if isinstance(self._proposer, OptunaProposer):
            self._proposer.end_trial(study, trial, state, values)


class OptunaProposer:
    """One of Optuna's samplers as a proposer, fresh for every trial; every proposal is repaired.

    The trial's parameters are the repaired ones, so a sampler learns from what was evaluated. What it needs
    beside the history is in the study of Optuna that `begin_trial` is given.
    """

    warm_starts = WARM_STARTS

    def __init__(self, name: str, *, space: SearchSpace, seed: int, repair: Repair) -> None:
        self._name, self._space, self._seed, self._repair = name, space, seed, repair
        self._distributions = distributions_of(space)
        free = {key: values for key, values in self._distributions.items() if not values.single()}
        # By name, as Optuna's own inference of the search space has it. Inferring it again from
        # all trials at each ask would find the same, since every trial has every parameter.
        self._free = dict(sorted(free.items()))
        self._asked: tuple[optuna.Study, FrozenTrial] | None = None

    def begin_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Take note of the trial that a proposal is for, or that is given its candidate."""
        inner = self._inner(trial.number)
        inner.before_trial(study, trial)
        if isinstance(inner, NSGAIISampler):
            _enter_generation(inner, study, trial)
        self._asked = study, trial

    def propose(self, history: History, number: int) -> Candidate:
        """What the sampler proposes for the trial that began last, repaired."""
        if self._asked is None or self._asked[1].number != number:
            raise RuntimeError(f"proposal {number} was asked for before its trial began")
        proposed = candidate_of(self._params(*self._asked), self._space)
        return self._repair(proposed, history.seen, trial_seed(self._seed, number, "repair"))

    def end_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Let the sampler note what it needs of a trial that ends."""
        self._inner(trial.number).after_trial(study, trial, state, values)

    def _inner(self, number: int) -> BaseSampler:
        return make_sampler(self._name, trial_seed(self._seed, number))

    def _params(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """All parameters: jointly where the inner sampler can, the others one by one."""
        inner = self._inner(trial.number)
        params = inner.sample_relative(study, trial, self._free) if self._free else {}
        for key, values in self._distributions.items():
            if values.single():
                params[key] = values.to_external_repr(0)
            elif key not in params:
                params[key] = inner.sample_independent(study, trial, key, values)
        return params


def make_sampler(name: str, seed: int) -> BaseSampler:
    """One of Optuna's samplers, fresh."""
    if name == "tpe":
        # Multivariate: one model for all units together, which is also five times as fast.
        # The constant liar keeps parallel workers apart.
        return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS)
    if name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=POPULATION)
    if name == "gp":
        return GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    return RandomSampler(seed=seed)


def _enter_generation(inner: NSGAIISampler, study: optuna.Study, trial: FrozenTrial) -> None:
    """Give a trial its generation and look up all parents once, oldest first.

    A trial whose parameters are given (a warm start) would otherwise belong to no generation.
    And `get_parent_population` returns the parents by rank where it selects them but by number
    where it finds them selected (`optuna/samplers/_ga/_base.py`); the list of those selected is
    kept in the study in memory alone. So without this the first trial after a resume, and the
    first of each generation, would see its parents in another order than those after it.
    """
    for generation in range(1, inner.get_trial_generation(study, trial) + 1):
        inner.get_parent_population(study, generation)
