"""Trials in Optuna's tables: written in one transaction, and read without parsing what all have in common.

Optuna's own `create_new_trial` asks the database several times for each parameter; with 76 of them a trial
took 150 ms. The rows are the same, by Optuna's own description of its tables, so that it reads the study.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from typing import Any, TypeVar

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy.orm import Session

from autoprune.core.files import full_disk
from autoprune.core.redaction import redacted

OUTAGE_SECONDS = 180.0
"""How long a database server that does not answer is waited for: one that starts again is back by then."""

CHUNK = 500
"""Trials that are read at once."""

ATTEMPTS = 5
"""Times that a write to a file is tried: another program may hold its lock."""

log = logging.getLogger(__name__)

_Done = TypeVar("_Done")
_PARAMS, _VALUES = models.TrialParamModel, models.TrialValueModel
_NOTES = models.TrialUserAttributeModel, models.TrialSystemAttributeModel


@dataclasses.dataclass
class StoredTrials:
    """The trials of one study of a database.

    storage: the database. study_id: the study's own number there. where: the database's name for people.
    """

    storage: RDBStorage
    study_id: int
    where: str
    _texts: dict[str, tuple[BaseDistribution, str]] = dataclasses.field(default_factory=dict)

    def add(self, trial: FrozenTrial) -> FrozenTrial:
        """Write a finished trial in one transaction; the trial with the number that it has there.

        Where the connection is lost it is done again, and written once: whether it was written before the
        connection was lost is looked up.

        Raises:
            StorageInternalError: where the database takes it not.
        """
        tries = 0

        def work() -> FrozenTrial:
            nonlocal tries
            tries += 1
            with Session(self.storage.engine) as session:
                written = self._found(session, trial) if tries > 1 else None
                if written is None:
                    written = self._insert(session, trial)
                    session.commit()
            return written

        return self.persistently(work)

    def finished(self) -> Iterator[FrozenTrial]:
        """The finished trials in order of number, a few hundred at a time."""
        with Session(self.storage.engine) as session:
            yield from self._read(session)

    def of_number(self, number: int) -> FrozenTrial:
        """The trial of a number."""
        return self.storage.get_trial(
            self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)
        )

    def persistently(self, work: Callable[[], _Done]) -> _Done:
        """What `work` gives, done again while the database is away or its file is locked.

        Raises:
            StorageInternalError: caused by what the database said, where it stays away or is full.
        """
        begun, tries = time.monotonic(), 0
        while True:
            tries += 1
            try:
                return work()
            except (sqlalchemy.exc.DBAPIError, StorageInternalError) as error:
                below = error if isinstance(error, sqlalchemy.exc.DBAPIError) else error.__cause__
                waited = time.monotonic() - begun
                if not isinstance(below, sqlalchemy.exc.DBAPIError) or not self._may_pass(
                    below, tries, waited
                ):
                    raise StorageInternalError(str(error)) from below
                if tries == 2:
                    log.warning(
                        "%s does not answer (%s); trying again for %d s",
                        self.where, redacted(" ".join(str(below.orig).split())), OUTAGE_SECONDS,
                    )  # fmt: skip
            time.sleep(0.0 if tries == 1 else min(2.0, 0.1 * tries))

    def _may_pass(self, error: sqlalchemy.exc.DBAPIError, tries: int, waited: float) -> bool:
        """Whether an error is of a kind that goes by itself, and was not waited for long enough."""
        passing = isinstance(error, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError))
        if self.storage.engine.dialect.name == "sqlite":
            return passing and tries < ATTEMPTS and full_disk(error) is None
        return (passing or error.connection_invalidated) and waited < OUTAGE_SECONDS

    def _insert(self, session: Session, trial: FrozenTrial) -> FrozenTrial:
        """The rows of a trial; the study is locked meanwhile, so that numbers have no gaps and no doubles."""
        models.StudyModel.find_or_raise_by_id(self.study_id, session, for_update=True)
        row: Any = models.TrialModel(
            study_id=self.study_id,
            number=None,
            state=trial.state,
            datetime_start=trial.datetime_start,
            datetime_complete=trial.datetime_complete,
        )
        session.add(row)
        session.flush()
        before = (
            sqlalchemy.select(models.TrialModel.number)
            .where(models.TrialModel.study_id == self.study_id, models.TrialModel.trial_id < row.trial_id)
            .order_by(models.TrialModel.trial_id.desc())
            .limit(1)
        )
        last = session.execute(before).scalar_one_or_none()
        row.number = 0 if last is None else last + 1
        session.flush()
        for table, rows in self._rows(row.trial_id, trial):
            if rows:
                session.execute(sqlalchemy.insert(table.__table__), rows)
        return _as_read(trial, row.number, row.trial_id)

    def _rows(self, trial_id: int, trial: FrozenTrial) -> Iterable[tuple[Any, list[dict[str, Any]]]]:
        params = []
        for name, value in trial.params.items():
            distribution, text = self._described(name, trial.distributions[name])
            internal = distribution.to_internal_repr(value)
            params.append(
                {"trial_id": trial_id, "param_name": name, "param_value": internal, "distribution_json": text}
            )
        yield _PARAMS, params
        values = [_VALUES.value_to_stored_repr(value) for value in trial.values or ()]
        yield (
            _VALUES,
            [
                {"trial_id": trial_id, "objective": k, "value": value, "value_type": kind}
                for k, (value, kind) in enumerate(values)
            ],
        )
        for table, notes in zip(_NOTES, (trial.user_attrs, trial.system_attrs), strict=True):
            yield (
                table,
                [
                    {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
                    for key, value in notes.items()
                ],
            )

    def _described(self, name: str, distribution: BaseDistribution) -> tuple[BaseDistribution, str]:
        """A parameter's distribution with its text, which is the same for all trials."""
        known = self._texts.get(name)
        if known is None or known[0] is not distribution:
            known = distribution, distribution_to_json(distribution)
            self._texts[name] = known
        return known

    def _found(self, session: Session, trial: FrozenTrial) -> FrozenTrial | None:
        """The trial where it is in the database already."""
        table = models.TrialModel
        like = table(datetime_start=trial.datetime_start)
        query = sqlalchemy.select(table.trial_id, table.number).where(
            table.study_id == self.study_id,
            table.state == trial.state,
            table._datetime_start_utc == like._datetime_start_utc,
        )
        for trial_id, number in session.execute(query).all():
            stored = self.storage.get_trial(trial_id)
            if (stored.params, stored.user_attrs) == (trial.params, trial.user_attrs):
                return _as_read(trial, number, trial_id)
        return None

    def _read(self, session: Session) -> Iterator[FrozenTrial]:
        table = models.TrialModel
        rows: list[Any] = [
            *session.query(table).filter(table.study_id == self.study_id).order_by(table.trial_id)
        ]
        done = [row for row in rows if row.state.is_finished()]
        described = self._distributions(session, done[:1])
        for start in range(0, len(done), CHUNK):
            part = done[start : start + CHUNK]
            ids = [row.trial_id for row in part]
            params = _by_trial(session, _PARAMS, ids, "param_id", "param_name", "param_value")
            values = _by_trial(session, _VALUES, ids, "objective", "value", "value_type")
            user, system = (_by_trial(session, kind, ids, "key", "key", "value_json") for kind in _NOTES)
            for row in part:
                key = row.trial_id
                yield FrozenTrial(
                    number=row.number,
                    state=row.state,
                    value=None,
                    values=[_VALUES.stored_repr_to_value(*pair) for pair in values[key]] or None,
                    datetime_start=row.datetime_start,
                    datetime_complete=row.datetime_complete,
                    params={name: described[name].to_external_repr(value) for name, value in params[key]},
                    distributions={name: described[name] for name, _ in params[key]},
                    user_attrs={name: json.loads(text) for name, text in user[key]},
                    system_attrs={name: json.loads(text) for name, text in system[key]},
                    intermediate_values={},
                    trial_id=key,
                )

    def _distributions(self, session: Session, first: list[Any]) -> dict[str, BaseDistribution]:
        """The distribution of each parameter: Optuna refuses trials with others than the first has."""
        ids = [row.trial_id for row in first]
        rows = _by_trial(session, _PARAMS, ids, "param_id", "param_name", "distribution_json")
        return {name: json_to_distribution(text) for pairs in rows.values() for name, text in pairs}


def _by_trial(
    session: Session, table: Any, ids: list[int], order: str, *columns: str
) -> dict[int, list[tuple[Any, ...]]]:
    """Two columns of a table by trial, in order."""
    query = (
        sqlalchemy.select(table.trial_id, *(getattr(table, name) for name in columns))
        .where(table.trial_id.in_(ids))
        .order_by(table.trial_id, getattr(table, order))
    )
    rows: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for trial_id, *pair in session.execute(query):
        rows[trial_id].append(tuple(pair))
    return rows


def _as_read(trial: FrozenTrial, number: int, trial_id: int) -> FrozenTrial:
    """The trial as it is read back: with its number, and notes as JSON has them."""
    read = copy(trial)
    read.number, read._trial_id = number, trial_id
    read.user_attrs = {key: json.loads(json.dumps(value)) for key, value in trial.user_attrs.items()}
    return read
