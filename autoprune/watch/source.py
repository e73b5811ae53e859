"""Where a run that is watched is read from, and how it is stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from autoprune.core.errors import AutopruneError
from autoprune.jobs.local_run import stop_local
from autoprune.run.folder import FRONT, RUN
from autoprune.run.status import BUSY, read_front_file, read_status

if TYPE_CHECKING:
    from autoprune.jobs.remote_run import RemoteRun

STOP_SECONDS = 150.0
"""How long a driver may take to save what is finished."""


class Source(Protocol):
    """A run that is watched. Raises, in all: AutopruneError where the run cannot be read or stopped."""

    @property
    def name(self) -> str:
        """What the run is called."""

    def status(self) -> Mapping[str, Any]:
        """As `run/status.read_status` gives it."""

    def front(self) -> dict[str, Any] | None:
        """`front.json`; None where there is none yet."""

    def stop(self) -> None:
        """End its driver as Ctrl-C does, and wait until it has: what is finished is saved."""


class LocalSource:
    """A run folder on this machine, its own or copied."""

    def __init__(self, run: Path) -> None:
        self._run = run
        read_status(run) if (run / "status.json").exists() else _check_begun(run)

    @property
    def name(self) -> str:
        return str(self._run)

    def status(self) -> Mapping[str, Any]:
        return read_status(self._run)

    def front(self) -> dict[str, Any] | None:
        return read_front_file(self._run) if (self._run / FRONT).is_file() else None

    def stop(self) -> None:
        if not stop_local(self._run, seconds=STOP_SECONDS):
            raise AutopruneError(f"run {self._run} is not under way")


class RemoteSource:
    """A run of a cluster, by its storage root."""

    def __init__(self, run: RemoteRun) -> None:
        self._run = run

    @property
    def name(self) -> str:
        return self._run.name

    def status(self) -> Mapping[str, Any]:
        return self._run.status()

    def front(self) -> dict[str, Any] | None:
        return self._run.front()

    def stop(self) -> None:
        if self._run.stop(seconds=STOP_SECONDS) is None:
            raise AutopruneError(f"run {self._run.name} is not under way")


class Followed:
    """What a source said last; asked again at most every `seconds`, by whichever thread needs it.

    A status that cannot be read for a moment is the last one, with the cause in "unread".
    """

    def __init__(self, source: Source, *, seconds: float) -> None:
        self.source = source
        self._seconds, self._lock = seconds, threading.Lock()
        self._asked = {"status": -1e9, "front": -1e9}
        self._status: Mapping[str, Any] = {"state": "unknown", "trials": 0}
        self._front: dict[str, Any] | None = None
        self._version = ""

    def status(self) -> Mapping[str, Any]:
        """The status, with a text in "front" that changes with `front.json`."""
        with self._lock:
            if self._is_due("status"):
                try:
                    self._status = self.source.status()
                except AutopruneError as error:
                    self._status = {**self._status, "unread": str(error)}
            self._read_front()
            return {**self._status, "front": self._version}

    def front(self) -> dict[str, Any] | None:
        """`front.json`, the last that could be read."""
        with self._lock:
            self._read_front()
            return self._front

    def is_over(self) -> bool:
        """Whether nobody works on the run any more, as far as can be told."""
        now = self.status()
        return now["state"] not in (*BUSY, "submitted", "unknown") or now.get("driver") == "gone"

    def _is_due(self, what: str) -> bool:
        now = time.monotonic()
        if now - self._asked[what] < self._seconds:
            return False
        self._asked[what] = now
        return True

    def _read_front(self) -> None:
        if not self._is_due("front"):
            return
        with contextlib.suppress(AutopruneError):
            self._front = self.source.front()
        if self._front is not None:
            text = json.dumps(self._front, sort_keys=True)
            self._version = hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_begun(run: Path) -> None:
    """Raise AutopruneError where a folder without a status is no run either."""
    if not (run / RUN).is_file():
        raise AutopruneError(f"{run} is no run folder: it has no {RUN}")
