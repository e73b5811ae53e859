"""What runs on the cluster: brings a search's inputs, begins it or goes on with it, keeps its copy true.

    python -m autoprune.jobs.driver --root ROOT --run NAME [--code PLACE --import MODULE] -- WORDS

WORDS are those of `autoprune search`, with places of the storage root (`inputs/KEY/NAME`) for what was sent.
Ends with the search's exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import IO, Any

from autoprune.core.cache import content_key
from autoprune.core.errors import AutopruneError, StoppedError
from autoprune.core.redaction import redacted, shown_command
from autoprune.jobs.lease import Lease
from autoprune.jobs.mirror import FILES, LOG, RUNS, Mirror, bring_run
from autoprune.jobs.request import resume_words
from autoprune.jobs.setup_hook import IMPORTS_VARIABLE
from autoprune.jobs.storage_root import StorageRoot, remove_folder
from autoprune.jobs.user_code import top_level
from autoprune.run.folder import RUN
from autoprune.run.status import resume_command
from autoprune.run.whereabouts import SENT_INPUTS
from autoprune.tracking.tracker import FOLDER

JOBS_VARIABLE = "AUTOPRUNE_JOBS"
"""The environment variable that may name the folder, on the cluster's nodes, that jobs work in."""

_PLACE = re.compile(rf"{SENT_INPUTS}/[0-9a-f]{{24}}/[^/]+")
_COMMAND = (
    "from autoprune.jobs.with_driver import end_with_parent; end_with_parent(); "
    "from autoprune.cli.main import main; main()"
)
_LOOK_SECONDS, _STUDY_SECONDS, _LAST_TRIES = 2.0, 10.0, 30


def jobs_folder() -> Path:
    """Where jobs work on this machine: `AUTOPRUNE_JOBS`, or below the user's data folder."""
    import platformdirs

    given = os.environ.get(JOBS_VARIABLE)
    return Path(given) if given else Path(platformdirs.user_data_dir("autoprune")) / "jobs"


