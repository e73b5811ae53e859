"""What an export's record says of its trial: where it comes from, what it was measured to be, its bytes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from autoprune.export.card import base_of
from autoprune.export.export_record import DataRecord, ExportRecord, MeasuredRecord, TimedAt
from autoprune.export.original import original_folder
from autoprune.models.unit import Unit
from autoprune.run.config import Config, SearchSettings
from autoprune.run.front_schema import Measured, Run
from autoprune.run.run_record import RunRecord
from autoprune.space.budget import Budget
from autoprune.space.levels import UNTOUCHED, Level
from autoprune.strategy.promotion import RUNG_STEPS
from autoprune.targets import Target, kept_at, size_on_disk
from autoprune.targets.target import PLAIN
from autoprune.tasks.task import Batch


class PredictedBytes(NamedTuple):
    """Bytes that a model, and each unit in it, should take on a target, plainly stored.

    size: None where they are not known, and why.
    """

    size: int | None
    by_unit: Mapping[str, int]
    missing: str | None = None


def export_record(
    run: RunRecord,
    facts: Run,
    config: Config,
    trial: Mapping[str, Any],
    predicted: PredictedBytes,
    *,
    target: str,
    storage: str,
    dataset: str | None,
    budget: str,
    command: str,
) -> ExportRecord:
    """What `autoprune.json` says of where a model came from.

    config: with the absolute paths of the inputs. dataset: as it was given. budget: in words. command: what
    exports the model again.
    """
    base = base_of(config.model.name, config.model.revision)
    unpredicted: dict[str, Any] = {} if predicted.missing is None else {"not_predicted": predicted.missing}
    if config.search.file_storage != PLAIN:
        unpredicted["measured_storage"] = config.search.file_storage
    return ExportRecord(
        target=target,
        storage=storage,
        base_model=facts.model,
        base=base.model_copy(update={"tensors_sha256": facts.model_hash}),
        dataset=facts.dataset,
        data=_data_record(facts, config, dataset),
        run=facts.name,
        trial=trial["number"],
        steps=facts.recipe.steps * RUNG_STEPS[trial["rung"]],
        command=facts.command,
        measured=MeasuredRecord(
            **{name: trial[name] for name in Measured.model_fields}, original_ms=run.original_ms
        ),
        measured_on=config.search.target,
        protocol=facts.protocol,
        latency_of=facts.latency_of,
        timed_at=TimedAt(batch=config.timing.batch, sequence=config.timing.sequence, threads=1),
        library_key=run.library_key,
        searched_with=facts.versions,
        export=command,
        budget=budget,
        predicted_size_bytes=predicted.size,
        unit_bytes=predicted.by_unit,
        **unpredicted,
    )


def _data_record(facts: Run, config: Config, dataset: str | None) -> DataRecord:
    data = config.data
    pinned = {} if data.revision is None else {"revision": data.revision}
    return DataRecord(
        **pinned,
        dataset=dataset,
        on_disk=data.dataset is not None and Path(data.dataset).exists(),
        text_columns=data.text_columns,
        label_column=data.label_column,
        group_by=data.group_by,
        seed=config.search.seed,
        max_length=config.task.max_length,
        labels=facts.labels,
        fingerprint=facts.data_hash,
        task=facts.task.name,
        metric=facts.metric.name,
        own=config.task.name if ":" in config.task.name else None,
        image_column=data.image_column,
        limit_rows=data.limit_rows,
        validation_rows=facts.validation_rows,
    )


def export_command(run: str, number: int, budget: Budget | None, target: str, storage: str, name: str) -> str:
    """The command that exports the same model again, once the search has been run again.

    >>> export_command("runs/x", 3, Budget(8_000_000), "packed", "entropy", "small")
    'autoprune export runs/x --budget 8000000B --target packed --storage entropy -o small'
    """
    which = ["--trial", str(number)]
    if budget is not None:
        which = [word for text in budget.texts() for word in ("--budget", text)]
    stored = [] if storage == PLAIN else ["--storage", storage]
    return shlex.join(["autoprune", "export", run, *which, "--target", target, *stored, "-o", name])


def command_of_several(
    run: str, what: Sequence[str], budget: Budget | None, target: str, storage: str, name: str
) -> str:
    """The command that exports several models of a run again; what: the flags that say how.

    >>> command_of_several("runs/x", ["--ensemble", "3"], None, "packed", "plain", "three")
    'autoprune export runs/x --ensemble 3 --target packed -o three'
    """
    limits = [] if budget is None else [word for text in budget.texts() for word in ("--budget", text)]
    stored = [] if storage == PLAIN else ["--storage", storage]
    return shlex.join(["autoprune", "export", run, *what, *limits, "--target", target, *stored, "-o", name])


def predicted_bytes(
    source: Path,
    target: Target,
    example: Batch,
    units: Mapping[str, Unit],
    levels: Mapping[str, Level],
    *,
    key: str | None,
    builder: str | None,
) -> PredictedBytes:
    """The original's bytes on a target, and what each unit's level changes: a sum."""
    saved, _ = original_folder(source, target, example, key=key, builder=builder)
    target.load(saved)  # a target that cannot run on this machine says so before anything is written
    by_unit, size = {}, size_on_disk(target, saved)
    for name, unit in units.items():
        by_unit[name] = target.size_bytes(unit, kept_at(target, levels[name]) or levels[name])
        size += by_unit[name] - target.size_bytes(unit, UNTOUCHED)
    return PredictedBytes(size, by_unit)


def recorded_bytes(
    trial: Mapping[str, Any],
    searched: SearchSettings,
    target: str,
    by_unit: Mapping[str, int],
    *,
    is_same: bool,
    unknown: str,
) -> PredictedBytes:
    """The bytes that the search predicted, or why they say nothing of this export.

    Args:
        searched: the search's target, and the storage that its bytes are of.
        is_same: whether targets still save the same model in the same bytes.
        unknown: why nothing else is known of the units.
    """
    is_plain = searched.file_storage == PLAIN
    if target == searched.target and is_same and is_plain:
        return PredictedBytes(trial["predicted_size_bytes"], by_unit)
    why = unknown or f"what is left of emptied layers was measured on {searched.target} alone"
    if target == searched.target:
        why = f"the search predicted bytes as an older autoprune stored them for {target}"
        why = why if is_plain else f"the search predicted bytes of {searched.file_storage}-coded files alone"
    return PredictedBytes(None, by_unit, why)
