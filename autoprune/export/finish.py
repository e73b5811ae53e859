"""The end of an export: measured in fresh processes, described, or put aside where a check failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from autoprune.core.errors import AutopruneError, ValidationError
from autoprune.export.artifact import builder_needed, read_export_record, write_card
from autoprune.export.card import model_card
from autoprune.export.checks import Check, export_checks, failed, validated_record
from autoprune.export.export_record import ExportRecord, ValidatedRecord
from autoprune.export.fresh_process import in_fresh_process, with_defaults
from autoprune.export.validate import ExportMeasurements, Request
from autoprune.run.folder import FAILED
from autoprune.targets import Target


def validated(
    request: Request, target: Target, *, recorded: float | None = None
) -> tuple[ExportMeasurements | None, list[Check]]:
    """What fresh processes measure of a folder; a failed check where the first process fails.

    recorded: the score that the search measured, where it is not the one of the folder's record.
    """
    try:
        measured = with_defaults(in_fresh_process(request), request)
    except AutopruneError as error:
        return None, [Check("load", False, str(error))]
    about = read_export_record(Path(request.folder))
    if recorded is not None:
        before = about.measured.model_copy(update={"accuracy": recorded})
        about = about.model_copy(update={"measured": before})
    return measured, export_checks(measured, about, tolerance=target.tolerance)


def finish(folder: Path, name: str, found: ValidatedRecord) -> ExportRecord:
    """Note what was found in a folder's record, and write its model card; the record."""
    about = read_export_record(folder).model_copy(update={"validated": found})
    write_card(folder, about, model_card(about, name, builder=builder_needed(folder, about)))
    return about


def put_aside(
    temporary: Path, folder: Path, measured: ExportMeasurements | None, checks: Sequence[Check]
) -> NoReturn:
    """Keep a model that failed under another name, with what was found, and say so."""
    kept, k = folder.with_name(f"{folder.name}{FAILED}"), 1
    while kept.exists():
        k += 1
        kept = folder.with_name(f"{folder.name}{FAILED}-{k}")
    if measured is not None:
        finish(temporary, kept.name, validated_record(measured, checks))
    temporary.rename(kept)
    reason = failed(checks).replace(str(temporary), str(kept))
    raise ValidationError(f"the export did not validate: {reason}. It is kept as {kept}; do not ship it")
