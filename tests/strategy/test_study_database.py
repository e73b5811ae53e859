"""A study's database: which driver opens it, what is told beforehand, and connections that are dropped."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
import sqlalchemy.event

from autoprune.core.database_address import given_storage
from autoprune.core.errors import AutopruneError, StoppedError
from autoprune.strategy.samplers import make_proposer
from autoprune.strategy.study import Study
from autoprune.strategy.study_database import check_database, database_url, with_driver
from tests.strategy.test_study import SPACE, repair, result
from tests.support.database_server import ENCODED, PASSWORD, postgresql

UNUSED = Path("unused.db")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as address:
        yield f"me:{ENCODED}@{address}"


def opened(url: str, name: str) -> Study:
    proposer = make_proposer("random", space=SPACE, seed=0, repair=repair)
    return Study(UNUSED, SPACE, proposer=proposer, storage=url, name=name)


# ---- which database -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["postgres", "postgresql", "postgres+psycopg", "postgresql+psycopg"])
def test_postgres_is_postgresql_with_the_driver_that_is_installed(kind: str) -> None:
    url, where = database_url(UNUSED, f"{kind}://me:pa55@host/db")
    assert (url.get_backend_name(), url.get_driver_name(), url.password) == ("postgresql", "psycopg", "pa55")
    assert "pa55" not in where


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As if packages were not installed."""
    real = builtins.__import__

    def refuse(name: str, *more: Any, **options: Any) -> Any:
        is_relative = len(more) > 3 and more[3] > 0
        if not is_relative and name.partition(".")[0] in modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.parametrize(
    ("url", "absent", "package"),
    [("postgres://h/db", "psycopg", "psycopg[binary]"), ("postgresql+psycopg2://h/db", "", "psycopg2-binary"),
     ("mysql://h/db", "", "pymysql"), ("mysql+pymysql://h/db", "", "pymysql"),
     ("oracle+oracledb://h/db", "", "oracledb")],
)  # fmt: skip
def test_a_driver_that_is_not_installed_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, url: str, absent: str, package: str
) -> None:
    without(monkeypatch, absent, "psycopg2", "MySQLdb", "pymysql", "oracledb")
    with pytest.raises(AutopruneError, match="needs a driver that is not installed") as caught:
        with_driver(sqlalchemy.make_url(url))
    assert str(caught.value).endswith(f"pip install '{package}'")


@pytest.mark.parametrize("url", ["mongo://h/db", "postgresql+nothing://h/db"])
def test_what_is_no_kind_of_database_is_refused(url: str) -> None:
    with pytest.raises(AutopruneError, match="no kind of database that can be opened; write sqlite"):
        check_database(UNUSED, url)


def test_both_spellings_of_an_address_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = "postgresql://me:pa55@host/db"
    monkeypatch.setenv("AUTOPRUNE_STORAGE", whole)
    assert given_storage("postgres://me@host/db") == whole
    assert given_storage("postgres://me@host/other") == "postgres://me@host/other"


# ---- before a search ----------------------------------------------------------------------------


def test_a_database_is_tried_and_nothing_is_written(server: str, tmp_path: Path) -> None:
    for url in (f"postgres://{server}", f"sqlite:///{tmp_path}/a.db"):
        check_database(UNUSED, url)
    assert list(tmp_path.iterdir()) == []
    engine = sqlalchemy.create_engine(with_driver(sqlalchemy.make_url(f"postgres://{server}")))
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()


