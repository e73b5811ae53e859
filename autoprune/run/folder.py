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
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import filelock

from autoprune.core.database_address import resumed_storage
from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json, write_json, written_whole
from autoprune.core.references import import_from
from autoprune.run.config import Config
from autoprune.run.scrub import scrub_and_say

if TYPE_CHECKING:
    from autoprune.run.run_record import RunRecord

RUN, STATUS, FRONT, UNITS, STUDY = "run.json", "status.json", "front.json", "units.json", "study.db"
SENSITIVITY = "sensitivity.json"
OWN_STUDY = "autoprune"
"""Name of the study in a run's own `study.db`."""
LOCK, HOLDER = ".lock", ".holder.json"
"""Who has the lock; `status.json` may be of the process before."""


@dataclass
class RunFolder:
    """One run on disk. The driver holds its lock from `open` to `close`.

    storage: address of the study's database with its secret, which no file has. is_new: made by this process.
    """

    path: Path
    lock: filelock.FileLock = field(repr=False)
    storage: str | None = field(default=None, repr=False)
    is_new: bool = False

    @classmethod
    def create(cls, path: Path, config: Config, command: str) -> Self:
        """Start a new run; a folder that holds anything is refused."""
        if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
            hint = f"; go on with it: autoprune resume {path}" if (path / RUN).exists() else ""
            raise AutopruneError(f"{path} already exists and is kept as it is{hint}. Or give another -o")
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, _locked(path), config.search.storage, is_new=True)
        identity = uuid.uuid4().hex[:12]
        from autoprune.run.run_record import RunRecord

        about = RunRecord(
            version=1,
            id=identity,
            study=OWN_STUDY if config.search.storage is None else f"{path.resolve().name}-{identity}",
            command=command,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            config=config.as_json(),
        )
        write_json(path / RUN, about.as_json())
        return run

    @classmethod
    def open(cls, path: Path, storage: str | None = None) -> Self:
        """Take up a run that is there.

        Args:
            storage: address of the study's database, where the one noted lacks its secret.
        """
        if not (path / RUN).is_file():
            raise AutopruneError(f"{path} is no run folder: it has no {RUN}")
        noted = _settings(path).get("storage")
        run = cls(path, _locked(path), resumed_storage(noted, storage, run=path))
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
        write_json(self.path / STATUS, about | {"updated": time.time()} | facts)

    def artifact(self, number: int) -> Path:
        """Folder of a front member's model in the packed layout."""
        return self.path / "trials" / f"{number:04d}"

    def keep_artifact(self, number: int, weights: bytes, config: Mapping[str, Any]) -> None:
        """Write a trial's model."""
        with written_whole(self.artifact(number)) as temporary:
            temporary.mkdir()
            (temporary / "model.safetensors").write_bytes(weights)
            (temporary / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def located(config: Config, path: Path) -> Config:
    """The settings of the run at `path` with the absolute paths that its inputs had when it began.

    An input that has gone from there is looked for as it was given. Functions can be imported from the folder
    that the run was started in.
    """
    inputs = read_run(path).inputs
    if inputs is None:
        return config
    named = (config.model.name, config.data.dataset, config.task.name)
    if inputs.folder and any(":" in str(name) for name in named):
        import_from(inputs.folder)
    given = config.as_json()
    kept = {
        name: path
        for name, path in inputs.paths.items()
        if Path(path).exists() or not Path(given[name]).exists()
    }
    return config.with_settings(**kept)


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
    config = read_record(path / RUN).get("config")
    if not isinstance(config, dict):
        raise AutopruneError(f"{path / RUN} is damaged: it has no object `config`")
    return config


def _locked(path: Path) -> filelock.FileLock:
    lock = filelock.FileLock(path / LOCK)
    try:
        lock.acquire(timeout=1.0)
    except filelock.Timeout as error:
        holder = ""
        with contextlib.suppress(AutopruneError):
            about = read_record(path / HOLDER)
            holder = f" by process {about.get('pid')} on {about.get('host')}"
        raise AutopruneError(f"run {path} is being worked on{holder}; wait for it or stop it") from error
    write_json(path / HOLDER, {"pid": os.getpid(), "host": socket.gethostname()})
    return lock


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
