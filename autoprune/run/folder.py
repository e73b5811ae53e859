"""The run folder: what was asked, the lock, the state, the front; all of it readable by a person.

Imports no torch, so that `report` and `status` answer at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import filelock

from autoprune.core.database_address import resumed_storage
from autoprune.core.errors import AutopruneError
from autoprune.core.files import (
    file_hash,
    read_json,
    why_unwritable,
    write_json,
    written_whole,
)
from autoprune.run.config import Config
from autoprune.run.links import check_links
from autoprune.run.run_lock import HOLDER, LOCK, locked
from autoprune.run.scrub import EXPORT, HASHES, scrub_and_say
from autoprune.run.text import quoted_path

if TYPE_CHECKING:
    from autoprune.run.run_record import RunRecord

RUN, STATUS, FRONT, UNITS, STUDY = "run.json", "status.json", "front.json", "units.json", "study.db"
SENSITIVITY = "sensitivity.json"
OWN_STUDY = "autoprune"
"""Name of the study in a run's own `study.db`."""
LOG = "logs/search.log"
"""What the searches of a run said, one after another."""
MODEL = "model.safetensors"
"""Weights of a trial that is kept."""
FAILED = ".failed"
"""Ends the name of an exported model that failed its checks."""


@dataclass
class RunFolder:
    """One run on disk. The driver holds its lock from `open` to `close`.

    storage: address of the study's database with its secret, which no file has. is_new: made by this process.
    workers: tells what the workers do, for `status.json`.
    """

    path: Path
    lock: filelock.FileLock = field(repr=False)
    storage: str | None = field(default=None, repr=False)
    is_new: bool = False
    workers: Callable[[], Mapping[str, Any]] = field(default=dict, repr=False)
    _last: tuple[str, dict[str, object]] = field(default=("", {}), repr=False)

    @classmethod
    def create(cls, path: Path, config: Config, command: str) -> Self:
        """Start a new run; a folder that holds anything is refused, and where it fails no folder is left."""
        check_new_run(path)
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        lock: filelock.FileLock | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = locked(path)
            write_json(path / RUN, _first_record(path, config, command).as_json())
        except BaseException:
            if lock is not None:
                lock.release()
            _remove_begun(path, new)
            raise
        return cls(path, lock, config.search.storage, is_new=True)

    @classmethod
    def open(cls, path: Path, storage: str | None = None) -> Self:
        """Take up a run that is there.

        Args:
            storage: address of the study's database, where the one noted lacks its secret.
        """
        check_run_folder(path)
        if not (path / RUN).is_file():  # other commands do with less
            raise AutopruneError(f"{path} is no run folder: it has no {RUN}")
        noted = _settings(path).get("storage")
        if noted is not None and not isinstance(noted, str):
            raise AutopruneError(f"{path / RUN} is damaged: its setting storage is {noted!r:.60}, no text")
        run = cls(path, locked(path), resumed_storage(noted, storage, run=path))
        scrub_and_say(path)
        return run

    def close(self) -> None:
        """Let the lock go."""
        self.lock.release()

    def about(self) -> RunRecord:
        """What `run.json` says."""
        return read_run(self.path)

    def note(self, **facts: object) -> None:
        """Set fields of `run.json`, those of `RunRecord`."""
        about = {**self.about().as_json(), **facts}
        write_json(self.path / RUN, _checked(about, self.path).as_json())

    def config(self) -> Config:
        """What the run was asked for."""
        return run_config(self.path).with_settings(storage=self.storage)

    def study_name(self) -> str:
        """Which study of the database is this run's; runs of before they had an id go by their folder."""
        before = OWN_STUDY if self.storage is None else self.path.name
        return self.about().study or before

    def status(self, state: str, **facts: object) -> None:
        """Say in `status.json` what the driver is doing, and who it is."""
        about = {"state": state, "pid": os.getpid(), "host": socket.gethostname()}
        self._last = state, facts
        workers = {"workers": told} if (told := dict(self.workers())) else {}
        write_json(self.path / STATUS, about | {"updated": time.time()} | workers | facts)

    def status_again(self) -> None:
        """Say the same with what the workers do now."""
        if self._last[0]:
            self.status(self._last[0], **self._last[1])

    def artifact(self, number: int) -> Path:
        """Folder of a front member's model in the packed layout."""
        return artifact_folder(self.path, number)

    def keep_artifact(self, number: int, weights: bytes, config: Mapping[str, Any]) -> None:
        """Write a trial's model."""
        with written_whole(self.artifact(number)) as temporary:
            temporary.mkdir()
            (temporary / MODEL).write_bytes(weights)
            (temporary / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
            hashes = {file.name: file_hash(file) for file in sorted(temporary.iterdir())}
            write_json(temporary / HASHES, {"sha256": hashes})


def artifact_folder(run: Path, number: int) -> Path:
    """Folder of a trial's model in the packed layout."""
    return run / "trials" / f"{number:04d}"


def check_new_run(path: Path) -> None:
    """Raise `AutopruneError` where no run can be begun: a folder that holds anything, or cannot be made.

    What a run leaves that was cut off before it began is nothing.
    """
    if os.path.lexists(path) and (not path.is_dir() or not _begun(path) >= {*path.iterdir()}):
        raise AutopruneError(f"{path} already exists and is kept as it is{_what_is_there(path)}")
    if why := why_unwritable(path):
        raise AutopruneError(f"run folder {path} cannot be made ({why}): give another -o")


def _what_is_there(path: Path) -> str:
    """What to do about a folder that is taken."""
    if not (path / RUN).exists():
        return ". Give another -o"
    told: dict[str, Any] = {}
    with contextlib.suppress(AutopruneError):
        told = read_record(path / STATUS)
    if told.get("exit_code") and not told.get("next"):
        return ": a run that was refused before it had any trial. Delete it, or give another -o"
    return f"; go on with it: autoprune resume {quoted_path(str(path))}. Or give another -o"


def _begun(path: Path) -> set[Path]:
    """What is in a folder before it is a run."""
    return {path / LOCK, path / HOLDER, *path.glob(f".{HOLDER}.*"), *path.glob(f".{RUN}.*")}


def _remove_begun(path: Path, new: list[Path]) -> None:
    """Take away a run that could not be begun, and the folders that are new."""
    for file in (path / RUN, path / HOLDER, path / LOCK):
        file.unlink(missing_ok=True)
    for folder in new:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _first_record(path: Path, config: Config, command: str) -> RunRecord:
    from autoprune.run.run_record import RunRecord

    identity = uuid.uuid4().hex[:12]
    return RunRecord(
        version=1,
        id=identity,
        study=OWN_STUDY if config.search.storage is None else f"{path.resolve().name}-{identity}",
        command=command,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        config=config.as_json(),
    )


def check_run_folder(path: Path) -> None:
    """Raise `AutopruneError` where there is no folder, none of a run, or one with links that lead out of it.

    An exported model is no run.
    """
    if not path.is_dir():
        raise AutopruneError(
            f"run folder {str(path)!r} does not exist (looked in {Path.cwd()}): give the folder that a "
            "search wrote, by default one below runs/"
        )
    if not (path / RUN).exists() and (path / EXPORT).is_file():
        failed = ", which failed its checks" if FAILED in path.name else ""
        raise AutopruneError(
            f"{path} is an exported model{failed}, and no run folder; measure it with: autoprune bench {path}"
        )
    if not any((path / name).exists() for name in (RUN, STATUS, FRONT)):
        raise AutopruneError(f"{path} is no run folder: it has no {RUN}")
    check_links(path)


def read_run(path: Path) -> RunRecord:
    """What the `run.json` of a run folder says."""
    return _checked(read_record(path / RUN), path)


def run_config(path: Path) -> Config:
    """What the run in a folder was asked for, as it was given."""
    return Config.from_json(_settings(path))


def _checked(about: Mapping[str, Any], path: Path) -> RunRecord:
    from autoprune.core.record import checked  # takes long: pydantic
    from autoprune.run.run_record import RunRecord

    return checked(RunRecord, about, str(path / RUN))


def _settings(path: Path) -> dict[str, Any]:
    """What `run.json` says that was asked for, as it stands there."""
    check_run_folder(path)
    config = read_record(path / RUN).get("config")
    if not isinstance(config, dict):
        raise AutopruneError(f"{path / RUN} is damaged: it has no object `config`")
    return config


def read_record(path: Path) -> dict[str, Any]:
    """One of the run's JSON files; one clear error for one that is missing or damaged."""
    try:
        data = read_json(path)
    except OSError as error:
        raise AutopruneError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise AutopruneError(f"{path} is damaged (not JSON): {error}") from error
    if not isinstance(data, dict):
        raise AutopruneError(f"{path} is damaged: an object is needed")
    return data
