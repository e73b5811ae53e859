"""The driver's side of trackers: a process each, which is told of every trial and never waited for."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from autoprune.core.errors import StoppedError
from autoprune.core.progress import Progress
from autoprune.run.status import resume_command
from autoprune.space.trial import Trial
from autoprune.tasks.metrics import Metric
from autoprune.tracking.tracker import rows_of

END_SECONDS = 120.0
"""How long an ended search waits for a tracker that has not failed: it may be importing still."""

AWAY_SECONDS = 3.0
"""The same for one that has failed."""

STOP_SECONDS = 6.0
"""The same where the search did not finish: who ends it wants it to end."""


class Tracking:
    """A run in all the trackers that were asked for. Nothing here raises, whatever a tracker does."""

    def __init__(self, run: Path, names: Sequence[str], progress: Progress) -> None:
        self._followers = [_Follower(name, run, progress) for name in names]
        self._metric: Metric | None = None
        self._told, self._failed = -1, 0

    def begin(self, metric: Metric, trials: Iterable[Trial]) -> None:
        """Tell of the trials that a run has already: trackers leave out those that they have."""
        self._metric = metric
        self.tell(trials)

    def tell(self, trials: Iterable[Trial]) -> None:
        """Tell of trials, of which those that were told already are left out."""
        if self._metric is None or not self._followers:
            return
        new = sorted((t for t in trials if t.number > self._told), key=lambda trial: trial.number)
        if not new:
            return
        rows = rows_of(new, self._metric, failed=self._failed)
        self._told, self._failed = new[-1].number, self._failed + sum(t.failure is not None for t in new)
        for follower in self._followers:
            follower.send({"rows": [[row.number, row.values] for row in rows]})

    def end(self, state: str) -> None:
        """Say how the run ended, and wait until all have it that do not fail."""
        for follower in self._followers:
            follower.send({"end": state})
        begun = time.monotonic()
        for follower in self._followers:
            follower.close(begun, END_SECONDS if state == "finished" else STOP_SECONDS)


@contextlib.contextmanager
def tracking(run: Path, names: Sequence[str], progress: Progress) -> Iterator[Tracking]:
    """Follow a run in trackers until what is done inside ends."""
    followed = Tracking(run, names, progress)
    try:
        yield followed
    except (KeyboardInterrupt, StoppedError):
        followed.end("stopped")
        raise
    except BaseException:
        followed.end("failed")
        raise
    followed.end("finished")


class _Follower:
    """One tracker's process, from this side."""

    def __init__(self, name: str, run: Path, progress: Progress) -> None:
        self._name, self._run, self._progress = name, run, progress
        self._is_away, self._left = False, False
        self._messages: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._process = self._started()
        if self._process is not None:
            for work, stream in ((self._write, self._process.stdin), (self._hear, self._process.stdout)):
                assert stream is not None
                threading.Thread(target=work, args=(stream,), daemon=True).start()

    def send(self, message: Mapping[str, Any]) -> None:
        self._messages.put(message)

    def close(self, begun: float, seconds: float) -> None:
        """Wait for the process until `seconds` after `begun`, and less for one that fails; then end it."""
        self._messages.put(None)
        process = self._process
        if process is None:
            return
        while process.poll() is None:
            if time.monotonic() - begun > (min(AWAY_SECONDS, seconds) if self._is_away else seconds):
                process.kill()
                process.wait()
                break
            time.sleep(0.05)
        if process.returncode != 0:
            again = resume_command(self._run)
            self._say(f"{self._name} does not have all of the run; {again} gives it what it lacks")

    def _started(self) -> subprocess.Popen[str] | None:
        root = Path(__file__).parents[2]
        paths = [str(root), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        # -P: a folder of a tracker's name where this is called from must not be imported.
        command = [sys.executable, "-P", "-m", "autoprune.tracking.process", self._name, str(self._run)]
        try:
            # Words of our own, and no shell. A session of its own: Ctrl-C is for the search, which tells it.
            return subprocess.Popen(  # nosec B603
                command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._say(f"{self._name} cannot be started ({error}); the search goes on without it")
            return None

    def _write(self, stream: IO[str]) -> None:
        with contextlib.suppress(OSError, ValueError):  # it ended
            while (message := self._messages.get()) is not None:
                stream.write(json.dumps(message) + "\n")
                stream.flush()
        with contextlib.suppress(OSError):
            stream.close()

    def _hear(self, stream: IO[str]) -> None:
        for line in stream:
            message = json.loads(line)
            if "place" in message:
                self._say(f"{self._name}: {message['place']}")
            if "away" in message and not self._is_away:
                self._is_away = True
                self._say(f"{self._name} fails ({message['away']}); the search goes on")

    def _say(self, text: str) -> None:
        self._progress.line(f"Tracking  {text}")
