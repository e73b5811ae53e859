"""The address of a run's database: without its secret in files, with it in memory."""

from __future__ import annotations

import os
from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.core.redaction import HIDDEN, escaped, holds_secret, redacted, without_secrets

VARIABLE = "AUTOPRUNE_STORAGE"
"""The environment variable that may hold the address with its secret, instead of the command line."""

LIBPQ = ("PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE")
"""Variables by which PostgreSQL's own client library finds a password."""


def given_storage(given: str | None) -> str | None:
    """The address for a new search: the one given, with its secret from the environment where it has none.

    None where neither the command line nor the environment names a database.

    Raises:
        AutopruneError: for an address as it is shown, with its secret hidden, where nothing gives it.
    """
    variable = os.environ.get(VARIABLE) or None
    if given is None or (not holds_secret(given) and _same(given, variable)):
        given = variable or given
    if given is None:
        return None
    if HIDDEN in given and not holds_secret(given):
        if given.startswith("postgres") and _libpq_may_know():
            return without_secrets(given)
        raise AutopruneError(
            f"storage {given} is an address whose secret is hidden: set the environment variable {VARIABLE} "
            "to the whole one"
        )
    return escaped(given)


def resumed_storage(noted: str | None, given: str | None, *, run: Path) -> str | None:
    """The address to go on with, with its secret.

    Args:
        noted: what the run's file says.
        given: what the command line says.

    Raises:
        AutopruneError: where the address had a secret and nothing gives it, or the run has no database.
    """
    if noted is None:
        if given is not None:
            raise AutopruneError(
                f"--storage {redacted(escaped(given))}: run {run} keeps its study in its own study.db; leave "
                "--storage out"
            )
        return None
    if given is not None:
        return given_storage(given)
    variable = os.environ.get(VARIABLE) or None
    if variable is not None and _same(noted, variable):
        return escaped(variable)
    if HIDDEN not in noted:
        return noted
    if noted.startswith("postgres") and _libpq_may_know():
        return without_secrets(noted)
    other = "" if variable is None else f"; it is set now, but to {redacted(escaped(variable))}"
    raise AutopruneError(
        f"run {run} keeps its study in {noted}, and the secret of that address is written in no file. Give "
        f"the whole address: set the environment variable {VARIABLE} to it{other}; or, to go on with the "
        f"search, autoprune resume {run} --storage URL. PostgreSQL's password may also come from PGPASSWORD "
        "or ~/.pgpass"
    )


def _same(address: str, other: str | None) -> bool:
    if other is None:
        return False
    kinds = [without_secrets(url).replace("postgres:", "postgresql:", 1) for url in (address, other)]
    return kinds[0] == kinds[1]


def _libpq_may_know() -> bool:
    return any(os.environ.get(name) for name in LIBPQ) or (Path.home() / ".pgpass").is_file()
