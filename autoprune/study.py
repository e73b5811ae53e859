"""The record of a search and what to try next: an Optuna study, asked in memory, kept on disk.

A study in memory is asked; each *finished* trial is written to `study.db` in one transaction, so
a kill loses no told trial and leaves none RUNNING (Optuna's own `ask` commits once a parameter,
and nothing cleans up after a killed driver). One writer. No torch, unless the sampler is `gp`.
"""

from __future__ import annotations

import json
import math
import sqlite3
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, OptunaError, StorageInternalError
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from autoprune import frozen
from autoprune.aim import Aim
from autoprune.errors import AutopruneError, ExhaustedError, StoppedError
from autoprune.front import Trial
from autoprune.redaction import escaped, redacted
from autoprune.samplers import OURS, SAMPLERS, AimedSampler, Repair, RepairedSampler, check_sampler
from autoprune.space import Candidate, SearchSpace
from autoprune.storage import VARIABLE

__all__ = ["SAMPLERS", "Asked", "Study"]

LOCK_SECONDS = 30.0
"""How long a write waits for another program that reads `study.db`, such as a dashboard."""

_OPENING = (sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, OptunaError, ImportError, RuntimeError)
"""What opening a database may raise; the last two: no driver, and a schema of another Optuna."""


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
        self._space, self._distributions = space, frozen.distributions_of(space)
        self._seen: set[Candidate] = set()
        self._open: dict[int, Candidate] = {}
        self._history: list[Trial] = []
        self._scores: dict[int, float] = {}
        self._times: dict[int, dict[str, Any]] = {}
        own = self._sampler(sampler, seed, repair, aim)
        url, self._where = _database(path, storage)
        try:
            self._kept = _storage(url, self._where)
            self._durable = _study(self._kept, name, self._where, expect)
            _check_space(self._durable, space, self._where)
            finished = self._finished()
        except _OPENING as error:
            raise AutopruneError(_unreadable(url, self._where, error)) from error
        self._memory = optuna.create_study(
            directions=frozen.DIRECTIONS, sampler=own, pruner=optuna.pruners.NopPruner()
        )
        self._memory.add_trials(finished)
        self._history += [frozen.thaw(one, space, self._durable.user_attrs) for one in finished]
        self._times = {
            one.number: dict(self._durable.user_attrs[key])
            for one in self._history
            if (key := frozen.latency_key(one.number)) in self._durable.user_attrs
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
            found = frozen.candidate_of(trial.params, self._space)
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
        stored = frozen.freeze(trial, self._space)
        frozen.inherit(stored, asked)
        done = self._write(stored)
        self._memory.tell(token, stored.values, stored.state)
        del self._open[token]
        return done

    def add(self, trial: Trial) -> Trial:
        """Record a trial that was not asked for, such as a baseline; otherwise as `tell`.

        Samplers learn from it, except that it belongs to no generation of NSGA-II.
        """
        self._space.check(trial.candidate)
        stored = frozen.freeze(trial, self._space)
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
        self._note(number, frozen.accuracy_key(number), float(test_accuracy))
        self._scores[number] = float(test_accuracy)

    def retime(self, number: int, times: Mapping[str, float]) -> None:
        """Note what a finished trial took when it was timed again, by the names of a `Measurement`'s fields.

        Raises:
            AutopruneError: where no trial has this number, or a time is not above zero.
        """
        if not all(math.isfinite(one) and one > 0 for one in times.values()):
            raise AutopruneError(f"milliseconds of trial {number}, timed again, are {dict(times)}")
        self._note(number, frozen.latency_key(number), dict(times))
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
            raise StoppedError(_unwritable(self._where, error)) from error

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
            raise StoppedError(_unwritable(self._where, error)) from error
        done = frozen.thaw(written, self._space, {})
        self._history.append(done)
        return done


# ---- the database -------------------------------------------------------------------------------


def _database(path: Path, storage: str | None) -> tuple[sqlalchemy.URL, str]:
    """Its URL, and how to name it to a person: the file, or the URL without its password."""
    if storage is None:
        url = sqlalchemy.URL.create("sqlite", database=str(path.absolute()))
    else:
        try:
            url = sqlalchemy.make_url(escaped(storage))
        except (sqlalchemy.exc.ArgumentError, ValueError) as error:
            raise AutopruneError(
                "the storage is no database URL; write sqlite:///FILE or postgresql://HOST/NAME"
            ) from error
    if url.get_backend_name() != "sqlite":
        return url, redacted(url.render_as_string())
    if url.database in (None, "", ":memory:"):
        raise AutopruneError(f"storage {redacted(str(storage))} keeps nothing on disk; write sqlite:///FILE")
    return url, str(url.database)


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
            storage=kept, study_name=name, directions=frozen.DIRECTIONS, load_if_exists=expect != "absent"
        )
    except DuplicatedStudyError as error:
        raise AutopruneError(
            f"{where} has a study {name!r} already, and a new search goes on with none: nothing in it was "
            "changed. Go on with it by autoprune resume RUN, or start again in another output folder"
        ) from error


