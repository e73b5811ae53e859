"""The process of one tracker: `python -m autoprune.tracking.process NAME RUN`.

A tracker works apart from the search, which feels nothing of its seconds of imports, of a server that is
away, or of a crash. It reads lines of JSON: `{"rows": [[number, values], ...]}` for trials in order, and last
`{"end": STATE}`. It writes such lines, too: `{"place": TEXT}` where the run is to be found, `{"away": CAUSE}`
when it first fails. What it has is noted in `trackers/NAME.json` of the run, so that a resume goes on there.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from autoprune.core.files import read_json, write_json
from autoprune.core.redaction import redacted
from autoprune.tracking.names import TRACKERS
from autoprune.tracking.tracker import FOLDER, Row, Tracker, about_of, ending_of

RETRY_SECONDS = 10.0
"""After how long a tracker that failed is tried again, where no trial ends before."""

_ENDED = "stopped"
"""How a run ended whose driver said nothing: it was killed."""


class Feed:
    """What one tracker has been told, and what it has taken of it."""

    def __init__(self, name: str, run: Path, out: IO[str]) -> None:
        self._name, self._run, self._out = name, run, out
        self._note = run / FOLDER / f"{name}.json"
        self._tracker: Tracker | None = None
        self._rows: list[Row] = []
        self._state = ""
        self._is_away = False

    def follow(self, lines: IO[str]) -> bool:
        """Pass on what is read until its end; whether the tracker has all of it."""
        kind = TRACKERS[self._name]
        with contextlib.suppress(Exception):  # is raised again, and told, when the tracker is opened
            importlib.import_module(kind.package)
        messages: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(lines, messages), daemon=True).start()
        while not self._state:
            with contextlib.suppress(queue.Empty):
                self._take(messages.get(timeout=RETRY_SECONDS if self._is_away else None))
            while not messages.empty():
                self._take(messages.get())
            self._pass_on()
        return not self._is_away

    def _take(self, message: Mapping[str, Any]) -> None:
        self._rows += [Row(number, values) for number, values in message.get("rows", ())]
        self._state = self._state or message.get("end", "")

    def _pass_on(self) -> None:
        """Write what there is; where that fails it stays, and the first time it is told."""
        try:
            tracker = self._tracker or self._open()
            self._rows = [row for row in self._rows if row.number > tracker.logged]
            if self._rows:
                tracker.log(self._rows)
                self._rows = []
                self._write_note(tracker)
            if self._state:
                tracker.finish(ending_of(self._run, self._state))
            self._is_away = False
        except Exception as error:
            if not self._is_away:
                cause = " ".join(str(error).split())[:300]
                self._say({"away": redacted(f"{type(error).__name__}: {cause}")})
            self._is_away = True

    def _open(self) -> Tracker:
        noted: Mapping[str, Any] = read_json(self._note) if self._note.is_file() else {}
        kind = TRACKERS[self._name]
        make = getattr(importlib.import_module(kind.module), kind.attribute)
        tracker: Tracker = make(about_of(self._run), noted)
        self._tracker = tracker
        self._write_note(tracker)
        self._say({"place": tracker.place})
        return tracker

    def _write_note(self, tracker: Tracker) -> None:
        self._note.parent.mkdir(exist_ok=True)
        write_json(self._note, {**tracker.noted, "logged": tracker.logged})

    def _say(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the driver was killed
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()


def _read(lines: IO[str], messages: queue.SimpleQueue[Mapping[str, Any]]) -> None:
    for line in lines:
        messages.put(json.loads(line))
    messages.put({"end": _ENDED})


def main() -> int:
    """Follow one run; 1 where the tracker did not take all of it."""
    name, run = sys.argv[1:]
    with contextlib.suppress(AttributeError, OSError):  # Windows has none
        os.nice(10)  # nobody waits for it, and latency may be timed meanwhile
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print, too
    return 0 if Feed(name, Path(run), out).follow(sys.stdin) else 1


if __name__ == "__main__":
    sys.exit(main())
