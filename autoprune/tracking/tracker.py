"""What every tracker is asked for, and what it is told: settings, a row a trial, and the front at the end."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from autoprune.core.redaction import cleaned
from autoprune.run.folder import run_config
from autoprune.run.status import read_front_file
from autoprune.space.point_names import by_trial
from autoprune.space.trial import Trial
from autoprune.tasks.metrics import ACCURACY, Metric

FOLDER = "trackers"
"""Folder of a run with what is noted of each tracker, and with what those write that have no other place."""

FILES = ("report.html", "front.csv")
"""Files of a run that trackers keep, where they keep files."""

_FIXED = ("size_bytes", "latency_ms", "kl", "rung", "seconds", "failed_trials")
_LONGEST_SETTING = 500


@dataclass(frozen=True)
class Row:
    """A trial as trackers have it. number: of the trial, which is the step of its values.

    values: size_bytes, latency_ms, the metric under its own name and in its own unit, kl (nats), rung,
    seconds, and failed_trials, the number of trials that failed up to this one. A trial that failed has the
    last three alone.
    """

    number: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class About:
    """A run as it begins. settings: those that are set, without passwords and tokens."""

    run: Path
    name: str
    settings: Mapping[str, str | int | float | bool]

    @property
    def folder(self) -> Path:
        """Where a tracker that has no other place writes."""
        return self.run / FOLDER


@dataclass(frozen=True)
class Ending:
    """A run as it ends. state: finished, stopped or failed.

    columns, rows: the front as a table. best: the values of the best point. files: of the run, to keep.
    """

    state: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    best: Mapping[str, float] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def as_markdown(self) -> str:
        """The table in Markdown."""
        lines = [self.columns, tuple("---" for _ in self.columns), *self.rows]
        return "\n".join(f"| {' | '.join('' if x is None else str(x) for x in row)} |" for row in lines)


class Tracker(Protocol):
    """One run in one tracker. Its class takes the `About` of the run, and what was `noted` of it before.

    All of it may raise whatever the tracker's library raises, and is done again later then.
    """

    place: str
    """Where to look, for people; no secret is in it."""
    noted: Mapping[str, Any]
    """What finds the tracker's run again, as JSON has it."""
    logged: int
    """Number of the last trial that the tracker has; -1 for none."""

    def log(self, rows: Sequence[Row]) -> None:
        """Write rows in order of number, each above `logged`, and count them in it."""

    def finish(self, ending: Ending) -> None:
        """Write the front and the files, and say that the run ended; it may be begun again."""


def metric_name(metric: Metric) -> str:
    """What a metric is called in a tracker, which takes letters, digits and a few signs.

    >>> metric_name(ACCURACY), metric_name(Metric("my score (k=5)"))
    ('accuracy', 'my_score_k_5')
    """
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", metric.name).strip("_") or "score"
    return f"score_{name}" if name in _FIXED else name


def rows_of(trials: Iterable[Trial], metric: Metric, *, failed: int = 0) -> list[Row]:
    """Trials as rows. failed: trials that failed before these."""
    rows = []
    for trial in trials:
        failed += trial.failure is not None
        values = {"rung": float(trial.rung), "seconds": trial.seconds, "failed_trials": float(failed)}
        if (m := trial.measurement) is not None:
            values |= {"size_bytes": float(m.size_bytes), "latency_ms": m.latency_ms, "kl": m.kl}
            values[metric_name(metric)] = metric.shown(m.accuracy)
        rows.append(Row(trial.number, {name: x for name, x in values.items() if math.isfinite(x)}))
    return rows


def about_of(run: Path) -> About:
    """What a run is."""
    settings: dict[str, str | int | float | bool] = {}
    for name, value in cleaned(run_config(run).as_json()).items():
        if value is None or value in ([], ()):
            continue
        plain = isinstance(value, str | int | float)
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        settings[name] = text[:_LONGEST_SETTING] if isinstance(text, str) else value if plain else str(value)
    return About(run, run.resolve().name, settings)


def ending_of(run: Path, state: str) -> Ending:
    """How a run ended, by its `front.json`; one that has none yet has no table."""
    try:
        record = read_front_file(run)
    except ValueError:
        return Ending(state)
    metric = Metric.from_json(record["run"]["metric"]) if "metric" in record["run"] else ACCURACY
    points = record.get("points") or {"best": record["best"], "knee": record["knee"]}
    names, front = by_trial(points), set(record["front"])
    trials = {trial["number"]: trial for trial in record["trials"]}
    columns = ("trial", "point", "size_bytes", "latency_ms", metric_name(metric), "test", "kl")
    rows = [
        (number, ", ".join(names.get(number, ())), *_measures(trials[number], metric))
        for number in sorted(front, key=lambda number: trials[number]["size_bytes"])
    ]
    best = {}
    if (trial := trials.get(points["best"])) is not None:
        pairs = zip(columns[2:], _measures(trial, metric), strict=True)
        best = {name: float(x) for name, x in pairs if x is not None}
    files = tuple(run / name for name in FILES if (run / name).is_file())
    return Ending(state, columns, tuple(rows), best, files)


def _measures(trial: Mapping[str, Any], metric: Metric) -> tuple[float | None, ...]:
    scores = (trial.get(name) for name in ("accuracy", "test_accuracy"))
    shown = (None if score is None else metric.shown(score) for score in scores)
    return trial["size_bytes"], trial["latency_ms"], *shown, trial.get("kl")
