"""The record of a search and what to try next: an Optuna study, asked in memory, kept on disk.

A study in memory is asked; each *finished* trial is written to `study.db` in one transaction, so
a kill loses no told trial and leaves none RUNNING (Optuna's own `ask` commits once a parameter,
and nothing cleans up after a killed driver). One writer. No torch, unless the sampler is `gp`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from autoprune.core.errors import AutopruneError, ExhaustedError, StoppedError
from autoprune.search import optuna_trials
from autoprune.search.proposer import Aim
from autoprune.search.samplers import OURS, SAMPLERS, AimedSampler, Repair, RepairedSampler, check_sampler
from autoprune.search.study_database import (
    OPENING_ERRORS,
    _check_file,
    _connect,
    check_space,
    database_url,
    unreadable,
    unwritable,
)
from autoprune.space.levels import Candidate, SearchSpace
from autoprune.space.trial import Trial

__all__ = ["SAMPLERS", "Asked", "Study"]


@dataclass(frozen=True)
class Asked:
    """A candidate to evaluate; `token` goes back with its result."""

    token: int
    candidate: Candidate


class Study:
    """Ask for candidates, tell what they gave, read all of it back.

    path: the SQLite file, made if absent. storage: a database URL instead of it. name: which
    study of that database. expect: that this study is not there yet ("absent"), is there ("present"), or
    may be ("either"). repair: see `samplers.Repair`. aim: what our own sampler needs.

    Raises:
        AutopruneError: for a sampler that does not exist or cannot run, a database that is damaged, cannot
            be opened or is not Optuna's, a study that is there or absent against what is expected, or one of
            another search space.
    """

    def __init__(
        self,
        path: Path,
        space: SearchSpace,
        *,
        sampler: str,
        seed: int,
        repair: Repair,
        storage: str | None = None,
        name: str = "autoprune",
        expect: Literal["absent", "present", "either"] = "either",
        aim: Aim | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._distributions = space, optuna_trials.distributions_of(space)
        self._seen: set[Candidate] = set()
        self._open: dict[int, Candidate] = {}
        self._history: list[Trial] = []
        self._scores: dict[int, float] = {}
        self._times: dict[int, dict[str, Any]] = {}
        own = self._sampler(sampler, seed, repair, aim)
        url, self._where = database_url(path, storage)
        try:
            self._kept = _storage(url, self._where)
            self._durable = _study(self._kept, name, self._where, expect)
            check_space(self._durable, space, self._where)
            finished = self._finished()
        except OPENING_ERRORS as error:
            raise AutopruneError(unreadable(url, self._where, error)) from error
        self._memory = optuna.create_study(
            directions=optuna_trials.DIRECTIONS, sampler=own, pruner=optuna.pruners.NopPruner()
        )
        self._memory.add_trials(finished)
        self._history += [optuna_trials.thaw(one, space, self._durable.user_attrs) for one in finished]
        self._times = {
            one.number: dict(self._durable.user_attrs[key])
            for one in self._history
            if (key := optuna_trials.latency_key(one.number)) in self._durable.user_attrs
        }
        self._seen.update(one.candidate for one in self._history)

    def _sampler(self, name: str, seed: int, repair: Repair, aim: Aim | None) -> BaseSampler:
        """The sampler by name; it looks at what the study knows and never changes it."""
        check_sampler(name)
        if name != OURS:
            return RepairedSampler(name, space=self._space, seed=seed, repair=repair, seen=self._seen)
        if aim is None:
            raise AutopruneError(f"sampler {OURS} needs predicted costs; none were given")
        return AimedSampler(
            space=self._space, aim=aim, seed=seed, seen=self._seen, history=self._history, flying=self._open
        )

    def ask(self, candidate: Candidate | None = None) -> Asked:
        """The next candidate, or the given one (a warm start), which may have been tried before.

        Raises:
            ExhaustedError: where none is left to try.
            AutopruneError: where the given candidate is not of this space, or as `repair` raises.
        """
        if candidate is not None:
            self._space.check(candidate)
            self._memory.enqueue_trial(dict(candidate.params()))
        try:
            trial = self._memory.ask(self._distributions)
            found = optuna_trials.candidate_of(trial.params, self._space)
            if candidate is None and found in self._seen:
                raise ExhaustedError("no candidate of this search space is left to try")
        except AutopruneError:
            last = len(self._memory.get_trials(deepcopy=False)) - 1
            self._memory.tell(last, state=TrialState.FAIL)
            raise
        self._seen.add(found)
        self._open[trial.number] = found
        return Asked(trial.number, found)

    def tell(self, token: int, trial: Trial) -> Trial:
        """Record the result of an asked candidate, on disk before in memory.

        A measurement whose size or latency is not above zero, or any objective of which is not a
        finite number, is recorded as a failure that says so.

        Returns:
            The trial as recorded, its number that in the database: the order of finishing.

        Raises:
            AutopruneError: for a token that is not in flight, or another candidate than asked.
            StoppedError: where the disk takes no more; the token stays in flight.
        """
        if token not in self._open:
            raise AutopruneError(f"token {token} is not in flight; in flight: {list(self._open)}")
        if trial.candidate != self._open[token]:
            raise AutopruneError(f"token {token} was asked with another candidate than told")
        asked = self._memory.get_trials(deepcopy=False)[token]
        stored = optuna_trials.freeze(trial, self._space)
        optuna_trials.inherit(stored, asked)
        done = self._write(stored)
        self._memory.tell(token, stored.values, stored.state)
        del self._open[token]
        return done

    def add(self, trial: Trial) -> Trial:
        """Record a trial that was not asked for, such as a baseline; otherwise as `tell`.

        Samplers learn from it, except that it belongs to no generation of NSGA-II.
        """
        self._space.check(trial.candidate)
        stored = optuna_trials.freeze(trial, self._space)
        done = self._write(stored)
        self._memory.add_trial(stored)
        self._seen.add(trial.candidate)
        return done

    def update(self, number: int, *, test_accuracy: float) -> None:
        """Note the accuracy on the test split, in percent, of a finished trial.

        Optuna's finished trials cannot be changed, so it stands in the study's attributes.

        Raises:
            AutopruneError: where no trial has this number, or the accuracy is not finite.
        """
        if not math.isfinite(test_accuracy):
            raise AutopruneError(f"test accuracy of trial {number} is {test_accuracy}")
        self._note(number, optuna_trials.accuracy_key(number), float(test_accuracy))
        self._scores[number] = float(test_accuracy)

    def retime(self, number: int, times: Mapping[str, float]) -> None:
        """Note what a finished trial took when it was timed again, by the names of a `Measurement`'s fields.

        Raises:
            AutopruneError: where no trial has this number, or a time is not above zero.
        """
        if not all(math.isfinite(one) and one > 0 for one in times.values()):
            raise AutopruneError(f"milliseconds of trial {number}, timed again, are {dict(times)}")
        self._note(number, optuna_trials.latency_key(number), dict(times))
        self._times[number] = dict(times)

    @property
    def timed_again(self) -> frozenset[int]:
        """Numbers of the trials that were timed again."""
        return frozenset(self._times)

    def _note(self, number: int, key: str, value: object) -> None:
        if number not in {one.number for one in self._history}:
            raise AutopruneError(f"there is no trial {number}; {len(self._history)} are finished")
        try:
            self._durable.set_user_attr(key, value)
        except StorageInternalError as error:
            raise StoppedError(unwritable(self._where, error)) from error

    def trials(self) -> list[Trial]:
        """All finished trials, in order of number."""
        return [self._with_later(one) for one in self._history]

    def _with_later(self, one: Trial) -> Trial:
        """A trial with what was noted of it since it was told."""
        if one.number in self._scores:
            one = replace(one, test_accuracy=self._scores[one.number])
        if one.measurement is not None and one.number in self._times:
            again: dict[str, Any] = self._times[one.number]
            one = replace(one, measurement=replace(one.measurement, **again))
        return one

    def close(self) -> None:
        """Close the database. Nothing is lost without it."""
        self._kept.engine.dispose()

    def _finished(self) -> list[FrozenTrial]:
        trials = self._durable.get_trials(deepcopy=False)
        return [one for one in trials if one.state.is_finished()]

    def _write(self, stored: FrozenTrial) -> Trial:
        """Add a trial to the database, and read that trial back, whoever else writes there meanwhile."""
        try:
            number = self._kept.create_new_trial(self._durable._study_id, template_trial=stored)
            written = self._kept.get_trial(number)
        except StorageInternalError as error:
            raise StoppedError(unwritable(self._where, error)) from error
        done = optuna_trials.thaw(written, self._space, {})
        self._history.append(done)
        return done


def _storage(url: sqlalchemy.URL, where: str) -> optuna.storages.RDBStorage:
    """The database as Optuna's; its tables are made where they are absent."""
    options: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        _check_file(where)
        options["creator"] = lambda: _connect(where)
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    return optuna.storages.RDBStorage(text, engine_kwargs=options)


def _study(
    kept: optuna.storages.RDBStorage, name: str, where: str, expect: Literal["absent", "present", "either"]
) -> optuna.Study:
    """The study of that name, made where it is absent and may be."""
    if expect == "present" and name not in optuna.get_all_study_names(kept):
        raise AutopruneError(
            f"{where} has no study {name!r}, in which this run keeps its trials. Give the database that the "
            "run began with, with --storage, or start a new search in another output folder"
        )
    try:
        return optuna.create_study(
            storage=kept,
            study_name=name,
            directions=optuna_trials.DIRECTIONS,
            load_if_exists=expect != "absent",
        )
    except DuplicatedStudyError as error:
        raise AutopruneError(
            f"{where} has a study {name!r} already, and a new search goes on with none: nothing in it was "
            "changed. Go on with it by autoprune resume RUN, or start again in another output folder"
        ) from error
