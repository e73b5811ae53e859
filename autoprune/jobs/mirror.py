"""A run folder and its copy in the storage root: written as the run goes on, and brought back from there.

The folder on the head's disk is the truth while a driver works on it, since a study's database needs locks
and renames that object stores do not have. What changed is copied every few seconds; the database as a
snapshot that SQLite makes, before the files that sum it up. A list of the files with their hashes is written
last, so that whoever reads the copy meanwhile knows whether it has all of one moment.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.core.files import file_hash
from autoprune.jobs.contents import check_relative
from autoprune.jobs.storage_root import StorageRoot
from autoprune.run.folder import STUDY
from autoprune.run.run_lock import HOLDER, LOCK

RUNS, JOB = "runs", ".job"
"""Folder of a storage root with its runs; folder of such a run with what is said of its jobs."""

FILES = f"{JOB}/files.json"
LOG = "logs/job.log"
"""All that the drivers of a run printed, one after another."""

_NEVER = (LOCK, HOLDER, f"{STUDY}-wal", f"{STUDY}-shm", f"{STUDY}-journal")
_TRIES, _PAUSE_SECONDS = 5, 2.0


class Mirror:
    """Copies of one run folder in a storage root.

    Args:
        run: the folder, which may not be there yet.
        log: a file beside it, of what its driver prints: `LOG` of the copy.
    """

    def __init__(self, root: StorageRoot, name: str, run: Path, log: Path) -> None:
        self._root, self._place = root, f"{RUNS}/{name}"
        self._run, self._log = run, log
        self._seen: dict[str, tuple[int, int]] = {}  # of each file that is copied: nanoseconds, bytes
        self._listed: dict[str, list[Any]] = {}
        self._snapshot = -1e9

    def copy(self, *, study_every: float = 0.0) -> bool:
        """Copy what changed; whether anything did. study_every: seconds between two snapshots of the study.

        Raises:
            AutopruneError: where the root cannot be written; what was copied stays as it is.
        """
        sources = dict(self._sources())
        gone = [path for path in self._listed if path not in sources]
        changed = [path for path, source in sources.items() if self._is_changed(path, source)]
        now = time.monotonic()
        if STUDY in changed and now - self._snapshot < study_every:
            changed = [path for path in changed if path == LOG]  # what sums it up waits for it
            gone = []
        if not changed and not gone:
            return False
        for path in sorted(changed, key=_order):
            if path == STUDY:
                self._snapshot = now
            with contextlib.suppress(FileNotFoundError):  # a trial that is no longer kept
                self._put(path, sources[path])
        for path in gone:
            del self._listed[path]
            self._seen.pop(path, None)
        self._root.write_json(f"{self._place}/{FILES}", {"version": 1, "files": self._listed})
        for path in gone:
            self._root.remove(f"{self._place}/{path}")
        return True

    def _sources(self) -> Iterator[tuple[str, Path]]:
        if self._run.is_dir():
            for path in sorted(self._run.rglob("*")):
                relative = path.relative_to(self._run)
                hidden = any(part.startswith(".") for part in relative.parts)  # not whole yet
                if path.is_file() and not hidden and relative.name not in _NEVER:
                    yield relative.as_posix(), path
        if self._log.is_file():
            yield LOG, self._log

    def _is_changed(self, path: str, source: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return self._seen.get(path) != _stamp(source)
        return False

    def _put(self, path: str, source: Path) -> None:
        stamp = _stamp(source)
        with tempfile.TemporaryDirectory(prefix="autoprune-mirror-") as folder:
            if path == STUDY:
                copy = Path(folder) / STUDY
                _snapshot(source, copy)
                source = copy
            elif path == LOG:  # is written meanwhile
                copy = Path(folder) / "log"
                copy.write_bytes(source.read_bytes())
                source = copy
            row = [source.stat().st_size, file_hash(source)]
            if self._listed.get(path) != row:
                self._root.put(f"{self._place}/{path}", source)
        self._listed[path], self._seen[path] = row, stamp


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    stamp = (stat.st_mtime_ns, stat.st_size)
    if path.name == STUDY:  # in the mode WAL a commit changes the file beside it
        wal = path.with_name(f"{STUDY}-wal")
        with contextlib.suppress(FileNotFoundError):
            stat = wal.stat()
            stamp = (max(stamp[0], stat.st_mtime_ns), stamp[1] + stat.st_size)
    return stamp


def _order(path: str) -> tuple[int, str]:
    """The study first: what sums up fewer trials than there are is mended by a resume, not the reverse."""
    return (0 if path == STUDY else 1 if path.startswith("trials/") else 2, path)


def _snapshot(source: Path, copy: Path) -> None:
    """A copy of a database in use, of one moment (SQLite's online backup).

    Opened for writing: what a killed writer left half done is undone first, and a reader may not do that.
    """
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as before,
        contextlib.closing(sqlite3.connect(copy)) as after,
    ):
        before.backup(after)


def listed_files(root: StorageRoot, name: str) -> dict[str, str]:
    """SHA-256 of each file of a run's copy, by its path; none where nothing was copied yet.

    Raises:
        AutopruneError: where the list is damaged.
    """
    where = f"{RUNS}/{name}/{FILES}"
    files = (root.read_json(where) or {}).get("files", {})
    if not isinstance(files, dict):
        raise AutopruneError(f"{root.full(where)} is damaged: it has no object `files`")
    try:
        return {check_relative(path, where=root.full(where)): str(row[1]) for path, row in files.items()}
    except (TypeError, LookupError) as error:
        raise AutopruneError(f"{root.full(where)} is damaged: {error}") from error


def bring_run(root: StorageRoot, name: str, target: Path) -> int:
    """Copy a run from the root into a folder that is there; the number of its files.

    Raises:
        AutopruneError: where the root has no such run, or no moment of it could be had whole.
    """
    problem = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        files = listed_files(root, name)
        if not files:
            raise AutopruneError(f"{root.full(f'{RUNS}/{name}')} holds no files of a run")
        problem = ""
        for path, sha256 in files.items():
            copy = target / path
            if copy.is_file() and file_hash(copy) == sha256:
                continue
            try:
                if root.get(f"{RUNS}/{name}/{path}", copy) != sha256:
                    problem = f"{path} is not what its hash says"
            except FileNotFoundError:
                problem = f"{path} is missing"
            if problem:
                break  # it was just written anew, or is damaged
        else:
            for copy in [*target.rglob("*")]:
                if copy.is_file() and copy.relative_to(target).as_posix() not in files:
                    copy.unlink()
            return len(files)
    raise AutopruneError(
        f"{root.full(f'{RUNS}/{name}')} could not be copied whole in {_TRIES} tries: {problem}. Try again"
    )
