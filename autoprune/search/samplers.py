"""Our own sampler and Optuna's: what is tried next. No torch.

A sampler here has no memory: a proposal depends on the trials before it, its number and the run's
seed alone (Optuna's are made anew for every trial), and a run that was cut and resumed goes on as if
it had not been.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from autoprune.core.errors import AutopruneError, ExhaustedError
from autoprune.search.optuna_trials import candidate_of, distributions_of
from autoprune.search.proposer import Aim, Records
from autoprune.space.levels import Candidate, SearchSpace
from autoprune.space.trial import Trial

OURS = "autoprune"
"""Our own sampler: see `aim`."""

SAMPLERS = (OURS, "tpe", "nsga2", "random", "gp")
"""Names a user may choose from."""

VOLUME_EVERY = 3
"""Of so many proposals of ours one aims at latency as well: on simulated fronts that costs 0.1 % of the
hypervolume in (bytes, log KL) and brings 5 % of that with latency."""

POPULATION = 20
"""Trials in a generation of NSGA-II: Optuna's 50 would make two generations of a run of 100."""

STARTUP_TRIALS = 10
"""Trials at random before TPE and GP fit a model (Optuna's own default for both)."""

Repair = Callable[[Candidate, AbstractSet[Candidate], int], Candidate]
"""(proposed, seen, seed) -> a candidate within the budget that is not in `seen`."""


def trial_seed(seed: int, number: int, purpose: str = "sampler") -> int:
    """Seed of one trial: 32 bits, as many as NumPy's `RandomState` takes.

    >>> trial_seed(0, 1) == trial_seed(0, 1), trial_seed(0, 1) == trial_seed(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(f"{seed}:{number}:{purpose}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def check_sampler(name: str) -> None:
    """Raise `AutopruneError` for a sampler that does not exist or cannot run here."""
    if name not in SAMPLERS:
        raise AutopruneError(f"sampler {name!r} does not exist; choose {', '.join(SAMPLERS)}")
    if name == "gp":
        absent = [one for one in ("torch", "scipy") if importlib.util.find_spec(one) is None]
        if absent:
            raise AutopruneError(
                f"sampler 'gp' needs {' and '.join(absent)}: pip install {' '.join(absent)}, "
                "or choose another sampler"
            )


def make_sampler(name: str, seed: int) -> BaseSampler:
    """One of Optuna's samplers, fresh."""
    if name == "tpe":
        # Multivariate: one model for all units together; also five times as fast (STACK.md).
        # The constant liar keeps parallel workers apart.
        return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=STARTUP_TRIALS)
    if name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=POPULATION)
    if name == "gp":
        return GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    return RandomSampler(seed=seed)


class RepairedSampler(BaseSampler):
    """One of Optuna's samplers with every proposal repaired before the trial records it.

    The trial's parameters are the repaired ones, so a sampler learns from what was evaluated.
    `seen` is read, never written: all candidates that are finished or in flight.
    """

    def __init__(
        self,
        name: str,
        *,
        space: SearchSpace,
        seed: int,
        repair: Repair,
        seen: AbstractSet[Candidate],
    ) -> None:
        check_sampler(name)
        self._name, self._space, self._seed = name, space, seed
        self._repair, self._seen = repair, seen
        self._distributions = distributions_of(space)
        free = {key: one for key, one in self._distributions.items() if not one.single()}
        # By name, as Optuna's own inference of the search space has it. Inferring it again from
        # all trials at each ask would find the same, since every trial has every parameter.
        self._free = dict(sorted(free.items()))

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        inner = self._inner(trial)
        inner.before_trial(study, trial)
        if isinstance(inner, NSGAIISampler):
            _enter_generation(inner, study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        proposed = candidate_of(self._propose(study, trial), self._space)
        seed = trial_seed(self._seed, trial.number, "repair")
        repaired = self._repair(proposed, self._seen, seed)
        self._space.check(repaired)  # Optuna would replace a wrong level without a word
        return dict(repaired.params())

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
        self._inner(trial).after_trial(study, trial, state, values)

    def _inner(self, trial: FrozenTrial) -> BaseSampler:
        return make_sampler(self._name, trial_seed(self._seed, trial.number))

    def _propose(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """All parameters: jointly where the inner sampler can, the others one by one."""
        inner = self._inner(trial)
        params = inner.sample_relative(study, trial, self._free) if self._free else {}
        for key, one in self._distributions.items():
            if one.single():
                params[key] = one.to_external_repr(0)
            elif key not in params:
                params[key] = inner.sample_independent(study, trial, key, one)
        return params


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


class AimedSampler(BaseSampler):
    """Our own: the proposal that should add most to the front, by what finished trials taught.

    history: all finished trials, in order of number; flying: candidates in flight. Both are read at
    each proposal, never written, as is `seen`.
    """

    def __init__(
        self,
        *,
        space: SearchSpace,
        aim: Aim,
        seed: int,
        seen: AbstractSet[Candidate],
        history: Sequence[Trial],
        flying: Mapping[int, Candidate],
    ) -> None:
        self._space, self._aim, self._seed = space, aim, seed
        self._seen, self._history, self._flying = seen, history, flying
        self._distributions = distributions_of(space)
        self._known = Records.of(aim.problem, [])
        self._read, self._finished = 0, set[Candidate]()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        seed = trial_seed(self._seed, trial.number)
        problem = self._aim.problem
        records = self._records()
        flying = [problem.chosen(one) for one in self._flying.values() if one not in self._finished]
        units = len(problem.units)
        # Most trials go to what is asked for, size against divergence; with a limit of latency, all
        # count milliseconds too.
        found = self._aim.propose(
            records,
            np.reshape(flying, (-1, units)).astype(np.intp),
            self._seen,
            seed=seed,
            volume=self._aim.budget.latency_ms is not None or trial.number % VOLUME_EVERY == VOLUME_EVERY - 1,
        )
        if found is None:  # nearly all that is within the budget was tried
            found = self._aim.left(records, self._seen, seed)
        if found is None:
            raise ExhaustedError("no candidate of this search space is left to try within the budget")
        self._space.check(found)  # Optuna would replace a wrong level without a word
        return dict(found.params())

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise RuntimeError(f"{param_name} was asked for outside of the search space")

    def _records(self) -> Records:
        """What trials taught so far; those that were read before are not read again."""
        if self._read < len(self._history):
            more = Records.of(self._aim.problem, self._history[self._read :])
            self._known = self._known.joined(more)
            self._finished.update(one.candidate for one in self._history[self._read :])
            self._read = len(self._history)
        return self._known
