"""The words for a cluster's runs, on a run of this machine: its log, and the end of its driver."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.jobs.mirror import LOG as JOB_LOG
from autoprune.run.folder import LOG, STATUS, check_run_folder, read_record
from autoprune.run.run_lock import HOLDER
from autoprune.run.status import driver_of

_POLL_SECONDS = 0.5


def local_log(run: Path, *, follow: bool = False) -> Iterator[str]:
    """What a run's search said, or a fetched run's jobs printed; with `follow` until its driver ends.

    Raises:
        AutopruneError: where there is no run, or no log: versions before wrote none.
    """
    check_run_folder(run)
    paths = [run / name for name in (LOG, JOB_LOG) if (run / name).is_file()]
    if not paths:
        raise AutopruneError(
            f"run {run} has no log: it is of a version that wrote none, or has not begun. See how it is "
            f"with: autoprune status {run}"
        )
    latest = max(paths, key=lambda path: path.stat().st_mtime)
    with latest.open(encoding="utf-8", errors="replace") as file:
        while True:
            is_over = not (follow and is_driven(run))
            if text := file.read():
                yield text
            if is_over:
                return
            time.sleep(_POLL_SECONDS)


def local_exit_code(run: Path) -> int:
    """What a run's driver ended with; 137 where it ended without a word."""
    now = read_record(run / STATUS)
    code = now.get("exit_code")
    return code if isinstance(code, int) else 137


def is_driven(run: Path) -> bool:
    """Whether a process of this machine, or one whose locks are seen here, works on a run."""
    return driver_of(run, {}) == "alive"


def stop_local(run: Path, *, seconds: float) -> bool:
    """End the driver of a run (SIGTERM) and wait until it has; False where there was none.

    Raises:
        AutopruneError: where it is of another machine, or has not ended in so many seconds.
    """
    check_run_folder(run)
    if not is_driven(run):
        return False
    holder = read_record(run / HOLDER)
    pid, host = holder.get("pid"), holder.get("host")
    if host != socket.gethostname() or not isinstance(pid, int):
        raise AutopruneError(f"run {run} is worked on by process {pid} on {host}: stop it there")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while is_driven(run):
        if time.monotonic() > deadline:
            raise AutopruneError(f"process {pid} of run {run} has not ended in {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)
    return True
