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

from autoprune.core.database_address import VARIABLE
from autoprune.core.errors import AutopruneError
from autoprune.core.redaction import escaped, redacted
from autoprune.search import optuna_trials
from autoprune.space.levels import SearchSpace

LOCK_SECONDS = 30.0
"""How long a write waits for another program that reads `study.db`, such as a dashboard."""

OPENING_ERRORS = (sqlite3.Error, sqlalchemy.exc.SQLAlchemyError, OptunaError, ImportError, RuntimeError)
"""What opening a database may raise; the last two: no driver, and a schema of another Optuna."""

OPENING_ATTEMPTS = 5


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
        return url, redacted(url.render_as_string())
    if url.database in (None, "", ":memory:"):
        raise AutopruneError(f"storage {redacted(str(storage))} keeps nothing on disk; write sqlite:///FILE")
    return url, str(url.database)


def open_storage(url: sqlalchemy.URL, where: str) -> optuna.storages.RDBStorage:
    """The database as Optuna's; its tables are made where they are absent."""
    options: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        _check_file(where)
        options["creator"] = lambda: _connect(where)
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


def unreadable(url: sqlalchemy.URL, where: str, error: Exception) -> str:
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


def unwritable(where: str, error: Exception) -> str:
    return (
        f"{where} cannot be written: {_reason(error)}. All trials before are saved: make room or "
        "set its permissions right, then resume"
    )


def _reason(error: BaseException) -> str:
    """What the database itself said, below the layers that wrapped it."""
    below = getattr(error, "orig", None) or error.__cause__
    return _reason(below) if isinstance(below, BaseException) else redacted(" ".join(str(error).split()))
