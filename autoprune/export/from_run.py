"""A point of a run -> an exported model, which is measured in a fresh process before it is called done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError, BudgetError
from autoprune.core.files import written_whole
from autoprune.core.progress import Progress
from autoprune.export.artifact import runtime_of
from autoprune.export.checks import Check, failed, validated_record
from autoprune.export.finish import finish, put_aside, validated
from autoprune.export.run_trials import RunToExport, check_new_export, facts_of, write_trial
from autoprune.export.trial_record import export_command
from autoprune.export.validate import ExportMeasurements, Request
from autoprune.pipeline.after_search import answer
from autoprune.run.folder import FRONT, RunFolder, read_record
from autoprune.run.scrub import scrub_and_say
from autoprune.space.budget import Budget
from autoprune.strategy.points import best
from autoprune.targets.target import PLAIN


@dataclass(frozen=True)
class Exported:
    """Where a trial's model was written, and what it was found to be there."""

    folder: Path
    trial: Mapping[str, Any]
    measured: ExportMeasurements
    checks: Sequence[Check]


def export(
    path: Path,
    *,
    which: str,
    budget: Budget | None,
    target: str,
    folder: Path,
    progress: Progress,
    storage: str = PLAIN,
) -> Exported:
    """Write a trial's model for a target: the one named, or the best within a budget of its own.

    Models on the front are kept in the run folder; another is made again from the run's settings,
    which gives the same model, since a trial's seed follows from the run's and its candidate.

    Raises:
        AutopruneError: for a trial, target, storage or folder that cannot be.
        ValidationError: when what was written is not what was searched; it is kept as `<folder>.failed`.
    """
    check_new_export(folder)
    runtime = runtime_of(target, storage)
    scrub_and_say(path)
    if budget is not None:
        which = _best_within(path, budget, progress)
    run = RunToExport.read(path)
    trial = run.trial(which)
    with written_whole(folder) as temporary:
        written = write_trial(
            run,
            trial,
            temporary,
            target=target,
            storage=storage,
            budget=run.facts.budget_text if budget is None else str(budget),
            command=export_command(run.facts.folder, trial["number"], budget, target, storage, folder.name),
            reader=run.reader,
            progress=progress,
        )
        request = Request(
            str(temporary),
            against=str(written.source),
            builder=run.builder,
            recorded_at=run.config.data.dataset,
        )
        with progress.bar("Validation in a fresh process", 1):
            measured, checks = validated(request, runtime)
        if measured is None or failed(checks):
            put_aside(temporary, folder, measured, checks)
        finish(temporary, folder.name, validated_record(measured, checks))
        if folder.exists():
            raise AutopruneError(f"{folder} was made by somebody else meanwhile, and is kept as it is")
    return Exported(folder, trial, measured, checks)


def _best_within(path: Path, budget: Budget, progress: Progress) -> str:
    """Number of the best trial within a budget, once the solver's answer to it is among the trials."""
    answers = facts_of(read_record(path / FRONT), path).answers
    run = RunFolder.open(path)
    try:
        trial = best(answer(run, budget, progress), budget, answers=answers)
    finally:
        run.close()
    if trial is None:
        raise BudgetError(f"no trial is within {budget}, nor is what the solver predicted to be")
    return str(trial.number)
