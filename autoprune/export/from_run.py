"""A point of a run -> an exported model, which is measured in a fresh process before it is called done."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from autoprune.core.errors import AutopruneError, BudgetError, ValidationError
from autoprune.core.files import fields_of, why_unwritable, written_whole
from autoprune.core.progress import Progress
from autoprune.core.record import checked
from autoprune.export.artifact import read_export_record, runtime_of, write_artifact, write_card
from autoprune.export.card import model_card
from autoprune.export.checks import Check, export_checks, failed, validated_record
from autoprune.export.export_record import ValidatedRecord
from autoprune.export.fresh_process import in_fresh_process, with_defaults
from autoprune.export.recorded_rows import tokenizer_of
from autoprune.export.trial_record import export_command, export_record, predicted_bytes, recorded_bytes
from autoprune.export.validate import ExportMeasurements, Request
from autoprune.models.find_space import find_space
from autoprune.models.spec import Architecture
from autoprune.models.split_embedding import part_anyhow_
from autoprune.models.unit import Unit
from autoprune.models.units import find_units
from autoprune.pipeline.after_search import answer, remake
from autoprune.pipeline.named import names_builder
from autoprune.run.config import Config
from autoprune.run.folder import FAILED, FRONT, RunFolder, read_record, read_run, run_config
from autoprune.run.front_schema import Run
from autoprune.run.kept_models import kept_artifact
from autoprune.run.scrub import scrub_and_say
from autoprune.run.short_rows import level_rows, whole_row
from autoprune.run.whereabouts import located
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate, Level
from autoprune.space.point_names import POINT_NAMES
from autoprune.space.storage import GroupedIntegers
from autoprune.strategy.points import best
from autoprune.targets import NAMES, Target, get_target, kept_at
from autoprune.targets.packed import PLAIN, read_packed
from autoprune.targets.sizes import EMPTY, SIZES_VERSION
from autoprune.tasks.custom import own_task
from autoprune.tasks.task import Batch


@dataclass(frozen=True)
class Exported:
    """Where a trial's model was written, and what it was found to be there."""

    folder: Path
    trial: Mapping[str, Any]
    measured: ExportMeasurements
    checks: Sequence[Check]


def find_trial(record: dict[str, Any], which: str) -> dict[str, Any]:
    """The trial named by its number, or by a name of `strategy/points`, from a `front.json`.

    Raises:
        AutopruneError: when there is none, or it failed.
    """
    trials, levels = {trial["number"]: trial for trial in record["trials"]}, level_rows(record)
    if which in POINT_NAMES:
        points = record.get("points") or {name: record[name] for name in ("best", "knee")}
        if which not in points:
            raise AutopruneError(
                f"--trial {which}: an earlier version made this run and named {' and '.join(points)} alone; "
                "give one of these or a number, or go on with the run, which names the others"
            )
        if points[which] is None:
            raise AutopruneError(f"the run has no {which} point: no trial is within its budget")
        return whole_row(trials[points[which]], levels)
    if not which.isdecimal() or int(which) not in trials:
        raise AutopruneError(
            f"--trial {which!r}: give {', '.join(POINT_NAMES)}, "
            f"or a number from 0 to {max(trials, default=0)}"
        )
    if trials[int(which)]["failure"]:
        raise AutopruneError(f"trial {which} failed: {trials[int(which)]['failure']}")
    return whole_row(trials[int(which)], levels)


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
    if folder.exists():
        raise AutopruneError(f"{folder} already exists and is kept as it is; give another -o")
    if why := why_unwritable(folder.absolute().parent):
        raise AutopruneError(f"{folder} cannot be made ({why}): give another -o")
    runtime = runtime_of(target, storage)
    scrub_and_say(path)
    if budget is not None:
        which = _best_within(path, budget, progress)
    front, run = read_record(path / FRONT), read_run(path)
    with fields_of(path / FRONT):
        facts, trial = _facts(front, path), find_trial(front, which)
        levels = {name: Level.of(level["ratio"], level["bits"]) for name, level in trial["levels"].items()}
    asked_for = run_config(path)
    config = located(asked_for, path)
    builder = _builder(config.model.name)
    units, unknown = _units(path, config, levels, run.facts.parts)
    _check_levels(runtime, units, levels)
    source = _packed_model(path, trial["number"], progress)
    example = _example(path / "tokenizer", Architecture.read(source), config.task.name)
    predicted = predicted_bytes(
        source, get_target(target), example, units, levels, key=run.library_key, builder=builder
    )
    if unknown or any(level.ratio == EMPTY for level in levels.values()):
        predicted = recorded_bytes(
            trial, config.search.target, target, predicted.by_unit,
            is_same=facts.sizes_version == SIZES_VERSION, unknown=unknown,
        )  # fmt: skip
    with fields_of(path / FRONT):
        about = export_record(
            run, facts, config, trial, predicted, target=target, storage=storage,
            dataset=asked_for.data.dataset,
            budget=facts.budget_text if budget is None else str(budget),
            command=export_command(facts.folder, trial["number"], budget, target, storage, folder.name),
        )  # fmt: skip
    with written_whole(folder) as temporary:
        packed = replace(read_packed(source, builder=builder), levels=Candidate(tuple(levels.items())))
        write_artifact(packed, temporary, about=about, tokenizer=path / "tokenizer", example=example)
        with progress.bar("Validation in a fresh process", 1):
            measured, checks = _validated(temporary, source, runtime, builder, config.data.dataset)
        if measured is None or failed(checks):
            _put_aside(temporary, folder, measured, checks)
        _finish(temporary, folder.name, validated_record(measured, checks))
        if folder.exists():
            raise AutopruneError(f"{folder} was made by somebody else meanwhile, and is kept as it is")
    return Exported(folder, trial, measured, checks)


