"""Models of a run's front that answer together -> one exported folder.

Every kept model of the front is saved for the target and asked about the validation rows; the members are
those whose mean answer scores best within the limit of their bytes together. Test rows are scored once, of
what was chosen and of the best single model that has no more bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoprune.core.files import file_hash, write_json, written_whole
from autoprune.core.progress import Progress
from autoprune.export.artifact import ABOUT, OF_SEVERAL, runtime_of
from autoprune.export.averaged import check_can_be_averaged
from autoprune.export.checks import Check, failed, validated_record
from autoprune.export.ensemble_members import (
    AverageName,
    SavedMember,
    answered_members,
    chosen_members,
    ensemble_record,
    trials_to_try,
)
from autoprune.export.export_record import EnsembleRecord, ExportRecord, MeasuredRecord
from autoprune.export.finish import finish, put_aside, validated
from autoprune.export.run_trials import RunToExport, check_new_export
from autoprune.export.trial_record import command_of_several
from autoprune.export.validate import ExportMeasurements, Request
from autoprune.run.scrub import scrub_and_say
from autoprune.space.budget import Budget
from autoprune.targets.target import PLAIN


@dataclass(frozen=True)
class ExportedEnsemble:
    """Where an ensemble was written, and what it was found to be there."""

    folder: Path
    about: ExportRecord
    measured: ExportMeasurements
    checks: Sequence[Check]


def export_ensemble(
    path: Path,
    *,
    count: int,
    average: AverageName,
    budget: Budget | None,
    target: str,
    folder: Path,
    progress: Progress,
    storage: str = PLAIN,
) -> ExportedEnsemble:
    """Write the `count` models of a run's front that answer best together within a limit.

    Args:
        average: the one that the folder answers with; both are scored.
        budget: limit of the bytes, and of the milliseconds, of all members together; None is the run's.

    Raises:
        AutopruneError: for a task whose answers are not averaged, a target or folder that cannot be, or a run
            that keeps too few models.
        BudgetError: when no `count` kept models are within the limit together.
        ValidationError: when what was written does not answer as it did; it is kept as `<folder>.failed`.
    """
    check_new_export(folder)
    runtime_of(target, storage)  # what does not exist is refused before anything is read
    run = RunToExport.read(path)
    runtime = runtime_of(target, storage, builder=run.builder)
    check_can_be_averaged(run.facts.task)
    limit = run.config.limits() if budget is None else budget
    searched = run.config.search
    is_same = target == searched.target and storage == searched.file_storage
    trials = trials_to_try(run, count, limit, same_target=is_same)
    scrub_and_say(path)
    with written_whole(folder) as temporary:
        answered = answered_members(run, trials, temporary.with_name("candidates"), runtime, limit, progress)
        chosen = chosen_members(answered, count, limit)
        record = ensemble_record(answered, chosen, average, str(limit))
        command = command_of_several(
            run.facts.folder, ["--ensemble", str(count), "--average", average], budget, target, storage,
            folder.name,
        )  # fmt: skip
        _put_together(run, chosen, temporary, record, command)
        request = Request(
            str(temporary),
            against_members=tuple(str(candidate.written.source) for candidate in chosen),
            builder=run.builder,
            recorded_at=run.config.data.dataset,
        )
        with progress.bar("Validation in a fresh process", 1):
            measured, checks = validated(request, runtime)
        if measured is None or failed(checks):
            put_aside(temporary, folder, measured, checks)
        about = finish(temporary, folder.name, validated_record(measured, checks))
    return ExportedEnsemble(folder, about, measured, checks)


def _put_together(
    run: RunToExport,
    chosen: Sequence[SavedMember],
    folder: Path,
    record: EnsembleRecord,
    command: str,
) -> None:
    """Move the members into a folder, with what reads their inputs and what is said of all of them."""
    folder.mkdir()
    for member, saved in zip(record.members, chosen, strict=True):
        saved.folder.rename(folder / member.name)
        (folder / member.name / ABOUT).unlink()  # the folder's own record has the hash of every file
    for file in sorted(run.reader.iterdir()):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_bytes((folder / record.members[0].name / "config.json").read_bytes())
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    scores = record.simple if record.average == "simple" else record.weighted
    predicted = [saved.written.about.predicted_size_bytes or saved.model.size_bytes for saved in chosen]
    measured = MeasuredRecord(
        size_bytes=sum(member.size_bytes for member in record.members),
        accuracy=scores.accuracy,
        test_accuracy=scores.test_accuracy,
        latency_ms=sum(saved.model.latency_ms for saved in chosen),
        original_ms=run.record.original_ms,
    )
    first = chosen[0].written.about
    changes = {
        "version": OF_SEVERAL,
        "trial": None,
        "budget": record.limit,
        "export": command,
        "ensemble": record,
        "measured": measured,
        "measured_on": first.target,
        "predicted_size_bytes": sum(predicted),
        "units": {},
        "unit_bytes": {},
        "sha256": {file.relative_to(folder).as_posix(): file_hash(file) for file in files},
    }
    write_json(folder / ABOUT, first.model_copy(update=changes).as_json())
