"""Study: the record of a search, asked in memory and kept on disk by Optuna.

Each *finished* trial is written to `study.db` in one transaction (`stored_trials`), so a kill loses no told
trial and leaves none RUNNING (Optuna's own `ask` commits once a parameter, and nothing cleans up after a
killed driver). What is in flight is in memory alone (`asked_trials`). One writer. No torch, unless the
sampler is `gp`.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial

from autoprune.core.errors import AutopruneError, ExhaustedError
from autoprune.space.levels import Candidate, SearchSpace
from autoprune.space.trial import Trial
from autoprune.strategy import optuna_trials
from autoprune.strategy.asked_trials import asked_trials
from autoprune.strategy.database_errors import GONE, opening_error, writing_error
from autoprune.strategy.history import Asked, History
from autoprune.strategy.proposer import Proposer
from autoprune.strategy.stored_trials import StoredTrials
from autoprune.strategy.study_database import (
    OPENING_ERRORS,
    check_space,
    database_url,
    open_storage,
    open_study,
)


class Study:
    """Ask for candidates, tell what they gave, read all of it back.

    path: the SQLite file, made if absent. proposer: chooses candidates. storage: a database URL instead of
    the file. name: which study of that database. expect: that this study is not there yet ("absent"), is
    there ("present"), or may be ("either").

    Raises:
        AutopruneError: for a database that is damaged, cannot be opened or is not Optuna's, a study that is
            there or absent against what is expected, or one of
            another search space.
        StoppedError: for a database whose server is away; a run looks for it before it begins.
    """

    def __init__(
        self,
        path: Path,
        space: SearchSpace,
        *,
        proposer: Proposer,
        storage: str | None = None,
        name: str = "autoprune",
        expect: Literal["absent", "present", "either"] = "either",
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self.proposer = proposer
        url, self._where = database_url(path, storage)
        with contextlib.ExitStack() as undo:
            try:
                self._kept = open_storage(url, self._where)
                undo.callback(self._kept.engine.dispose)  # a study that cannot be had leaves no connection
                self._durable = open_study(self._kept, name, self._where, expect)
                check_space(self._durable, space, self._where)
                self._stored = StoredTrials(self._kept, self._durable._study_id, self._where)
                later = self._durable.user_attrs
                trials: list[Trial] = []
                self._asked = asked_trials(
                    proposer, space, lambda: self._history, self._thawed(trials, later)
                )
            except AutopruneError:
                raise
            except OPENING_ERRORS as error:
                raise opening_error(url, self._where, error, is_known=True) from error
            undo.pop_all()
        self._file = _identity(self._where) if url.get_backend_name() == "sqlite" else None
        self._history = History.of(tuple(trials))

    def _thawed(self, trials: list[Trial], later: Mapping[str, Any]) -> Iterator[FrozenTrial]:
        """The finished trials as they are stored, each of which is added to `trials`."""
        for frozen in self._stored.finished():
            trials.append(optuna_trials.thaw(frozen, self._space, later))
            yield frozen

    @property
    def history(self) -> History:
        """All that the search knows of its past now."""
        return self._history

    def ask(self, candidate: Candidate | None = None, *, rung: int = 0) -> Asked:
        """The next candidate, or the given one (a warm start), which may have been tried before.

        rung: how long it will be trained.

        Raises:
            ExhaustedError: where none is left to try.
            AutopruneError: where the given candidate is not of this space, or as `repair` raises.
        """
        if candidate is not None:
            self._space.check(candidate)
        number, chosen = self._asked.ask(candidate)
        if candidate is None and chosen in self._history.seen:
            self._asked.drop(number)
            raise ExhaustedError("no candidate of this search space is left to try")
        asked = Asked(number, chosen, rung, begun=time.monotonic())
        self._history = self._history.with_asked(asked)
        return asked

    def tell(self, token: int, trial: Trial) -> Trial:
        """Record the result of an asked candidate, on disk before in memory.

        A measurement whose size or latency is not above zero, or any objective of which is not a
        finite number, is recorded as a failure that says so.

        Returns:
            The trial as recorded, its number that in the database: the order of finishing.

        Raises:
            AutopruneError: for a token that is not in flight, or another candidate than asked.
            AutopruneError: where the file was damaged or moved away; the token stays in flight.
            StoppedError: where the disk takes no more; so it does then.
        """
        in_flight = self._history.in_flight
        if token not in in_flight:
            raise AutopruneError(f"token {token} is not in flight; in flight: {list(in_flight)}")
        if trial.candidate != in_flight[token].candidate:
            raise AutopruneError(f"token {token} was asked with another candidate than told")
        stored = optuna_trials.freeze(trial, self._space)
        self._asked.inherit(token, stored)
        # The asked candidate itself: one that was read again is equal, but takes long to compare.
        done = replace(self._write(stored), candidate=in_flight[token].candidate)
        self._asked.tell(token, stored)
        self._history = self._history.with_finished(done, token=token)
        return done

    def add(self, trial: Trial) -> Trial:
        """Record a trial that was not asked for, such as a baseline; otherwise as `tell`.

        Samplers learn from it, except that it belongs to no generation of NSGA-II.
        """
        self._space.check(trial.candidate)
        stored = optuna_trials.freeze(trial, self._space)
        done = self._write(stored)
        self._asked.add(stored)
        self._history = self._history.with_finished(done)
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

    def retime(self, number: int, times: Mapping[str, float]) -> None:
        """Note what a finished trial took when it was timed again, by the names of a `Measurement`'s fields.

        Raises:
            AutopruneError: where no trial has this number, or a time is not above zero.
        """
        if not all(math.isfinite(ms) and ms > 0 for ms in times.values()):
            raise AutopruneError(f"milliseconds of trial {number}, timed again, are {dict(times)}")
        self._note(number, optuna_trials.latency_key(number), dict(times))

    @property
    def timed_again(self) -> frozenset[int]:
        """Numbers of the trials that were timed again."""
        noted, numbers = self._durable.user_attrs, (trial.number for trial in self._history.finished)
        return frozenset(number for number in numbers if optuna_trials.latency_key(number) in noted)

    def _note(self, number: int, key: str, value: object) -> None:
        """Keep a later score of a finished trial, and read the trial again."""
        known = self._history.finished
        if number not in {trial.number for trial in known}:
            raise AutopruneError(f"there is no trial {number}; {len(known)} are finished")
        try:
            self._stored.persistently(lambda: self._durable.set_user_attr(key, value))
            frozen = self._stored.persistently(lambda: self._stored.of_number(number))
            later = self._stored.persistently(lambda: self._durable.user_attrs)
        except StorageInternalError as error:
            raise self._cannot_write(error) from error
        trial = optuna_trials.thaw(frozen, self._space, later)
        self._history = self._history.with_revised(trial)

    def trials(self) -> list[Trial]:
        """All finished trials, in order of number."""
        return list(self._history.finished)

    def close(self) -> None:
        """Close the database. Nothing is lost without it."""
        self._kept.engine.dispose()

    def _write(self, stored: FrozenTrial) -> Trial:
        """Add a trial to the database; the trial with its number there, whoever else writes meanwhile."""
        try:
            if self._is_gone():
                raise StorageInternalError(GONE)
            written = self._stored.add(stored)
        except StorageInternalError as error:
            raise self._cannot_write(error) from error
        return optuna_trials.thaw(written, self._space, {})

    def _is_gone(self) -> bool:
        """Whether the file that was opened has lost its name."""
        return self._file is not None and self._file != _identity(self._where)

    def _cannot_write(self, error: Exception) -> AutopruneError:
        """What is said of a failed write; SQLite calls a file that goes in the middle of it read-only."""
        return writing_error(self._where, StorageInternalError(GONE) if self._is_gone() else error)


def _identity(path: str) -> tuple[int, int] | None:
    """The disk and the number there of the file that has a name; None where none has it."""
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_dev, about.st_ino
