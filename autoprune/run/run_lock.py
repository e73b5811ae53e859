"""The lock of a run folder: one driver at a time, and the kernel frees it when that is killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import Any

import filelock

from autoprune.core.errors import AutopruneError
from autoprune.core.files import NO_LOCKS, full_disk, read_json, reason_of, write_json

LOCK, HOLDER = ".lock", ".holder.json"
"""Who has the lock; `status.json` may be of the process before."""


def _check_locks(path: Path) -> None:
    """Raise `AutopruneError` where a folder's file system has no locks, or does not let it be written."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if full_disk(error) is not None:
            raise
        raise AutopruneError(f"run {path} cannot be written ({reason_of(error)}): {_cure(error)}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise AutopruneError(
            f"{path} lies on a file system without locks ({reason_of(error)}), by which one driver keeps "
            "another from a run: give an -o on a local disk, or move the run to one"
        ) from error
    finally:
        os.close(descriptor)


def _cure(error: OSError) -> str:
    if error.errno == errno.EROFS:
        return "mount its disk for writing, or copy it to one that is and give that folder"
    return "set its mode right"


def locked(path: Path) -> filelock.FileLock:
    """Take the lock of a run folder.

    Raises:
        AutopruneError: naming who has it, or why the folder's file system does not do.
    """
    _check_locks(path)
    lock = filelock.FileLock(path / LOCK)
    try:
        lock.acquire(timeout=1.0)
    except filelock.Timeout as error:
        holder = ""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            about: Any = read_json(path / HOLDER)
            holder = f" by process {about.get('pid')} on {about.get('host')}"
        raise AutopruneError(f"run {path} is being worked on{holder}; wait for it or stop it") from error
    try:
        write_json(path / HOLDER, {"pid": os.getpid(), "host": socket.gethostname()})
    except BaseException:
        lock.release()
        raise
    return lock