def test_what_cannot_be_opened_is_told_with_what_to_check(server: str, tmp_path: Path) -> None:
    wrong = server.replace(ENCODED, "wrong")
    closed = server.rpartition("@")[0] + "@127.0.0.1:9/db"
    for url, words in ((wrong, "password authentication failed"), (closed, "refused")):
        with pytest.raises(AutopruneError, match=f"cannot be opened: .*{words}") as caught:
            check_database(UNUSED, f"postgres://{url}")
        assert "Check the address, its password and that the server runs" in str(caught.value)
        assert PASSWORD not in str(caught.value)
    with pytest.raises(AutopruneError, match=r"/proc/x/a\.db cannot be written"):
        check_database(UNUSED, "sqlite:////proc/x/a.db")
    (tmp_path / "a.db").write_text("no database")
    with pytest.raises(AutopruneError, match="restore it from a copy"):
        check_database(UNUSED, f"sqlite:///{tmp_path}/a.db")


def test_a_server_that_is_away_is_no_mistake_of_the_user_where_it_is_known(server: str) -> None:
    """And a refusal is one: the server answers."""
    away = f"postgres://me:{ENCODED}@127.0.0.1:9/db"
    with pytest.raises(StoppedError, match=r"does not answer: .*refused.*Nothing is lost"):
        check_database(UNUSED, away, is_known=True)
    with pytest.raises(StoppedError, match=r"does not answer: .*refused"):
        opened(away, "any")
    for wrong in (server.replace(ENCODED, "wrong"), f"{server.rpartition('/')[0]}/nowhere"):
        for attempt in (partial(check_database, UNUSED, is_known=True), partial(opened, name="any")):
            with pytest.raises(AutopruneError, match="Check the address, its password") as caught:
                attempt(f"postgres://{wrong}")
            assert not isinstance(caught.value, StoppedError)
            assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_a_study_that_must_be_there_is_looked_for(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    if kind == "postgresql":
        url = f"postgresql://{request.getfixturevalue('server')}"
    opened(url, "here").close()
    check_database(UNUSED, url, study="here")
    with pytest.raises(AutopruneError, match="has no study 'gone', in which this run keeps its trials"):
        check_database(UNUSED, url, study="gone")


# ---- connections that are dropped ---------------------------------------------------------------


def drop_all(server: str) -> None:
    """As a server does that is started again, or that has a limit of time for who is at rest."""
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://{server}", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            sqlalchemy.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND datname = current_database()"
            )
        )
    engine.dispose()


def test_a_connection_that_was_dropped_at_rest_is_opened_again(server: str) -> None:
    study = opened(f"postgres://{server}", "at-rest")
    for k in range(3):
        drop_all(server)
        asked = study.ask()
        assert study.tell(asked.token, result(asked.candidate)).number == k
        drop_all(server)
        study.update(k, test_accuracy=50.0 + k)
        drop_all(server)
        assert study.timed_again == frozenset()
    study.close()
    again = opened(f"postgres://{server}", "at-rest")
    assert [trial.test_accuracy for trial in again.trials()] == [50.0, 51.0, 52.0]
    again.close()


@pytest.mark.parametrize("word", ["INSERT INTO trials", "INSERT INTO study_user_attributes", "FROM trials"])
def test_what_is_cut_off_in_the_middle_is_done_once_more_and_written_once(server: str, word: str) -> None:
    name = f"cut at {word}"
    study = opened(f"postgres://{server}", name)
    cut: list[str] = []

    def cut_off(_: Any, cursor: Any, statement: str, *__: Any) -> None:
        if word in statement and not cut:
            cut.append(statement)
            drop_all(server)

    sqlalchemy.event.listen(study._kept.engine, "before_cursor_execute", cut_off)
    asked = study.ask()
    done = study.tell(asked.token, result(asked.candidate))
    study.update(done.number, test_accuracy=61.0)
    sqlalchemy.event.remove(study._kept.engine, "before_cursor_execute", cut_off)
    assert len(cut) == 1
    study.close()
    storage = optuna.storages.RDBStorage(f"postgresql+psycopg://{server}")
    assert len(optuna.load_study(study_name=name, storage=storage).get_trials()) == 1
    storage.engine.dispose()
    again = opened(f"postgres://{server}", name)
    assert [trial.test_accuracy for trial in again.trials()] == [61.0]
    again.close()
