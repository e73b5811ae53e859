"""A run in TensorBoard: event files in the run folder, in `trackers/tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.tracking.tracker import About, Ending, Row


class TensorBoardTracker:
    """The event files of one run; a `Tracker`. A resumed run goes on in a further file."""

    def __init__(self, about: About, noted: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = about.folder / "tensorboard"
        self.logged: int = noted.get("logged", -1) if any(folder.glob("events.*")) else -1
        self._writer: Any = EventFileWriter(str(folder))
        if self.logged >= 0:  # readers drop what a killed process wrote of later trials: they come again
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(step=self.logged + 1, session_log=start))
        else:
            lines = [f"| {name} | {value} |" for name, value in about.settings.items()]
            self._text("settings", "\n".join(["| setting | value |", "| --- | --- |", *lines]), 0)
        self._writer.flush()
        self.place = f"tensorboard --logdir {folder}"
        self.noted: Mapping[str, Any] = {}

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._scalars(row.values, row.number)
        self._writer.flush()
        self.logged = max(self.logged, *(row.number for row in rows))

    def finish(self, ending: Ending) -> None:
        step = max(self.logged, 0)
        self._scalars({f"best/{name}": value for name, value in ending.best.items()}, step)
        if ending.rows:
            self._text("front", ending.as_markdown(), step)
        if ending.files:
            self._text("files", "\n".join(f"- {path.absolute()}" for path in ending.files), step)
        self._writer.close()

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._add(Summary(value=[Summary.Value(tag=tag, simple_value=x) for tag, x in values.items()]), step)

    def _text(self, tag: str, text: str, step: int) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._add(text_pb(tag, text), step)

    def _add(self, summary: Any, step: int) -> None:
        import time

        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
