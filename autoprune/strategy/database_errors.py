"""What is said of a study's database that cannot be opened or written: a server that is away comes back."""

from __future__ import annotations

import sqlalchemy

from autoprune.core.database_address import VARIABLE
from autoprune.core.errors import AutopruneError, StoppedError
from autoprune.core.redaction import redacted

GONE = "it was moved away or replaced"
"""Of a file that SQLite would go on writing to, though it has no name any more."""

_FOR_NOW = ("starting up", "shutting down", "recovery mode", "too many clients", "connection slots")
"""What PostgreSQL says while it refuses everybody, with "FATAL" before it as where it refuses one user."""

_NOT_SENT = ("no password supplied", "does not support SSL")
"""What PostgreSQL's client says where it does not even ask."""

_MYSQL_FOR_NOW = (1040, 1053)
"""Too many connections, and a server that shuts down; its client's own numbers begin at 2000."""


_DAMAGED = ("malformed", "is not a database", "no such table", GONE)
"""What SQLite says of a file that somebody else wrote to."""


def is_away(url: sqlalchemy.URL, error: BaseException) -> bool:
    """Whether a database server does not answer, or takes nobody for now: later it may.

    One that refuses this user, or has no such database, does answer.
    """
    if not isinstance(error, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)):
        return False
    if url.get_backend_name() == "postgresql":
        text = reason_of_database(error)
        is_refusal = "FATAL" in text and not any(words in text for words in _FOR_NOW)
        return not is_refusal and not any(words in text for words in _NOT_SENT)
    code = next(iter(getattr(error.orig, "args", ())), None)
    return isinstance(code, int) and (code >= 2000 or code in _MYSQL_FOR_NOW)


def opening_error(url: sqlalchemy.URL, where: str, error: Exception, *, is_known: bool) -> AutopruneError:
    """What is raised for a database that cannot be opened.

    is_known: whether it was opened before, so that its address is right and its server is away.
    """
    reason = reason_of_database(error)
    if url.get_backend_name() == "sqlite":
        return AutopruneError(
            f"{where} cannot be opened: {reason}. Nothing in it was changed. If it is damaged, "
            "restore it from a copy, or begin a new search with another -o"
        )
    if is_known and is_away(url, error):
        return StoppedError(
            f"{where} does not answer: {reason}. Nothing is lost: have its server run and be reached from "
            "here, then go on; a database that has moved is named with --storage"
        )
    return AutopruneError(
        f"{where} cannot be opened: {reason}. Nothing in it was changed. Check the address, its "
        f"password and that the server runs; the password is taken from --storage, from {VARIABLE}, or "
        "where PostgreSQL's own client looks for it (PGPASSWORD, ~/.pgpass)"
    )


def writing_error(where: str, error: Exception) -> AutopruneError:
    """What is raised for a database that takes no more trials."""
    reason = reason_of_database(error)
    if any(words in reason for words in _DAMAGED):
        return AutopruneError(
            f"{where} was damaged while the search used it: {reason}. Nothing more is written to it. The "
            "trials until now are in the run's front.json; to go on, restore it from a copy, or begin a new "
            "search with another -o"
        )
    return StoppedError(
        f"{where} cannot be written: {reason}. All trials before are saved: make room or "
        "set its permissions right, then resume"
    )


def reason_of_database(error: BaseException) -> str:
    """What the database itself said, below the layers that wrapped it."""
    below = getattr(error, "orig", None) or error.__cause__
    if isinstance(below, BaseException):
        return reason_of_database(below)
    return redacted(" ".join(str(error).split()))
