"""A Ray cluster of this machine, with a dashboard, as `ray start --head` makes it: in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.ports import free_ports

_STORE_BYTES = 100_000_000


@dataclass
class Head:
    """A head that runs. address: of its dashboard. folder: of Ray's own files."""

    address: str
    folder: Path

    def kill(self) -> None:
        """End all its processes at once, as a machine that is switched off."""
        _kill(self.folder)


@contextlib.contextmanager
def ray_head(environment: Mapping[str, str], *, cpus: int = 1, labels: str = "") -> Iterator[Head]:
    """A head on free ports of 127.0.0.1, with these variables; its processes are killed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ap-ray-", dir="/tmp"))  # paths of sockets are short
    try:
        yield start_head(environment, folder, cpus=cpus, labels=labels)
    finally:
        _kill(folder)
        shutil.rmtree(folder, ignore_errors=True)


def start_head(
    environment: Mapping[str, str], folder: Path, *, cpus: int = 1, labels: str = "", port: int | None = None
) -> Head:
    """Start a head, and wait until its dashboard answers. port: of the dashboard."""
    gcs, dashboard, agent, client = free_ports(4)
    dashboard = port or dashboard
    words = [
        "start", "--head", "--node-ip-address", "127.0.0.1", "--port", gcs, "--num-cpus", cpus,
        "--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard, "--temp-dir", folder,
        "--dashboard-agent-listen-port", agent, "--ray-client-server-port", client,
        "--object-store-memory", _STORE_BYTES, "--disable-usage-stats",
    ]  # fmt: skip
    if labels:
        words += ["--labels", labels]
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), *map(str, words)],
        env={**environment, "PATH": path, "RAY_raylet_start_wait_time_s": "240"}, cwd=folder,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    head = Head(f"http://127.0.0.1:{dashboard}", folder)
    _wait_for(head)
    return head


def _wait_for(head: Head) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{head.address}/api/version", timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
        else:
            return


def _kill(folder: Path) -> None:
    """Kill what names the folder on its command line, and what that has started."""
    names = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or []):
            names.append(process)
    family = {child for process in names for child in _children(process)}
    for process in {*names, *family}:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs([*names, *family], timeout=10)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = process.children(recursive=True)
    except psutil.Error:
        return []
    return children