# ---- what is written ----------------------------------------------------------------------------


def _units(
    path: Path, config: Config, levels: Mapping[str, Level], parts: Mapping[str, int]
) -> tuple[dict[str, Unit], str]:
    """The units of a run's model by name; none, and why, where its space file is not what it was.

    parts: embeddings that were in two parts, with the tokens of the first.
    """
    models = sorted(path.glob("trials/*/config.json"))
    if not models:
        return {}, f"{path / 'trials'} holds no model"
    model = Architecture.read(models[0].parent).empty()
    try:
        part_anyhow_(model, parts)
        file, source = find_space(config.search.space, model)
        units = {unit.name: unit for unit in find_units(model, file, source=source)}
    except AutopruneError as error:
        return {}, str(error)
    return (units, "") if units.keys() == levels.keys() else ({}, f"{source} is not what it was")


def _check_levels(target: Target, units: Mapping[str, Unit], levels: Mapping[str, Level]) -> None:
    """Raise `AutopruneError` where a target lacks a level, and name the targets that have all of them."""
    lacking = next((name for name in levels if not _keeps(target, units.get(name), levels[name])), None)
    if lacking is None:
        return
    able = []
    for name in NAMES:
        with contextlib.suppress(AutopruneError, ImportError):  # one whose packages are not installed
            if all(_keeps(get_target(name), units.get(u), level) for u, level in levels.items()):
                able.append(name)
    raise AutopruneError(
        f"target {target.name} cannot keep {lacking} at {levels[lacking]} (ratio x bits), as this trial has "
        f"it; targets that can: {', '.join(able)}"
    )


def _keeps(target: Target, unit: Unit | None, level: Level) -> bool:
    """Whether a unit that was searched at a level can be stored there, fast or not."""
    kept = kept_at(target, level)
    if kept is None:
        return False
    storage = kept.storage
    weights_alone = GroupedIntegers(storage.bits) if storage.rounds_inputs else storage
    return unit is None or target.offers(unit, Level(kept.ratio, weights_alone))


# ---- whether it is true -------------------------------------------------------------------------


def _validated(
    folder: Path, source: Path, target: Target, builder: str | None, dataset: str | None
) -> tuple[ExportMeasurements | None, list[Check]]:
    """What fresh processes measure; a failed check where the first process fails."""
    request = Request(str(folder), against=str(source), builder=builder, recorded_at=dataset)
    try:
        measured = with_defaults(in_fresh_process(request), request)
    except AutopruneError as error:
        return None, [Check("load", False, str(error))]
    return measured, export_checks(measured, read_export_record(folder), tolerance=target.tolerance)


def _finish(folder: Path, name: str, validated: ValidatedRecord) -> None:
    """Note what was found in the folder's record, and write its model card."""
    about = read_export_record(folder).model_copy(update={"validated": validated})
    write_card(folder, about, model_card(about, name))


def _put_aside(
    temporary: Path, folder: Path, measured: ExportMeasurements | None, checks: Sequence[Check]
) -> NoReturn:
    """Keep a model that failed under another name, with what was found, and say so."""
    kept, k = folder.with_name(f"{folder.name}{FAILED}"), 1
    while kept.exists():
        k += 1
        kept = folder.with_name(f"{folder.name}{FAILED}-{k}")
    if measured is not None:
        _finish(temporary, kept.name, validated_record(measured, checks))
    temporary.rename(kept)
    reason = failed(checks).replace(str(temporary), str(kept))
    raise ValidationError(f"the export did not validate: {reason}. It is kept as {kept}; do not ship it")


# ---- the run ------------------------------------------------------------------------------------


def _facts(front: Mapping[str, Any], path: Path) -> Run:
    """What `front.json` says of the run itself."""
    return checked(Run, front["run"], str(path / FRONT))


def _builder(model: str | None) -> str | None:
    """The function that builds a model, where it is named by one."""
    return model if model is not None and names_builder(model) else None


def _packed_model(path: Path, number: int, progress: Progress) -> Path:
    """Folder of a trial's model in the packed layout; made again where it was not kept."""
    if (kept := kept_artifact(path, number)) is not None:
        return kept
    progress.line(f"Trial {number} is not on the front; making its model again")
    run = RunFolder.open(path)
    try:
        remake(run, number, progress)
        return run.artifact(number)
    finally:
        run.close()


def _best_within(path: Path, budget: Budget, progress: Progress) -> str:
    """Number of the best trial within a budget, once the solver's answer to it is among the trials."""
    answers = _facts(read_record(path / FRONT), path).answers
    run = RunFolder.open(path)
    try:
        trial = best(answer(run, budget, progress), budget, answers=answers)
    finally:
        run.close()
    if trial is None:
        raise BudgetError(f"no trial is within {budget}, nor is what the solver predicted to be")
    return str(trial.number)


def _example(reader: Path, architecture: Architecture, task: str) -> Batch:
    """Two rows of a few tokens, with the inputs that the tokenizer gives; or two pictures of nothing."""
    if architecture.kind.is_own:
        own = own_task(task)
        return own.batch(own.validation, own.example_rows)
    if architecture.image is not None:
        return {"pixel_values": np.zeros((2, *architecture.image), np.float32)}
    known = tokenizer_of(reader)
    try:
        tokens = known(["one two three"] * 2, return_tensors="np")
        names = architecture.kind.token_inputs(known.model_input_names)
        return {name: np.asarray(tokens[name], np.int64) for name in names}
    except Exception as error:  # the tokenizers' own library raises many kinds
        raise AutopruneError(f"{reader} holds no tokenizer that works: {error}") from error
