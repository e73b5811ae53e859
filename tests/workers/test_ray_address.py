"""Which Ray a search joins: what was asked for, RAY_ADDRESS, or a cluster found on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.workers.ray_address import cluster_asked_for, found_cluster
from autoprune.workers.ray_cluster import connect
from tests.support.ray_programs import CLUSTER

PRIVATE = """
from autoprune.workers.ray_cluster import connect
ray, disconnect = connect(None, 1)
print(ray.get_runtime_context().gcs_address, flush=True)
input()
disconnect()
"""


@pytest.mark.parametrize(
    ("asked", "variable", "joined"),
    [
        (None, None, None),
        (None, "", None),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        (None, "auto", "auto"),
        (None, "local", None),
        ("local", "10.0.0.1:6379", None),
        ("auto", None, "auto"),
        ("10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"),
    ],
)
def test_what_was_asked_for_goes_before_the_variable(
    asked: str | None, variable: str | None, joined: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert cluster_asked_for(asked) == joined


@contextmanager
def running(program: str) -> Iterator[str]:
    """A Ray in a process of its own; its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.write("\n")
        process.stdin.close()
        process.wait(timeout=60)


def found() -> str:
    """What `auto` stands for, or the message; clusters of other tests may run meanwhile."""
    try:
        return found_cluster()
    except AutopruneError as error:
        return str(error)


@pytest.mark.ray
def test_a_ray_of_ones_own_writes_no_token_into_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # which does not exist, and is not made
    with running(PRIVATE) as private:
        assert private
    assert not (tmp_path / "home").exists()


@pytest.mark.ray
def test_a_ray_of_ones_own_starts_nothing_that_a_search_does_not_ask() -> None:
    with running(PRIVATE) as address:
        of_ray = [line for line in commands() if address in line]
    assert any("/raylet" in line for line in of_ray)
    assert not [line for line in of_ray if "monitor" in line or "dashboard/dashboard.py" in line]


def commands() -> Iterator[str]:
    """The command lines of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


def test_auto_is_a_cluster_and_never_the_ray_that_another_search_started() -> None:
    with running(PRIVATE) as private:
        assert private.startswith("127.0.0.1:")
        assert private not in found()
        with running(CLUSTER) as cluster:
            assert cluster in found()
            assert private not in found()
    assert cluster not in found()


def test_a_variable_that_names_no_cluster_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    address = cluster_asked_for(None)
    with pytest.raises(AutopruneError, match=r"at '127\.0\.0\.1:9', which RAY_ADDRESS names .* or local"):
        connect(address, 1)
