"""Who drives a run of a storage root: one driver at a time, on whatever machine.

A storage root has no locks. A driver counts up in a file while it works; another one that finds the file
watches whether it still counts, so that the clocks of two machines are never compared.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from autoprune.core.errors import AutopruneError
from autoprune.core.files import written_whole
from autoprune.jobs.storage_root import StorageRoot

DRIVER, SENT = ".job/driver.json", ".job/sent.json"
BEAT_SECONDS = 5.0
"""How often a driver counts up; one that has not for three times as long is gone."""

RUNNING, ENDED = "running", "ended"


@dataclass(frozen=True)
class Driver:
    """What a driver says of itself. home: name of the folder that it works in. attempt: 1 is the first.

    exit_code, last: how it ended, and the last line of its own that it printed. updated: seconds since the
    epoch, by its clock, for people.
    """

    state: str
    attempt: int
    host: str
    pid: int
    home: str
    beat: int = 0
    exit_code: int | None = None
    last: str = ""
    updated: float = 0.0

    @classmethod
    def read(cls, root: StorageRoot, place: str) -> Self | None:
        """Of a run at a place of the root; None where it never had one."""
        data = root.read_json(f"{place}/{DRIVER}")
        if data is None:
            return None
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in data.items() if name in known})
        except TypeError as error:
            raise AutopruneError(f"{root.full(f'{place}/{DRIVER}')} is damaged: {error}") from error


@dataclass(frozen=True)
class Sent:
    """The last job that was sent to drive a run. after: attempts that its drivers had made until then."""

    job: str
    after: int

    @classmethod
    def read(cls, root: StorageRoot, place: str) -> Self | None:
        """Of a run at a place of the root; None where none was noted, as by earlier versions."""
        data = root.read_json(f"{place}/{SENT}")
        try:
            return None if data is None else cls(str(data["job"]), int(data["after"]))
        except (KeyError, TypeError, ValueError) as error:
            raise AutopruneError(f"{root.full(f'{place}/{SENT}')} is damaged: {error}") from error

    @classmethod
    def note(cls, root: StorageRoot, place: str, job: str) -> None:
        """Note that a job is sent now."""
        before = Driver.read(root, place)
        sent = cls(job, 0 if before is None else before.attempt)
        root.write_json(f"{place}/{SENT}", asdict(sent))


class Lease:
    """A run of the root, for one driver. place: the run's folder in the root."""

    def __init__(self, root: StorageRoot, place: str) -> None:
        self._root, self._place = root, place
        self.before: Driver | None = None
        self.home = ""
        self._now: Driver | None = None
        self._beaten = 0.0

    def take(self, home: Path, *, watch_seconds: float = 3 * BEAT_SECONDS) -> None:
        """Become the run's driver.

        Raises:
            AutopruneError: where another one is at work.
        """
        self.home = _name_of_folder(home)
        self.before = Driver.read(self._root, self._place)
        if self.before is not None and self.before.state == RUNNING and not self._is_dead(self.before):
            deadline = time.monotonic() + watch_seconds
            while time.monotonic() < deadline:
                time.sleep(0.5)
                if Driver.read(self._root, self._place) != self.before:
                    raise AutopruneError(
                        f"run {self._root.full(self._place)} is being worked on by process "
                        f"{self.before.pid} on {self.before.host}; wait for it or stop it"
                    )
        attempt = 1 if self.before is None else self.before.attempt + 1
        self._write(Driver(RUNNING, attempt, socket.gethostname(), os.getpid(), self.home))

    def beat(self) -> None:
        """Count up, when it is time.

        Raises:
            AutopruneError: where the root cannot be written.
        """
        if self._now is not None and time.monotonic() - self._beaten >= BEAT_SECONDS:
            self._write(_with(self._now, beat=self._now.beat + 1))

    def end(self, exit_code: int, last: str) -> None:
        """Say how it ended, and let the run go."""
        if self._now is not None:
            self._write(_with(self._now, state=ENDED, exit_code=exit_code, last=last))

    def _write(self, driver: Driver) -> None:
        self._now = _with(driver, updated=time.time())
        self._root.write_json(f"{self._place}/{DRIVER}", asdict(self._now))
        self._beaten = time.monotonic()

    def _is_dead(self, driver: Driver) -> bool:
        """Whether a driver was of this machine and folder, and its process is no more."""
        is_here = (driver.host, driver.home) == (socket.gethostname(), self.home)
        return is_here and not Path(f"/proc/{driver.pid}").exists()


def _with(driver: Driver, **changes: Any) -> Driver:
    return Driver(**{**asdict(driver), **changes})


def _name_of_folder(folder: Path) -> str:
    """A name that no other folder has: hosts and paths may be alike in containers and clusters."""
    path = folder / ".name"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(path, keep=True) as temporary:
            temporary.write_text(uuid.uuid4().hex, encoding="ascii")
    return path.read_text(encoding="ascii")
