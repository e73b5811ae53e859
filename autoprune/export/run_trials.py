"""The trials of a finished run as models to export: read, checked against a target, written to a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.core.errors import AutopruneError
from autoprune.core.files import fields_of, why_unwritable
from autoprune.core.progress import Progress
from autoprune.core.record import checked
from autoprune.export.artifact import read_export_record, runtime_of, write_artifact
from autoprune.export.export_record import ExportRecord
from autoprune.export.recorded_rows import tokenizer_of
from autoprune.export.trial_record import export_record, predicted_bytes, recorded_bytes
from autoprune.models.find_space import find_space
from autoprune.models.spec import Architecture
from autoprune.models.split_embedding import part_anyhow_
from autoprune.models.unit import Unit
from autoprune.models.units import find_units
from autoprune.pipeline.after_search import remake
from autoprune.pipeline.named import names_builder
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, RunFolder, read_record, read_run, run_config
from autoprune.run.front_schema import Run
from autoprune.run.kept_models import kept_artifact
from autoprune.run.run_record import RunRecord
from autoprune.run.short_rows import level_rows, whole_row
from autoprune.run.whereabouts import located
from autoprune.space.levels import Candidate, Level
from autoprune.space.point_names import POINT_NAMES
from autoprune.space.storage import GroupedIntegers
from autoprune.targets import NAMES, Target, get_target, kept_at
from autoprune.targets.packed import read_packed
from autoprune.targets.sizes import EMPTY, SIZES_VERSION
from autoprune.targets.target import PLAIN
from autoprune.tasks.custom import own_task
from autoprune.tasks.task import Batch


@dataclass(frozen=True)
class RunToExport:
    """A finished run, as its exports need it.

    front: what `front.json` says. facts: what that says of the run. asked_for: the settings as they were
    given. config: the same with absolute paths. builder: the function that builds the model, where the model
    is named by one.
    """

    path: Path
    front: dict[str, Any]
    record: RunRecord
    facts: Run
    asked_for: Config
    config: Config
    builder: str | None

    @classmethod
    def read(cls, path: Path) -> RunToExport:
        """Read a run folder.

        Raises:
            AutopruneError: when it is none, or one of its files is damaged.
        """
        front, record = read_record(path / FRONT), read_run(path)
        with fields_of(path / FRONT):
            facts = facts_of(front, path)
        asked_for = run_config(path)
        config = located(asked_for, path)
        name = config.model.name
        builder = name if name is not None and names_builder(name) else None
        return cls(path, front, record, facts, asked_for, config, builder)

    @property
    def reader(self) -> Path:
        """Folder of the tokenizer, or of how pictures are read."""
        return self.path / "tokenizer"

    def trial(self, which: str) -> dict[str, Any]:
        """The trial named by its number, or by a name of `strategy/points`."""
        with fields_of(self.path / FRONT):
            return find_trial(self.front, which)

    def packed_model(self, number: int, progress: Progress) -> Path:
        """Folder of a trial's model in the packed layout; made again where it was not kept."""
        if (kept := kept_artifact(self.path, number)) is not None:
            return kept
        progress.line(f"Trial {number} is not on the front; making its model again")
        run = RunFolder.open(self.path)
        try:
            remake(run, number, progress)
            return run.artifact(number)
        finally:
            run.close()

    def example(self, model: Path) -> Batch:
        """A small batch that a folder's model can be traced with."""
        return _example(self.reader, Architecture.read(model), self.config.task.name)


@dataclass(frozen=True)
class Written:
    """A trial's model in a folder.

    source: folder of the same model in the packed layout. about: what its `autoprune.json` says of it.
    """

    source: Path
    about: ExportRecord
    size_bytes: int


def facts_of(front: Mapping[str, Any], path: Path) -> Run:
    """What the `front.json` of a run folder says of the run itself."""
    return checked(Run, front["run"], str(path / FRONT))


def check_new_export(folder: Path) -> None:
    """Raise `AutopruneError` where an export cannot be written to a folder."""
    if folder.exists():
        raise AutopruneError(f"{folder} already exists and is kept as it is; give another -o")
    if why := why_unwritable(folder.absolute().parent):
        raise AutopruneError(f"{folder} cannot be made ({why}): give another -o")


def kept_trials(run: RunToExport) -> list[dict[str, Any]]:
    """The measured trials of the front whose models the run folder keeps, in the front's order.

    The front of a run of before it was noted is all of its trials.
    """
    with fields_of(run.path / FRONT):
        trials = {trial["number"]: trial for trial in run.front["trials"]}
        levels = level_rows(run.front)
        members = [trials[number] for number in run.front.get("front") or trials]
        measured = [trial for trial in members if not trial["failure"] and trial["size_bytes"] is not None]
        kept = [trial for trial in measured if kept_artifact(run.path, trial["number"]) is not None]
        return [whole_row(trial, levels) for trial in kept]


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
    if any(which == line["name"] for line in record.get("lines", ())):
        raise AutopruneError(
            f"--trial {which!r}: a simple model to compare with is no trial; report.html says how it was "
            f"made. Give {', '.join(POINT_NAMES)}, or a number from 0 to {max(trials, default=0)}"
        )
    if not which.isdecimal() or int(which) not in trials:
        raise AutopruneError(
            f"--trial {which!r}: give {', '.join(POINT_NAMES)}, "
            f"or a number from 0 to {max(trials, default=0)}"
        )
    if trials[int(which)]["failure"]:
        raise AutopruneError(f"trial {which} failed: {trials[int(which)]['failure']}")
    return whole_row(trials[int(which)], levels)


def write_trial(
    run: RunToExport,
    trial: Mapping[str, Any],
    folder: Path,
    *,
    target: str,
    storage: str = PLAIN,
    budget: str,
    command: str,
    reader: Path,
    progress: Progress,
) -> Written:
    """Write a trial's model to a folder that does not exist yet.

    Args:
        budget: in words, for the record. command: what exports the model again.
        reader: folder whose files (of a tokenizer, or how pictures are read) are copied beside the model.

    Raises:
        AutopruneError: for a target or storage that cannot hold the model.
    """
    runtime = runtime_of(target, storage)
    with fields_of(run.path / FRONT):
        levels = {name: Level.of(level["ratio"], level["bits"]) for name, level in trial["levels"].items()}
    config = run.config
    units, unknown = _units(run.path, config, levels, run.record.facts.parts)
    _check_levels(runtime, units, levels)
    source = run.packed_model(trial["number"], progress)
    example = run.example(source)
    predicted = predicted_bytes(
        source,
        runtime_of(target, builder=run.builder),
        example,
        units,
        levels,
        key=run.record.library_key,
        builder=run.builder,
    )
    if unknown or any(level.ratio == EMPTY for level in levels.values()):
        predicted = recorded_bytes(
            trial, config.search, target, predicted.by_unit,
            is_same=run.facts.sizes_version == SIZES_VERSION, unknown=unknown,
        )  # fmt: skip
    with fields_of(run.path / FRONT):
        about = export_record(
            run.record, run.facts, config, trial, predicted, target=target, storage=storage,
            dataset=run.asked_for.data.dataset, budget=budget, command=command,
        )  # fmt: skip
    packed = replace(read_packed(source, builder=run.builder), levels=Candidate(tuple(levels.items())))
    size = write_artifact(packed, folder, about=about, tokenizer=reader, example=example)
    return Written(source, read_export_record(folder), size)


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
