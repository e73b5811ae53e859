"""Optuna's samplers, every proposal repaired, and our trials as Optuna stores them. No torch.

A sampler here has no memory: for every trial one of Optuna's samplers is made anew with a seed
from (run seed, trial number). A proposal so depends on the trials before it, its number and the
run's seed alone, and a run that was cut and resumed goes on as if it had not been.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune import front
from autoprune.errors import AutopruneError
from autoprune.front import Measurement, Trial
from autoprune.space import Candidate, SearchSpace

SAMPLERS = ("tpe", "nsga2", "random", "gp")
"""Names a user may choose from."""

POPULATION = 20
"""Trials in a generation of NSGA-II: Optuna's 50 would make two generations of a run of 100."""

STARTUP_TRIALS = 10
"""Trials at random before TPE and GP fit a model (Optuna's own default for both)."""

DIRECTIONS = [StudyDirection[one.upper()] for one in front.DIRECTIONS]
"""As Optuna types them."""

OBJECTIVES = ("size_bytes", "latency_ms", "accuracy")
"""A trial's values, in the order of `front.DIRECTIONS`."""

_TRIAL_FIELDS = tuple(
    one.name for one in dataclasses.fields(Trial) if one.name not in ("number", "candidate", "measurement")
)
_EXTRA_FIELDS = tuple(one.name for one in dataclasses.fields(Measurement) if one.name not in OBJECTIVES)

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


# ---- a trial as Optuna stores it ----------------------------------------------------------------


def distributions_of(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Parameters of a trial as Optuna describes them, in the order of `Candidate.params`."""
    pairs: dict[str, BaseDistribution] = {}
    for one in space.units:
        ratios = tuple(float(ratio) for ratio in one.ratios)
        pairs[f"{one.unit}.ratio"] = CategoricalDistribution(ratios)
        pairs[f"{one.unit}.bits"] = CategoricalDistribution(tuple(int(b) for b in one.bits))
    return pairs


def candidate_of(params: Mapping[str, Any], space: SearchSpace) -> Candidate:
    """The candidate of a trial's parameters, whatever their order."""
    keys = [f"{one.unit}.{part}" for one in space.units for part in ("ratio", "bits")]
    return Candidate.from_params({key: params[key] for key in keys})


def freeze(trial: Trial, space: SearchSpace) -> FrozenTrial:
    """The trial as Optuna stores it; what has no column of its own goes to `user_attrs`.

    A measurement whose size or latency is not above zero, or any objective of which is not a
    finite number, makes a failed trial that says so: Optuna would keep an infinite value as good
    and fail NaN without a cause.
    """
    fault = _fault(trial)
    done = trial.measurement if fault is None else None
    trial = dataclasses.replace(trial, failure=fault)
    notes = {key: _plain(getattr(trial, key)) for key in _TRIAL_FIELDS}
    if done is not None:
        notes |= {key: _plain(getattr(done, key)) for key in _EXTRA_FIELDS}
    frozen = create_trial(
        state=TrialState.FAIL if done is None else TrialState.COMPLETE,
        values=None if done is None else done.objectives(),
        params=dict(trial.candidate.params()),
        distributions=distributions_of(space),
        user_attrs=notes,
    )
    frozen.datetime_start = datetime.now() - timedelta(seconds=max(0.0, trial.seconds))
    return frozen


def inherit(frozen: FrozenTrial, asked: FrozenTrial) -> None:
    """Give a trial to store what only the asked one knows: its start, and its generation.

    The generation is all that a sampler must find again after a resume. What TPE and GP note of a
    running trial, the proposal that others shall avoid, ends with it.
    """
    frozen.datetime_start = asked.datetime_start
    frozen.system_attrs = {key: one for key, one in asked.system_attrs.items() if key.endswith(":generation")}


def accuracy_key(number: int) -> str:
    """Under which the study's attributes keep a trial's test accuracy, known after it ended."""
    return f"test_accuracy:{number}"


def thaw(frozen: FrozenTrial, space: SearchSpace, later: Mapping[str, Any]) -> Trial:
    """The trial that was stored (inverse of `freeze`), with what `later` has of it."""
    notes = {key: one for key, one in frozen.user_attrs.items() if one is not None}
    if accuracy_key(frozen.number) in later:
        notes["test_accuracy"] = later[accuracy_key(frozen.number)]
    measurement = None
    if frozen.state == TrialState.COMPLETE:
        size, latency, accuracy = frozen.values
        extra = {key: notes[key] for key in _EXTRA_FIELDS if key in notes}
        measurement = Measurement(int(size), latency, accuracy, **extra)
    return Trial(
        frozen.number,
        candidate_of(frozen.params, space),
        measurement,
        **{key: notes[key] for key in _TRIAL_FIELDS if key in notes},
    )


def _fault(trial: Trial) -> str | None:
    """Why a trial failed, or None."""
    if trial.failure is not None or trial.measurement is None:
        return trial.failure or "no measurement"
    for key in OBJECTIVES:
        value = getattr(trial.measurement, key)
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            return f"{key} is {value!r}, not a finite number"
        if key != "accuracy" and value <= 0:
            return f"{key} is {value!r}, not above zero"
    return None


def _plain(value: Any) -> Any:
    """As JSON has it: NumPy's numbers as Python's, None for what is not finite."""
    if isinstance(value, Mapping):
        pairs = {str(key): _plain(one) for key, one in value.items()}
        return {key: one for key, one in pairs.items() if one is not None}
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return value
