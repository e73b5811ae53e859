"""Trials as Optuna stores them, and back. No torch."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, get_type_hints

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune.core.value_types import has_type
from autoprune.space.levels import Candidate, Choices, Level, SearchSpace
from autoprune.space.trial import Measurement, Trial

OBJECTIVES = ("size_bytes", "latency_ms", "accuracy")
"""Values of a trial."""

DIRECTIONS = [StudyDirection.MINIMIZE, StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]
"""Of the objectives, in their order."""

_TRIAL_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(Trial)
    if field.name not in ("number", "candidate", "measurement")
)
_EXTRA_FIELDS = tuple(field.name for field in dataclasses.fields(Measurement) if field.name not in OBJECTIVES)


@lru_cache(maxsize=8)
def distributions_of(space: SearchSpace) -> Mapping[str, BaseDistribution]:
    """Parameters of a trial as Optuna describes them, in the order of `Candidate.params`."""
    pairs: dict[str, BaseDistribution] = {}
    for choices in space.units:
        ratios = tuple(float(ratio) for ratio in choices.ratios)
        pairs[f"{choices.unit}.ratio"] = CategoricalDistribution(ratios)
        pairs[f"{choices.unit}.bits"] = CategoricalDistribution(written_storages(choices))
    return pairs


def written_storages(choices: Choices) -> tuple[int | str, ...]:
    """A unit's storages as a study holds them, the narrowest first."""
    return tuple(storage.written for storage in reversed(choices.storages))


def candidate_of(params: Mapping[str, Any], space: SearchSpace) -> Candidate:
    """The candidate of a trial's parameters, whatever their order."""
    items = []
    for unit, levels in _levels_of(space):
        pair = params[f"{unit}.ratio"], params[f"{unit}.bits"]
        known = levels.get(pair)
        items.append((unit, Level.of(float(pair[0]), pair[1])) if known is None else known)
    return Candidate(tuple(items))


@lru_cache(maxsize=8)
def _levels_of(space: SearchSpace) -> list[tuple[str, dict[tuple[Any, Any], tuple[str, Level]]]]:
    """Each unit with its levels by ratio and storage as a study holds them; candidates share these."""
    return [
        (unit.unit, {(level.ratio, level.storage.written): (unit.unit, level) for level in unit.levels()})
        for unit in space.units
    ]


def freeze(trial: Trial, space: SearchSpace) -> FrozenTrial:
    """The trial as Optuna stores it; values without a column of their own go to `user_attrs`.

    Where the size or the latency of a measurement is not above zero, or an objective is not a finite
    number, the trial is stored as failed, with the reason: Optuna would keep an infinite value as good, and
    store NaN as a failure without a reason.
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
        distributions=dict(distributions_of(space)),
        user_attrs=notes,
    )
    frozen.datetime_start = datetime.now() - timedelta(seconds=max(0.0, trial.seconds))
    return frozen


def inherit(frozen: FrozenTrial, asked: FrozenTrial) -> None:
    """Copy to a trial what only the asked trial knows: its start, and its generation.

    The generation is all that a sampler must find again after a resume. TPE and GP note the proposal of a
    running trial, which others shall avoid; that ends with the trial.
    """
    frozen.datetime_start = asked.datetime_start
    frozen.system_attrs = {
        key: value for key, value in asked.system_attrs.items() if key.endswith(":generation")
    }


def accuracy_key(number: int) -> str:
    """Key of a trial's test accuracy, known after the trial ended, in the study's attributes."""
    return f"test_accuracy:{number}"


def latency_key(number: int) -> str:
    """Key of a trial's milliseconds, timed again after the trial ended, in the study's attributes."""
    return f"latency:{number}"


def thaw(frozen: FrozenTrial, space: SearchSpace, later: Mapping[str, Any]) -> Trial:
    """The trial that was stored (inverse of `freeze`).

    later: the study's attributes; scores that were noted after the trial ended take the place of its own.

    Raises:
        ValueError, KeyError, TypeError: for what `freeze` does not write.
    """
    notes = {key: value for key, value in frozen.user_attrs.items() if value is not None}
    wrong = [key for key, kind in _kinds() if not has_type(notes.get(key), kind)]
    wrong += [
        name for name, x in zip(OBJECTIVES, frozen.values or (), strict=False) if not has_type(x, float)
    ]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} of trial {frozen.number} cannot be read")
    if accuracy_key(frozen.number) in later:
        notes["test_accuracy"] = later[accuracy_key(frozen.number)]
    measurement = None
    if frozen.state == TrialState.COMPLETE:
        size, latency, accuracy = frozen.values
        extra = {key: notes[key] for key in _EXTRA_FIELDS if key in notes}
        measurement = Measurement(int(size), latency, accuracy, **extra)
        measurement = dataclasses.replace(measurement, **later.get(latency_key(frozen.number), {}))
    return Trial(
        frozen.number,
        candidate_of(frozen.params, space),
        measurement,
        **{key: notes[key] for key in _TRIAL_FIELDS if key in notes},
    )


@lru_cache(maxsize=1)
def _kinds() -> list[tuple[str, Any]]:
    """The type of each note, or None where there is none."""
    kinds = get_type_hints(Trial) | get_type_hints(Measurement)
    return [(key, kinds[key] | None) for key in _TRIAL_FIELDS + _EXTRA_FIELDS]


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
        pairs = {str(key): _plain(inner) for key, inner in value.items()}
        return {key: inner for key, inner in pairs.items() if inner is not None}
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return value
