"""What every line does, and how one is measured: as a trial is, from the file that it was saved in."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from autoprune.evaluation.timers import Timer
from autoprune.evaluation.workbench import Workbench
from autoprune.workers.pool import Job

HeldOut = Literal["validation", "test"]


class LoadedLine(Protocol):
    """A line as it comes from its file."""

    def score(self, split: HeldOut) -> float:
        """The run's metric on a split, 0 to 100, larger is better."""

    def kl(self) -> float | None:
        """Divergence from the teacher on validation, nats an answer; None of one that has none."""
        return None

    def call(self) -> object:
        """Answer as many rows, as long, as latency is timed with; one thread."""


class Line(Protocol):
    """A simple model for the task of a run: plain data, which can be pickled."""

    @property
    def name(self) -> str:
        """What it is called in records and reports."""

    def fit(self, bench: Workbench, path: Path) -> str:
        """Fit it, write it to `path`, a file or a folder, and say in words what was fitted and how."""

    def load(self, bench: Workbench, path: Path) -> LoadedLine:
        """The model that `fit` wrote."""


@dataclass(frozen=True)
class MeasuredLine:
    """What a line comes to.

    size_bytes: its files, by `stat`. latency_ms: the median of calls in turn with the original, as of a
    trial; None where latency is timed on another machine. accuracy and test_accuracy: the run's metric on
    validation and test, 0 to 100. what: the line in words. seconds: to fit it. kl: divergence from the
    teacher on validation, nats an answer; None of a line that does not stand for it.
    """

    name: str
    size_bytes: int
    latency_ms: float | None
    accuracy: float
    test_accuracy: float
    what: str
    seconds: float
    kl: float | None = None


@dataclass(frozen=True)
class FitLine(Job[MeasuredLine]):
    """A line, fitted and measured. reference_ms: of the original, as trials are scaled to."""

    line: Line
    reference_ms: float


def measure_line(job: FitLine, bench: Workbench, timer: Timer) -> MeasuredLine:
    """Fit a line, save it, load it again, score it and time it."""
    with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
        path = Path(name) / "line"
        begun = time.perf_counter()
        with bench.room.busy():
            what = job.line.fit(bench, path)
        seconds = round(time.perf_counter() - begun, 3)
        with bench.room.busy():
            loaded = job.line.load(bench, path)
        accuracy, on_test = loaded.score("validation"), loaded.score("test")
        timing = timer.time_call(loaded.call)
        return MeasuredLine(
            job.line.name,
            _size_bytes(path),
            None if timing is None else timing.scaled(job.reference_ms)[0],
            accuracy,
            on_test,
            what,
            seconds,
            loaded.kl(),
        )


def _size_bytes(path: Path) -> int:
    """Bytes of a file, or of those in a folder, by `stat`."""
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))


def listed_numbers(values: Sequence[float]) -> str:
    """Several numbers in a sentence.

    >>> listed_numbers([10_000, 30_000]), listed_numbers([0.01, 0.1, 1.0])
    ('10,000 and 30,000', '0.01, 0.1 and 1')
    """
    *most, last = (f"{value:,.0f}" if value >= 1e4 else f"{value:g}" for value in values)
    return f"{', '.join(most)} and {last}" if most else last