def _connect(where: str) -> sqlite3.Connection:
    """A connection that has its data on the disk, directory entry included, when it commits.

    EXTRA: see https://www.sqlite.org/pragma.html#pragma_synchronous. The journal stays a plain
    file beside the database, which also works on network file systems, unlike a write-ahead log.
    """
    connection = sqlite3.connect(where, timeout=LOCK_SECONDS, check_same_thread=False)
    connection.execute("PRAGMA synchronous = EXTRA")
    return connection


def _check_file(where: str) -> None:
    """Raise before anything is written to a file that is damaged or not Optuna's."""
    if not Path(where).exists():
        return
    connection = _connect(where)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    finally:
        connection.close()
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    # A driver killed at the first moment leaves some of Optuna's tables; these come first.
    if rows and not {"studies", "version_info"} & {row[0] for row in rows}:
        raise AutopruneError(f"{where} is a database of another program; choose another file")


def _check_space(study: optuna.Study, space: SearchSpace, where: str) -> None:
    """Raise where the study is of another search space; note the space in a new one."""
    now = json.dumps([[one.unit, list(one.ratios), list(one.widths[::-1])] for one in space.units])
    before = study.user_attrs.get("space")
    ours = study.directions == frozen.DIRECTIONS
    if ours and before is None and not study.get_trials(deepcopy=False):
        with warnings.catch_warnings():
            # Names of the objectives are for dashboards alone; nothing here relies on them.
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(frozen.OBJECTIVES))
        study.set_user_attr("space", now)
    elif not ours or before != now:
        raise AutopruneError(
            f"{where} holds a search over another space: {_difference(before, now)}. Go on with "
            "the model and space file it was started with, or choose another output folder"
        )


def _difference(before: str | None, now: str) -> str:
    if before is None:
        return "it was not made by autoprune"
    old = {unit: levels for unit, *levels in json.loads(before)}
    new = {unit: levels for unit, *levels in json.loads(now)}
    differ = [unit for unit in {**old, **new} if old.get(unit) != new.get(unit)]
    if not differ:
        return "the units are in another order"
    more = "" if len(differ) <= 3 else f" and {len(differ) - 3} more"
    return f"units or levels differ ({', '.join(differ[:3])}{more})"


def _unreadable(url: sqlalchemy.URL, where: str, error: Exception) -> str:
    if url.get_backend_name() != "sqlite":
        return (
            f"{where} cannot be opened: {_reason(error)}. Nothing in it was changed. Check the address, its "
            f"password and that the server runs; the password is taken from --storage, from {VARIABLE}, or "
            "where PostgreSQL's own client looks for it (PGPASSWORD, ~/.pgpass)"
        )
    return (
        f"{where} cannot be opened: {_reason(error)}. Nothing in it was changed. If it is damaged, "
        "restore it from a copy or move it away and start the search again"
    )


def _unwritable(where: str, error: Exception) -> str:
    return (
        f"{where} cannot be written: {_reason(error)}. All trials before are saved: make room or "
        "set its permissions right, then resume"
    )


def _reason(error: BaseException) -> str:
    """What the database itself said, below the layers that wrapped it."""
    below = getattr(error, "orig", None) or error.__cause__
    return _reason(below) if isinstance(below, BaseException) else redacted(" ".join(str(error).split()))
