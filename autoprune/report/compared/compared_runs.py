"""Runs that are compared: what is read of each, and what of them cannot be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from autoprune.core.errors import AutopruneError
from autoprune.run.folder import RUN, STATUS, read_record, read_run
from autoprune.run.front_schema import Front, checked_front
from autoprune.run.row_scores import RowScores, recorded_scores
from autoprune.run.run_record import RunRecord
from autoprune.run.status import read_front_file

AS_FAST = 1.1
"""Times that an original may take longer on another host for both to count as one machine."""

MOST_RUNS = 8
"""Runs on one page: as many as have a colour and a mark of their own."""


@dataclass(frozen=True)
class ComparedRun:
    """A run that is compared. letter: what tables call it. folder: as it was given. host: "" if unknown."""

    letter: str
    folder: Path
    front: Front
    about: RunRecord
    scores: RowScores
    host: str

    @property
    def title(self) -> str:
        """Its letter and its name."""
        return f"{self.letter}: {self.front.run.name or self.folder.name}"


@dataclass(frozen=True)
class Comparable:
    """What of some runs can be compared.

    warnings: plain sentences of what cannot. same_rows: whether models answered the same validation and test
    rows, so that a paired test can be made. same_data: whether scores are of rows of one source, so that
    error bars can be held against each other. same_clock: whether latencies are of one machine and protocol.
    """

    warnings: tuple[str, ...]
    same_rows: bool
    same_data: bool
    same_clock: bool


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read runs to compare; a folder that was fetched or copied is one.

    Raises:
        AutopruneError: for fewer than two or too many, one that is given twice, and one that is no run.
    """
    places = [folder.resolve() for folder in folders]
    if len(folders) < 2 or len(folders) > MOST_RUNS:
        raise AutopruneError(f"{len(folders)} runs are given: 2 to {MOST_RUNS} can be compared")
    if len(set(places)) < len(places):
        twice = next(folder for k, folder in enumerate(folders) if places[k] in places[:k])
        raise AutopruneError(f"{twice} is given twice: a run is not compared with itself")
    runs = []
    for letter, folder in zip(ascii_uppercase, folders, strict=False):
        front = checked_front(read_front_file(folder))
        about = read_run(folder) if (folder / RUN).is_file() else RunRecord()
        status = read_record(folder / STATUS) if (folder / STATUS).is_file() else {}
        host = str(status.get("host") or "")
        runs.append(ComparedRun(letter, folder, front, about, recorded_scores(folder), host))
    _refuse(runs)
    return runs


def _refuse(runs: Sequence[ComparedRun]) -> None:
    """Raise AutopruneError for runs whose scores are no numbers of one scale, or that have no trial."""
    for run in runs:
        if not any(trial.measured for trial in run.front.trials):
            raise AutopruneError(f"{run.folder} has no measured trial yet: there is nothing to compare")
    for what, values in (
        ("task", [str(run.front.run.task) for run in runs]),
        ("metric", [run.front.run.metric.name for run in runs]),
    ):
        if len(set(values)) > 1:
            named = ", ".join(f"{run.folder} {value}" for run, value in zip(runs, values, strict=True))
            raise AutopruneError(
                f"the runs have different {what}s ({named}): their scores are no numbers of one scale. "
                f"Compare runs of one {what}"
            )


def comparable(runs: Sequence[ComparedRun]) -> Comparable:
    """What can be compared, and in plain words what cannot."""
    facts = [run.front.run for run in runs]
    same_rows = _same(fact.data_hash for fact in facts) and _same(
        (fact.validation_rows, fact.test_rows) for fact in facts
    )
    same_data = same_rows or (_same(map(_source, runs)) and _same(fact.labels for fact in facts))
    same_clock = not _what_differs(runs)
    warnings = []
    if not same_data:
        warnings.append(
            "The data differ: scores are of other rows, and no difference between them is judged. Sizes "
            "and latencies can be compared."
        )
    elif not same_rows:
        warnings.append(
            "The rows differ: the data are of one source, but validation or test rows are others (another "
            "seed, limit or version). A paired test cannot be made; both runs' error bars are held against "
            "each other instead."
        )
    if not _same(fact.model_hash for fact in facts):
        warnings.append(
            "The originals differ: what a run keeps of its own original cannot be read as what compression "
            "did alone. Sizes, latencies and scores of the models themselves can be compared."
        )
    if not same_clock:
        warnings.append(
            f"The machine differs, or how latency was timed ({_what_differs(runs)}): milliseconds of one run "
            "cannot be held against those of another, and are left out."
        )
    unfinished = [run.title for run in runs if run.front.run.state != "finished"]
    if unfinished:
        warnings.append(f"Not finished: {', '.join(unfinished)}. Their fronts may still move.")
    return Comparable(tuple(warnings), same_rows, same_data, same_clock)


def _same(values: Iterable[object]) -> bool:
    first, *rest = [str(value) for value in values]
    return all(value == first for value in rest)


def _source(run: ComparedRun) -> object:
    """The data set by the last part of its name, wherever it lies, and its columns."""
    config = run.about.config
    name = str(config.get("dataset") or run.front.run.dataset).rstrip("/").rpartition("/")[2]
    columns = ("text_columns", "image_column", "label_column")
    return name, [config.get(column) for column in columns]


def _what_differs(runs: Sequence[ComparedRun]) -> str:
    facts = [run.front.run for run in runs]
    words: dict[str, Sequence[object]] = {
        "machine": [fact.machine for fact in facts],
        "target": [fact.target for fact in facts],
        "protocol": [fact.protocol for fact in facts],
        "what is timed": [fact.latency_of for fact in facts],
    }
    differs = [name for name, values in words.items() if not _same(values)]
    if "machine" not in differs and not _same(run.host for run in runs) and not _as_fast(runs):
        differs.insert(0, "machine")
    return ", ".join(differs)


def _as_fast(runs: Sequence[ComparedRun]) -> bool:
    """Whether one original took as long in all runs: of two names of hosts, which may be one machine's."""
    originals = [run.front.original for run in runs]
    times = [row.latency_ms for row in originals if row is not None and row.latency_ms]
    same_model = _same(run.front.run.model_hash for run in runs)
    return same_model and len(times) == len(runs) and max(times) <= AS_FAST * min(times)
