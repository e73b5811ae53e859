"""Trials as our writer and reader have them are those of Optuna's own, in a file and on a server.

The contract is the same for SQLite and PostgreSQL, the latter with its connections dropped in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial

from autoprune.space.trial import Trial
from autoprune.strategy import optuna_trials, stored_trials
from autoprune.strategy.stored_trials import StoredTrials
from autoprune.strategy.study_database import database_url, open_storage
from tests.strategy.test_study import SPACE, measure, open_study, result, step
from tests.support.database_server import ENCODED, postgresql

FIELDS = ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as address:
        yield f"postgresql+psycopg://me:{ENCODED}@{address}"


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[optuna.storages.RDBStorage]:
    address = f"sqlite:///{tmp_path}/study.db"
    if request.param == "postgresql":
        address = str(request.getfixturevalue("server"))
    opened = open_storage(*database_url(tmp_path / "study.db", address))
    yield opened
    opened.engine.dispose()


def new_study(storage: optuna.storages.RDBStorage, name: str) -> StoredTrials:
    number = storage.create_new_study(optuna_trials.DIRECTIONS, name)
    return StoredTrials(storage, number, "a database")


def some_trials(count: int = 9) -> list[FrozenTrial]:
    """Measured and failed ones, with every note."""
    units = [unit.unit for unit in SPACE.units]
    frozen = []
    for k in range(count):
        candidate = SPACE.untouched()
        for unit, choices in zip(units[: k % 5], SPACE.units, strict=False):
            candidate = candidate.with_level(unit, list(choices.levels())[k % 3])
        frozen.append(optuna_trials.freeze(result(candidate, k), SPACE))
        frozen[-1].datetime_start = frozen[-1].datetime_start - timedelta(seconds=k)
        frozen[-1].system_attrs = {"NSGAIISampler:generation": k} if k % 2 else {}
    return frozen


def fields(trial: FrozenTrial) -> dict[str, Any]:
    return {name: getattr(trial, name) for name in FIELDS}


def test_what_is_written_is_what_optuna_would_write(
    storage: optuna.storages.RDBStorage, request: pytest.FixtureRequest
) -> None:
    ours, theirs = (new_study(storage, f"{request.node.name} {who}") for who in ("ours", "theirs"))
    for trial in some_trials():
        ours.add(trial)
        storage.create_new_trial(theirs.study_id, template_trial=trial)
    pairs = zip(storage.get_all_trials(ours.study_id), storage.get_all_trials(theirs.study_id), strict=True)
    for a, b in pairs:
        assert fields(a) == fields(b)
        assert (a.datetime_start, a.datetime_complete) == (b.datetime_start, b.datetime_complete)


def test_what_is_read_is_what_optuna_reads(
    storage: optuna.storages.RDBStorage, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_trials, "CHUNK", 4)
    ours = new_study(storage, request.node.name)
    other = new_study(storage, f"{request.node.name} beside it")
    for trial in some_trials():
        written = ours.add(trial)
        other.add(trial)
        assert fields(written) == fields(ours.of_number(written.number))
    storage.create_new_trial(ours.study_id)  # one that another program left running
    read = list(ours.finished())
    kept = storage.get_all_trials(ours.study_id)[:-1]
    assert [fields(trial) for trial in read] == [fields(trial) for trial in kept]
    assert [trial.datetime_start for trial in read] == [trial.datetime_start for trial in kept]
    assert len(read) == 9


def test_numbers_go_on_after_those_of_optuna_itself(
    storage: optuna.storages.RDBStorage, request: pytest.FixtureRequest
) -> None:
    ours = new_study(storage, request.node.name)
    first, second, third = some_trials(3)
    assert ours.add(first).number == 0
    storage.create_new_trial(ours.study_id, template_trial=second)
    assert ours.add(third).number == 2


def drop_connections(storage: optuna.storages.RDBStorage) -> None:
    """As a server does that is started again; a file has none to drop."""
    if storage.engine.dialect.name == "sqlite":
        storage.engine.dispose()
        return
    engine = sqlalchemy.create_engine(storage.engine.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            sqlalchemy.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND datname = current_database()"
            )
        )
    engine.dispose()


@pytest.mark.parametrize("word", ["INSERT INTO trials", "INSERT INTO trial_params", "INSERT INTO trial_user"])
def test_a_connection_that_is_dropped_in_between_costs_no_trial_and_doubles_none(
    storage: optuna.storages.RDBStorage, request: pytest.FixtureRequest, word: str
) -> None:
    ours = new_study(storage, request.node.name)
    cut: list[str] = []

    def drop(_: Any, cursor: Any, statement: str, *__: Any) -> None:
        if word in statement and not cut:
            cut.append(statement)
            if storage.engine.dialect.name != "sqlite":
                drop_connections(storage)

    sqlalchemy.event.listen(storage.engine, "before_cursor_execute", drop)
    trials = some_trials(4)
    for trial in trials:
        drop_connections(storage)
        ours.add(trial)
    sqlalchemy.event.remove(storage.engine, "before_cursor_execute", drop)
    assert len(cut) == 1
    stored = storage.get_all_trials(ours.study_id)
    assert [trial.number for trial in stored] == [0, 1, 2, 3]
    assert [trial.params for trial in stored] == [trial.params for trial in trials]


def test_a_trial_whose_commit_was_not_heard_of_is_written_once(
    storage: optuna.storages.RDBStorage, request: pytest.FixtureRequest
) -> None:
    """The connection is lost after the database has the trial and before the driver knows."""
    ours = new_study(storage, request.node.name)
    lost: list[int] = []

    def lose(session: Any) -> None:
        if session.get_bind() is storage.engine and not lost:
            lost.append(1)
            broken = Exception("server closed the connection unexpectedly")
            raise sqlalchemy.exc.OperationalError("COMMIT", {}, broken, connection_invalidated=True)

    first, second = some_trials(2)
    sqlalchemy.event.listen(sqlalchemy.orm.Session, "after_commit", lose)
    try:
        written = ours.add(first)
    finally:
        sqlalchemy.event.remove(sqlalchemy.orm.Session, "after_commit", lose)
    assert (written.number, len(lost)) == (0, 1)
    assert ours.add(second).number == 1
    assert len(storage.get_all_trials(ours.study_id)) == 2


def test_a_trial_takes_few_statements_however_many_units_there_are(tmp_path: Path) -> None:
    """Optuna's own way takes three for each parameter."""
    study = open_study(tmp_path / "study.db")
    step(study)
    statements: list[str] = []
    sqlalchemy.event.listen(
        study._kept.engine, "before_cursor_execute", lambda *call: statements.append(call[2])
    )
    whole = SPACE.untouched()
    study.add(Trial(0, whole, measure(whole), name="again", rung=0))
    assert len(statements) <= 8, statements
