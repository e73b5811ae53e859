"""The study's database: opening it, checking that it is sound and of this search space."""

from __future__ import annotations

import json
import sqlite3
import time
import warnings
from pathlib import Path
from typing import Any, Literal

import optuna
import sqlalchemy
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, OptunaError

from autoprune.core.errors import AutopruneError
from autoprune.core.files import why_unwritable
from autoprune.core.redaction import escaped, redacted
from autoprune.space.levels import SearchSpace
from autoprune.strategy import optuna_trials
from autoprune.strategy.database_errors import opening_error
from autoprune.strategy.study_note import write_note

LOCK_SECONDS = 30.0
"""How long a write waits for another program that reads `study.db`, such as a dashboard."""

OPENING_ERRORS = (
    *(sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, OptunaError),
    *(ImportError, RuntimeError),  # no driver, and a schema of another Optuna
    *(
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
    ),  # values that Optuna does not write
)
"""What opening a database may raise, and reading the study in it."""

OPENING_ATTEMPTS = 5

DRIVERS = {"postgresql": ("psycopg", "psycopg2"), "mysql": ("pymysql",), "mariadb": ("pymysql",)}
"""Drivers for a database whose URL names none, where SQLAlchemy's own choice is not installed."""

INSTALLED_BY = {"postgresql": "psycopg[binary]", "psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary",
                "mysql": "pymysql", "mariadb": "pymysql", "mysqldb": "mysqlclient"}  # fmt: skip
"""Packages that bring the drivers; others are named as the driver is."""


def database_url(path: Path, storage: str | None) -> tuple[sqlalchemy.URL, str]:
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
        return with_driver(url), redacted(url.render_as_string())
    if url.database in (None, "", ":memory:"):
        raise AutopruneError(f"storage {redacted(str(storage))} keeps nothing on disk; write sqlite:///FILE")
    return url, str(url.database)


def with_driver(url: sqlalchemy.URL) -> sqlalchemy.URL:
    """The same with a driver that is installed, where the URL names none, and postgres as postgresql.

    Raises:
        AutopruneError: where no driver is installed, or nothing is known of the kind of database.
    """
    kind, _, driver = url.drivername.partition("+")
    kind = "postgresql" if kind == "postgres" else kind
    drivers = [driver] if driver else ["", *DRIVERS.get(kind, ())]
    absent: ImportError | None = None
    for name in drivers:
        chosen = url.set(drivername=f"{kind}+{name}" if name else kind)
        try:
            chosen.get_dialect().import_dbapi()
        except sqlalchemy.exc.NoSuchModuleError:
            continue
        except ImportError as error:
            absent = absent or error
        else:
            return chosen
    shown = redacted(url.render_as_string())
    if absent is None:
        raise AutopruneError(
            f"storage {shown}: {url.drivername} is no kind of database that can be opened; write "
            "sqlite:///FILE or postgresql://HOST/NAME"
        )
    package = INSTALLED_BY.get(driver or kind, driver or kind)
    raise AutopruneError(
        f"storage {shown} needs a driver that is not installed ({absent}): pip install '{package}'"
    )


def check_database(
    path: Path, storage: str | None, *, study: str | None = None, is_known: bool = False
) -> None:
    """Open a run's database and close it again, before anything else is done; nothing is written.

    Args:
        study: name of one that must be there; None where it may be absent.
        is_known: whether a run was begun with it.

    Raises:
        AutopruneError: for a database that cannot be opened, is damaged or not Optuna's, or lacks the study.
        StoppedError: where it is known, and its server is away.
    """
    url, where = database_url(path, storage)
    is_file = url.get_backend_name() == "sqlite"
    try:
        if is_file:
            if why := why_unwritable(Path(where).parent):
                raise AutopruneError(f"{where} cannot be written ({why}): give a file in another folder")
            _check_file(where)
            if study is None or not Path(where).exists():
                return
        engine = sqlalchemy.create_engine(url, **_options(url, where))
        try:
            with engine.connect() as connection:
                is_there = study is None or _has_study(connection, study)
        finally:
            engine.dispose()
    except AutopruneError:
        raise
    except OPENING_ERRORS as error:
        raise opening_error(url, where, error, is_known=is_known) from error
    if not is_there:
        raise AutopruneError(_no_study(study, where))


def _has_study(connection: sqlalchemy.Connection, name: str) -> bool:
    if not sqlalchemy.inspect(connection).has_table("studies"):
        return False
    found = connection.execute(
        sqlalchemy.text("SELECT 1 FROM studies WHERE study_name = :name"), {"name": name}
    )
    return found.first() is not None


def _no_study(name: str | None, where: str) -> str:
    return (
        f"{where} has no study {name!r}, in which this run keeps its trials. Give the database that the "
        "run began with, with --storage, or start a new search in another output folder"
    )


def _options(url: sqlalchemy.URL, where: str) -> dict[str, Any]:
    """How connections are opened: to a server anew where it has dropped one that was at rest."""
    if url.get_backend_name() != "sqlite":
        return {"pool_pre_ping": True}
    return {"creator": lambda: _connect(where)}


def open_storage(url: sqlalchemy.URL, where: str) -> optuna.storages.RDBStorage:
    """The database as Optuna's; its tables are made where they are absent."""
    options = _options(url, where)
    if url.get_backend_name() == "sqlite":
        _check_file(where)
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    for _ in range(OPENING_ATTEMPTS - 1):
        try:
            return optuna.storages.RDBStorage(text, engine_kwargs=options)
        except sqlalchemy.exc.DBAPIError as error:
            if not _was_made_meanwhile(error):
                raise
        time.sleep(0.1)
    return optuna.storages.RDBStorage(text, engine_kwargs=options)


def _was_made_meanwhile(error: sqlalchemy.exc.DBAPIError) -> bool:
    """Whether another driver made the tables at the same time; at the next attempt they are there.

    Optuna looks first and then makes, and nothing holds the others back meanwhile.
    """
    return isinstance(error, sqlalchemy.exc.IntegrityError) or "already exists" in str(error)


def open_study(
    kept: optuna.storages.RDBStorage, name: str, where: str, expect: Literal["absent", "present", "either"]
) -> optuna.Study:
    """The study of that name, made where it is absent and may be."""
    if expect == "present" and name not in optuna.get_all_study_names(kept):
        raise AutopruneError(_no_study(name, where))
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
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    finally:
        connection.close()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    # A driver killed at the first moment leaves some of Optuna's tables; these come first.
    if rows and not {"studies", "version_info"} & {row[0] for row in rows}:
        raise AutopruneError(f"{where} is a database of another program; choose another file")


def check_space(study: optuna.Study, space: SearchSpace, where: str) -> None:
    """Raise where the study is of another search space; note the space in a new one."""
    now = json.dumps([[unit.unit, unit.ratios, optuna_trials.written_storages(unit)] for unit in space.units])
    before = study.user_attrs.get("space")
    ours = study.directions == optuna_trials.DIRECTIONS
    if ours and before is None and not study.get_trials(deepcopy=False):
        with warnings.catch_warnings():
            # Names of the objectives are for dashboards alone; nothing here relies on them.
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(optuna_trials.OBJECTIVES))
        study.set_user_attr("space", now)
        write_note(study)
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
