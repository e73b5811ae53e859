"""A PostgreSQL server of this machine's own, on a free port of 127.0.0.1, which asks for a password."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_ports

PASSWORD = "t@p/s3cret word%"
"""With signs that a URL has for other purposes."""
ENCODED = "t%40p%2Fs3cret%20word%25"


def programs() -> Path | None:
    """The folder of the server's programs, where they are installed."""
    found = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")), *_on_path()]
    return found[-1].parent if found else None


def _on_path() -> list[Path]:
    path = shutil.which("initdb")
    return [Path(path)] if path else []


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A server with an empty database; its address without a user: HOST:PORT/NAME."""
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip("PostgreSQL's server is not installed")
    home = Path(tempfile.mkdtemp(prefix="autoprune-postgresql-"))
    user = _owner(home)
    [port] = free_ports(1)

    def call(program: str, *arguments: object) -> None:
        words = [str(bin_folder / program), *map(str, arguments)]
        done = subprocess.run(words, user=user, cwd=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    (home / "password").write_text(PASSWORD + "\n")
    data = home / "data"
    try:
        call("initdb", "-D", data, "-U", "me", "-A", "scram-sha-256", f"--pwfile={home / 'password'}", "-N")
        options = f"-p {port} -h 127.0.0.1 -k {home} -F"
        call("pg_ctl", "-D", data, "-w", "-l", home / "log", "-o", options, "start")
        try:
            yield f"127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _owner(home: Path) -> str | None:
    """The server does not run as root: who it runs as instead, and whom its folder is given to."""
    if os.getuid() != 0:
        return None
    users = {user.pw_name for user in pwd.getpwall()}
    user = "postgres" if "postgres" in users else "nobody"
    shutil.chown(home, user)
    return user
