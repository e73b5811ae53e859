"""A room the whole machine shares: work goes on together, latency is timed alone.

Every process of ours that computes does so inside `busy()`; whoever measures latency does so
inside `alone()` and knows that nothing else of ours runs meanwhile. The locks are `flock`s, so the
kernel frees them when their holder is killed. There are two files, a door and a gate. Who is busy
holds the door shared and passes through the gate; who wants to be alone shuts the gate first, then
waits for the door: those inside finish, nobody new gets in, and a waiting timing cannot be starved
by processes that come and go (the turnstile of Downey, The Little Book of Semaphores, section 4.2).
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import stat
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.core.files import NO_LOCKS, reason_of
from autoprune.workers.work_clock import CLOCK

# A freed flock is not handed over: who frees it could take it again before those who wait wake up.
_HANDOVER_SECONDS = 0.001


ROOM_VARIABLE = "AUTOPRUNE_ROOM"
"""Names the folder to meet in, where it is not the temporary folder."""


class Room:
    """One file to meet at; all processes that give the same `path` share the room.

    A process makes one Room a path and uses it from one thread at a time: two Rooms of one process
    would wait for each other like strangers. Nesting within a Room: what is already granted does
    nothing (`busy` inside either, `alone` inside `alone`), and `alone` inside `busy` raises
    RuntimeError, because two processes that did so would wait for each other for ever. A child
    forked inside is outside, and opens the room anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._door = self._gate = -1  # open file descriptors
        self._inside = ""
        _ROOMS.add(self)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Work beside others: a training step or an evaluation batch, best under a second.

        Waits while somebody is alone or waits to be. Costs a few microseconds otherwise.
        """
        if self._inside:
            yield
            return
        self._open()
        try:
            try:
                self._lock(self._gate, fcntl.LOCK_SH)
                self._lock(self._door, fcntl.LOCK_SH)
            finally:
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(self._gate, fcntl.LOCK_UN)
            self._inside = "busy"
            yield
        finally:
            self._leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Time something: waits until all who are busy have left and keeps others out.

        Raises:
            RuntimeError: inside this Room's own `busy()`.
        """
        if self._inside == "busy":
            raise RuntimeError("alone() inside busy() would wait for itself: leave busy() first")
        if self._inside:
            yield
            return
        self._open()
        try:
            self._lock(self._gate, fcntl.LOCK_EX)
            self._lock(self._door, fcntl.LOCK_EX)
            self._inside = "alone"
            yield
        finally:
            self._leave()
            time.sleep(_HANDOVER_SECONDS)

    def _open(self) -> None:
        if self._door < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            gate = self._path.with_name(self._path.name + ".gate")
            self._gate = os.open(gate, flags, 0o600)
            self._door = os.open(self._path, flags, 0o600)

    def _lock(self, descriptor: int, how: int) -> None:
        try:
            with CLOCK.waiting():
                fcntl.flock(descriptor, how)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise AutopruneError(
                f"{self._path.parent} lies on a file system without locks ({reason_of(error)}), which keep "
                "work away while latency is timed: set TMPDIR to a folder on a local disk"
            ) from error

    def _leave(self) -> None:
        self._inside = ""
        if self._door >= 0:  # a child forked inside has closed them
            with contextlib.suppress(OSError):
                fcntl.flock(self._door, fcntl.LOCK_UN)
                fcntl.flock(self._gate, fcntl.LOCK_UN)

    def _close(self) -> None:
        for descriptor in (self._door, self._gate):
            if descriptor >= 0:
                os.close(descriptor)
        self._door = self._gate = -1
        self._inside = ""

    def __del__(self) -> None:
        try:  # noqa: SIM105 (at exit every imported module may be gone already)
            self._close()
        except AttributeError:
            pass  # `os` is None: the process ends, and the kernel closes the descriptors


_ROOMS: weakref.WeakSet[Room] = weakref.WeakSet()


def _after_fork() -> None:
    # A lock lives as long as any copy of its descriptor: the child's would outlive a killed parent.
    for room in list(_ROOMS):
        room._close()


os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def default_room() -> Room:
    """This user's room on this machine, under the temporary folder or `AUTOPRUNE_ROOM`; one a process.

    Containers of one host meet in a folder of the host that all of them mount and name so. Nothing else is
    common to them: each has its own /dev/shm, and abstract sockets belong to a network. Users do not meet.

    Raises:
        AutopruneError: the folder there is not ours alone.
    """
    place = os.environ.get(ROOM_VARIABLE) or tempfile.gettempdir()
    folder = Path(place) / f"autoprune-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise AutopruneError(
            f"{folder} cannot be made ({reason_of(error)}): set TMPDIR, or {ROOM_VARIABLE}, to a folder of "
            "your own"
        ) from error
    status = folder.lstat()
    private = stat.S_ISDIR(status.st_mode) and not stat.S_IMODE(status.st_mode) & 0o077
    if not private or status.st_uid != os.getuid():
        raise AutopruneError(
            f"{folder} must be a folder that only user {os.getuid()} can open, and has mode "
            f"{stat.S_IMODE(status.st_mode):o} and owner {status.st_uid}. "
            "Remove it, or set TMPDIR to a folder of your own."
        )
    return Room(folder / "room")
