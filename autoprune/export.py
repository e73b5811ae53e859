"""A point of a run -> an exported model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.artifact import write_artifact
from autoprune.budget import Budget
from autoprune.errors import AutopruneError, BudgetError
from autoprune.front import best
from autoprune.progress import Progress
from autoprune.run import FRONT, Config, RunFolder, read_record
from autoprune.search import answer, remake
from autoprune.targets.packed import read_packed
from autoprune.task import Batch


@dataclass(frozen=True)
class Exported:
    """Where a trial's model was written, and its bytes by `stat` beside the trial's record."""

    folder: Path
    trial: dict[str, Any]
    size_bytes: int


def find_trial(record: dict[str, Any], which: str) -> dict[str, Any]:
    """The trial named by its number, `best` or `knee`, from a `front.json`.

    Raises:
        AutopruneError: when there is none, or it failed.
    """
    trials = {one["number"]: one for one in record["trials"]}
    if which in ("best", "knee"):
        if record[which] is None:
            raise AutopruneError(f"the run has no {which} point: no trial is within its budget")
        return dict(trials[record[which]])
    if not which.isdecimal() or int(which) not in trials:
        raise AutopruneError(
            f"--trial {which!r}: give best, knee, or a number from 0 to {max(trials, default=0)}"
        )
    if trials[int(which)]["failure"]:
        raise AutopruneError(f"trial {which} failed: {trials[int(which)]['failure']}")
    return dict(trials[int(which)])


def export(
    path: Path, *, which: str, budget: Budget | None, target: str, folder: Path, progress: Progress
) -> Exported:
    """Write a trial's model for a target: the one named, or the best within a budget of its own.

    Models on the front are kept in the run folder; another is made again from the run's settings,
    which gives the same model, since a trial's seed follows from the run's and its candidate.
    """
    if folder.exists():
        raise AutopruneError(f"{folder} already exists and is kept as it is; give another -o")
    if budget is not None:
        which = _best_within(path, budget, progress)
    record = read_record(path / FRONT)
    trial = find_trial(record, which)
    source = path / "trials" / f"{trial['number']:04d}"
    if not (source / "model.safetensors").is_file():
        run = RunFolder.open(path)
        try:
            progress.line(f"Trial {trial['number']} is not on the front; making its model again")
            remake(run, trial["number"], progress)
        finally:
            run.close()
    config = Config.from_json(read_record(path / "run.json")["config"])
    about = {
        "base_model": record["run"]["model"],
        "dataset": record["run"]["dataset"],
        "trial": trial["number"],
        "command": record["run"]["command"],
        "measured": {
            name: trial[name]
            for name in (
                "size_bytes",
                "predicted_size_bytes",
                "latency_ms",
                "accuracy",
                "kl",
                "test_accuracy",
            )
        },
        "measured_on": config.target,
        "protocol": record["run"]["protocol"],
    }
    size = write_artifact(
        read_packed(source),
        folder,
        target=target,
        tokenizer=path / "tokenizer",
        example=_example(path / "tokenizer"),
        about=about,
    )
    return Exported(folder, trial, size)


def _best_within(path: Path, budget: Budget, progress: Progress) -> str:
    """Number of the best trial within a budget, once the solver's answer to it is among the trials."""
    rows = int(read_record(path / FRONT)["run"]["validation_rows"])
    run = RunFolder.open(path)
    try:
        found = best(answer(run, budget, progress), budget, rows=rows)
    finally:
        run.close()
    if found is None:
        raise BudgetError(f"no trial is within {budget}, nor is what the solver predicted to be")
    return str(found.number)


def _example(tokenizer: Path) -> Batch:
    """Two rows of a few tokens, with the inputs that the tokenizer gives."""
    import transformers

    known = transformers.AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    tokens = known(["one two three"] * 2, return_tensors="np")
    return {name: np.asarray(tokens[name], np.int64) for name in known.model_input_names}
