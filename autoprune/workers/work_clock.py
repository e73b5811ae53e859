"""How long a process has worked on its job: what it waits for other processes is no work of its own."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Worked(NamedTuple):
    """Seconds of work on a job, the line of code that it is in, and all lines that led there."""

    seconds: float
    line: str
    trace: str


class _Job(NamedTuple):
    """begun, waits_since: by `time.monotonic()`; the latter while it waits. thread: that works on it."""

    begun: float
    thread: int
    waited: float = 0.0
    waits_since: float | None = None


class WorkClock:
    """Runs while this process has a job and does not wait; one thread works, any other may look."""

    def __init__(self) -> None:
        self._job: _Job | None = None  # replaced whole, so that another thread sees one or the other

    @contextmanager
    def job(self) -> Iterator[None]:
        """Work on a job inside."""
        self._job = _Job(time.monotonic(), threading.get_ident())
        try:
            yield
        finally:
            self._job = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for another process inside: for a lock that it holds, or for what it does."""
        job = self._job
        if job is None or job.waits_since is not None:
            yield
            return
        since = time.monotonic()
        self._job = job._replace(waits_since=since)
        try:
            yield
        finally:
            self._job = job._replace(waited=job.waited + time.monotonic() - since)

    def worked(self) -> Worked:
        """The work on the job so far; 0 seconds where there is none."""
        job = self._job
        if job is None:
            return Worked(0.0, "", "")
        now = time.monotonic() if job.waits_since is None else job.waits_since
        frame = sys._current_frames().get(job.thread)
        lines = traceback.extract_stack(frame) if frame is not None else []
        line = f"{lines[-1].filename} line {lines[-1].lineno} ({lines[-1].name})" if lines else ""
        return Worked(now - job.begun - job.waited, line, "".join(traceback.format_list(lines)))


CLOCK = WorkClock()
"""That of this process, which has one job at a time."""
