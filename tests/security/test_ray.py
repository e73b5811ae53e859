"""Ray: one's own listens on this machine alone, with a token; a cluster without tokens is warned about."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ray_programs import CLUSTER

pytestmark = pytest.mark.ray

OWN = """
import os
from autoprune.workers.ray_cluster import connect
ray, disconnect = connect(None, 1)
print(ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"], flush=True)
input()
disconnect()
"""

KNOCK = """
import sys
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20)), "nodes")
"""

JOIN = """
import logging, sys
logging.basicConfig(level=logging.WARNING)
from autoprune.workers.ray_cluster import connect
ray, disconnect = connect(sys.argv[1], 1)
print(ray.cluster_resources()["CPU"])
disconnect()
"""


def without_tokens(home: Path, **more: str) -> dict[str, str]:
    """This process's environment with nothing said of Ray's tokens."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "HOME": str(home), **more}


@contextmanager
def running(program: str, environment: dict[str, str]) -> Iterator[tuple[list[str], int]]:
    """A program that prints what it is, until it is told to end; the words, and its process."""
    words = [sys.executable, "-c", program]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdin
    assert process.stdout
    try:
        yield process.stdout.readline().split(), process.pid
    finally:
        process.stdin.write("\n")
        process.stdin.close()
        process.wait(timeout=120)


def joined(address: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", JOIN, address]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=180)


def listening(parent: int) -> set[str]:
    """Addresses that a process and those it started listen at."""
    import psutil

    tree = [psutil.Process(parent), *psutil.Process(parent).children(recursive=True)]
    out = set()
    for process in tree:
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.Error:
            continue
        out |= {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    return out


def test_a_ray_of_ones_own_listens_on_this_machine_alone_and_asks_for_its_token(tmp_path: Path) -> None:
    environment = without_tokens(tmp_path)
    with running(OWN, environment) as ((address, token), pid):
        assert address.startswith("127.0.0.1:")
        found = listening(pid)
        assert found
        assert found <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        port = int(address.rpartition(":")[2])
        with pytest.raises(OSError):  # noqa: PT011  refused
            socket.create_connection((own_address(), port), timeout=2).close()
        with_token = {**environment, "RAY_AUTH_MODE": "token"}
        assert nodes_of(address, {**with_token, "RAY_AUTH_TOKEN": token}) == "1 nodes\n"
        assert nodes_of(address, {**with_token, "RAY_AUTH_TOKEN": "0" * 64}) == ""
        assert nodes_of(address, {**environment, "RAY_AUTH_MODE": "disabled"}) == ""


def nodes_of(address: str, environment: dict[str, str]) -> str:
    """What Ray tells of its nodes to who asks; nothing where it does not answer."""
    words = [sys.executable, "-c", KNOCK, address]
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout


def own_address() -> str:
    """An address of this machine that others may know; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but its own loopback")
        return str(probe.getsockname()[0])


def test_a_cluster_without_a_token_is_warned_about_and_one_with_a_token_is_not(tmp_path: Path) -> None:
    bare = without_tokens(tmp_path, RAY_AUTH_MODE="disabled")
    with running(CLUSTER, bare) as ((address,), _):
        done = joined(address, bare)
        assert done.returncode == 0, done.stderr
        assert f"{address} is used without a token: who reaches it can run code on it" in done.stderr
    known = without_tokens(tmp_path, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a1" * 32)
    with running(CLUSTER, known) as ((address,), _):
        done = joined(address, known)
        assert done.returncode == 0, done.stderr
        assert "without a token" not in done.stderr