def main(arguments: list[str]) -> int:
    """Drive a run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m autoprune.jobs.driver")
    parser.add_argument("--root", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--code")
    parser.add_argument("--import", dest="modules", action="append", default=[])
    parser.add_argument("words", nargs="*")
    asked = parser.parse_args(arguments)
    try:
        with _Driver(StorageRoot(asked.root), asked.run) as driver:
            return driver.run(asked.words, asked.code, asked.modules)
    except AutopruneError as error:
        print(f"autoprune: {redacted(str(error))}", file=sys.stderr, flush=True)
        return error.exit_code


class _Driver:
    """The driver of one run, from when it has the run to itself until its copy is whole."""

    def __init__(self, root: StorageRoot, name: str) -> None:
        self._root, self._name = root, name
        self._home = jobs_folder() / content_key(root.address)[:8]
        self._path = self._home / RUNS / name
        self._log = self._home / "logs" / f"{name}.log"
        self._mirror = Mirror(root, name, self._path, self._log)
        self._lease = Lease(root, f"{RUNS}/{name}")
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._code: int | None = None

    def __enter__(self) -> _Driver:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._lease.take(self._home)
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        code = self._code
        if code is None:
            code = error.exit_code if isinstance(error, AutopruneError) else 1
        if error is not None:
            self._note(f"autoprune: {redacted(str(error))}")
        with contextlib.suppress(AutopruneError, OSError):  # it is said already, or the next driver says it
            self._mirror.copy()
            self._lease.end(code, self._last_line())

    def run(self, words: list[str], code: str | None, modules: list[str]) -> int:
        """Bring what is needed, run the search and copy its folder; the exit code."""
        self._restore()
        inputs = {word: self._root.bring(word, self._home) for word in words if _PLACE.fullmatch(word)}
        words = [str(inputs.get(word, word)) for word in words]
        code_folder = None if code is None else self._root.bring(code, self._home)
        command = ["search", *words, "-o", str(self._path)]
        if (self._path / RUN).is_file():
            command = ["resume", str(self._path), *resume_words(words)]
        self._note(f"$ autoprune {shlex.join(shown_command(command))}   # {socket.gethostname()}")
        if self._stopped:
            raise StoppedError("stopped before it began; the same submit goes on with it")
        # This program's own command, with the words that the user gave it.
        self._process = subprocess.Popen(  # nosec B603
            [sys.executable, "-c", _COMMAND, *command],
            cwd=code_folder or self._home,
            env=_environment(code_folder, modules, self._path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if self._stopped:  # it came between the look and the start
            self._process.send_signal(signal.SIGTERM)
        assert self._process.stdout is not None
        reader = threading.Thread(target=self._print, args=(self._process.stdout,), daemon=True)
        reader.start()
        self._follow()
        reader.join(10)
        ended = self._process.returncode
        self._code = ended if ended >= 0 else 128 - ended
        self._copy_last()
        self._note(f"Fetch     autoprune fetch {self._name}")
        return self._code

    def _restore(self) -> None:
        """Have the run as its last driver left it: on this disk, or from the root."""
        last = self._lease.before
        if last is not None and last.home == self._lease.home and (self._path / RUN).is_file():
            return
        if self._path.exists():  # of a run that the root does not know, or knows better: set aside
            aside = self._path.with_name(f".{self._name}.aside")
            remove_folder(aside)
            os.replace(self._path, aside)
        if self._root.read(f"{RUNS}/{self._name}/{FILES}") is None:
            return
        fresh = self._path.with_name(f".{self._name}.fetched")
        remove_folder(fresh)
        fresh.mkdir(parents=True)
        bring_run(self._root, self._name, fresh)
        log = fresh / LOG
        if log.is_file():
            os.replace(log, self._log)
            with contextlib.suppress(OSError):  # the search's own log is there too
                log.parent.rmdir()
        if (fresh / RUN).is_file():  # else it was refused before it began
            os.replace(fresh, self._path)
        remove_folder(fresh)

    def _follow(self) -> None:
        """Copy the run until its process ends; a root that cannot be written is said once, and tried on."""
        assert self._process is not None
        said = ""
        while self._process.poll() is None:
            try:
                self._lease.beat()
                self._mirror.copy(study_every=_STUDY_SECONDS)
                said = ""
            except (AutopruneError, OSError) as error:
                if not said:
                    said = redacted(str(error))
                    self._note(f"autoprune: the copy of the run waits: {said}")
            try:
                self._process.wait(_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                continue

    def _copy_last(self) -> None:
        for left in reversed(range(_LAST_TRIES)):
            try:
                self._mirror.copy()
                return
            except (AutopruneError, OSError) as error:
                if not left:
                    raise StoppedError(
                        f"the run ended with {self._code} and is whole in {self._path} on "
                        f"{socket.gethostname()}, but its copy is not: {error}"
                    ) from error
                time.sleep(2)

    def _print(self, stream: IO[bytes]) -> None:
        resume = resume_command(self._path)
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            line = line.replace(resume, "the same autoprune submit")
            self._note(line.replace(str(self._path), f"runs/{self._name}"))  # where it is once fetched

    def _note(self, line: str) -> None:
        """A line for whoever follows the job, and for the run's log."""
        print(line, flush=True)
        with self._log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.is_file() else []
        return next((line for line in reversed(lines) if line.startswith("autoprune: ")), "")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)


def _environment(code: Path | None, modules: list[str], run: Path) -> dict[str, str]:
    """Variables of the search: with code of the user it, and every worker that it starts, imports it.

    MLflow writes into the run, which is copied to the root, where no server is named.
    """
    local = f"sqlite:///{run.absolute() / FOLDER / 'mlflow.db'}"
    variables = {"MLFLOW_TRACKING_URI": local, **os.environ}
    if code is None:
        return variables
    paths = [str(code), *filter(None, [variables.get("PYTHONPATH")])]
    variables["PYTHONPATH"] = os.pathsep.join(paths)
    config: dict[str, Any] = json.loads(variables.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    env = config.setdefault("runtime_env", {})
    env["py_modules"] = top_level(code)
    env["worker_process_setup_hook"] = "autoprune.jobs.setup_hook.import_named"
    env.setdefault("env_vars", {})[IMPORTS_VARIABLE] = ",".join(modules)
    variables["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps(config)
    variables["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"  # else Ray drops files that were sent
    return variables


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
