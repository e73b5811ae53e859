"""A point of a run -> an exported model, which is measured in a fresh process before it is called done."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from autoprune.architecture import Architecture
from autoprune.artifact import ABOUT, add_facts, runtime_of, write_artifact
from autoprune.budget import Budget
from autoprune.card import base_of, model_card
from autoprune.checks import Check, export_checks, failed, record
from autoprune.errors import AutopruneError, BudgetError, ValidationError
from autoprune.files import read_json, written_whole
from autoprune.front import best
from autoprune.inputs import find_space, is_reference
from autoprune.kinds import CAUSAL_LM, CLASSES, OWN
from autoprune.metric import Metric
from autoprune.own import own_task
from autoprune.progress import Progress
from autoprune.run import FRONT, RUN, Config, RunFolder, located, read_record
from autoprune.rungs import RUNG_STEPS
from autoprune.scrub import scrub_and_say
from autoprune.search import answer, remake
from autoprune.sizes import EMPTY, SIZES_VERSION
from autoprune.space import FLOAT_BITS, UNTOUCHED, Level
from autoprune.targets import NAMES, Target, get_target, kept_at, size_on_disk
from autoprune.targets.packed import PLAIN, read_packed
from autoprune.task import Batch
from autoprune.units import Unit, find_units
from autoprune.validate import Found, Request, in_fresh_process, original_folder, with_defaults
from autoprune.vocabulary import part_anyhow_

MEASURED = ("size_bytes", "predicted_size_bytes", "latency_ms", "latency_low_ms", "latency_high_ms",
            "accuracy", "kl", "test_accuracy")  # fmt: skip
"""What of a trial's record goes into `autoprune.json`."""


@dataclass(frozen=True)
class Exported:
    """Where a trial's model was written, and what it was found to be there."""

    folder: Path
    trial: Mapping[str, Any]
    found: Found
    checks: Sequence[Check]


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
    runtime = runtime_of(target, storage)
    scrub_and_say(path)
    if budget is not None:
        which = _best_within(path, budget, progress)
    front, run = read_record(path / FRONT), read_record(path / RUN)
    trial, asked_for = find_trial(front, which), Config.from_json(run["config"])
    config = located(asked_for, path)
    builder = config.model if config.model is not None and is_reference(config.model) else None
    levels = {name: Level.of(one["ratio"], one["bits"]) for name, one in trial["levels"].items()}
    units, unknown = _units(path, config, levels, run["facts"].get("parts", {}))
    _check_levels(runtime, units, levels)
    source = path / "trials" / f"{trial['number']:04d}"
    if not (source / "model.safetensors").is_file():
        progress.line(f"Trial {trial['number']} is not on the front; making its model again")
        _remake(path, trial["number"], progress)
    example = _example(path / "tokenizer", Architecture.read(source), config.task)
    about = _about(run, front["run"], config, trial, dataset=asked_for.dataset)
    about["export"] = _command(front["run"]["folder"], trial["number"], budget, target, storage, folder.name)
    about["budget"] = front["run"]["budget_text"] if budget is None else str(budget)
    about |= _predicted(
        source, get_target(target), example, units, levels, key=run.get("library_key"), builder=builder
    )
    if unknown or any(level.ratio == EMPTY for level in levels.values()):
        is_same = front["run"].get("sizes_version") == SIZES_VERSION
        about |= _recorded(trial, config.target, target, is_same=is_same, unknown=unknown)
    with written_whole(folder) as temporary:
        write_artifact(
            read_packed(source, builder=builder), temporary, target=target, tokenizer=path / "tokenizer",
            example=example, about=about, storage=storage,
        )  # fmt: skip
        with progress.bar("Validation in a fresh process", 1):
            found, checks = _validated(temporary, source, runtime, builder, config.dataset)
        if found is None or failed(checks):
            _put_aside(temporary, folder, found, checks)
        _finish(temporary, folder.name, record(found, checks))
        if folder.exists():
            raise AutopruneError(f"{folder} was made by somebody else meanwhile, and is kept as it is")
    return Exported(folder, trial, found, checks)


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
        file, source = find_space(config.space, model)
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
    return unit is None or target.offers(unit, replace(kept, activations=FLOAT_BITS))


def _about(
    run: Mapping[str, Any],
    facts: Mapping[str, Any],
    config: Config,
    trial: Mapping[str, Any],
    *,
    dataset: str | None,
) -> dict[str, Any]:
    """What `autoprune.json` says of where a model came from.

    config: with the absolute paths of the inputs. dataset: as it was given.
    """
    return {
        "base_model": facts["model"],
        "base": base_of(config.model, config.revision) | {"tensors_sha256": facts["model_hash"]},
        "dataset": facts["dataset"],
        "data": {
            "dataset": dataset,
            "on_disk": config.dataset is not None and Path(config.dataset).exists(),
            "text_columns": list(config.text_columns),
            "label_column": config.label_column,
            "group_by": config.group_by,
            "seed": config.seed,
            "max_length": config.max_length,
            "labels": facts["labels"],
            "fingerprint": facts["data_hash"],
            "task": facts.get("task", CLASSES),
            "metric": Metric.from_json(facts.get("metric")).name,
            "own": config.task if ":" in config.task else None,
            "image_column": config.image_column,
            "limit_rows": list(config.limit_rows),
            "validation_rows": facts["validation_rows"],
        },
        "run": facts["name"],
        "trial": trial["number"],
        "steps": facts["recipe"]["steps"] * RUNG_STEPS[trial["rung"]],
        "command": facts["command"],
        "measured": {name: trial[name] for name in MEASURED} | {"original_ms": run.get("original_ms")},
        "measured_on": config.target,
        "protocol": facts["protocol"],
        "latency_of": facts.get("latency_of"),
        "timed_at": {"batch": config.batch, "sequence": config.sequence, "threads": 1},
        "library_key": run.get("library_key"),
        "searched_with": facts["versions"],
    }


def _command(run: str, number: int, budget: Budget | None, target: str, storage: str, name: str) -> str:
    """The command that exports the same model again, once the search has been run again.

    >>> _command("runs/x", 3, Budget(8_000_000), "packed", "entropy", "small")
    'autoprune export runs/x --budget 8000000B --target packed --storage entropy -o small'
    """
    which = ["--trial", str(number)]
    if budget is not None:
        limits = [(budget.size_bytes, "B"), (budget.latency_ms, "ms")]
        which = [word for n, unit in limits if n is not None for word in ("--budget", f"{n}{unit}")]
    stored = [] if storage == PLAIN else ["--storage", storage]
    return shlex.join(["autoprune", "export", run, *which, "--target", target, *stored, "-o", name])


def _predicted(
    source: Path,
    target: Target,
    example: Batch,
    units: Mapping[str, Unit],
    levels: Mapping[str, Level],
    *,
    key: str | None,
    builder: str | None,
) -> dict[str, Any]:
    """Bytes that the model, and each unit in it, should take on a target, plainly stored: a sum."""
    saved, _ = original_folder(source, target, example, key=key, builder=builder)
    target.load(saved)  # a target that cannot run on this machine says so before anything is written
    by_unit, size = {}, size_on_disk(target, saved)
    for name, unit in units.items():
        by_unit[name] = target.size_bytes(unit, kept_at(target, levels[name]) or levels[name])
        size += by_unit[name] - target.size_bytes(unit, UNTOUCHED)
    return {"predicted_size_bytes": size, "unit_bytes": by_unit}


def _recorded(
    trial: Mapping[str, Any], searched: str, target: str, *, is_same: bool, unknown: str
) -> dict[str, Any]:
    """The bytes that the search predicted, or why they say nothing of this export.

    Args:
        searched: the target of the search.
        is_same: whether targets still save the same model in the same bytes.
        unknown: why nothing else is known of the units.
    """
    if target == searched and is_same:
        return {"predicted_size_bytes": trial["predicted_size_bytes"]}
    why = unknown or f"what is left of emptied layers was measured on {searched} alone"
    if target == searched:
        why = f"the search predicted bytes as an older autoprune stored them for {target}"
    return {"predicted_size_bytes": None, "not_predicted": why}


# ---- whether it is true -------------------------------------------------------------------------


def _validated(
    folder: Path, source: Path, target: Target, builder: str | None, dataset: str | None
) -> tuple[Found | None, list[Check]]:
    """What fresh processes find; a failed check where the first does not get that far."""
    request = Request(str(folder), against=str(source), builder=builder, recorded_at=dataset)
    try:
        found = with_defaults(in_fresh_process(request), request)
    except AutopruneError as error:
        return None, [Check("load", False, str(error))]
    return found, export_checks(found, read_json(folder / ABOUT), tolerance=target.tolerance)


def _finish(folder: Path, name: str, validated: Mapping[str, Any]) -> None:
    """Note what was found in the folder's record, and write its model card."""
    about = read_json(folder / ABOUT) | {"validated": validated}
    add_facts(folder, card=model_card(about, name), validated=validated)


def _put_aside(temporary: Path, folder: Path, found: Found | None, checks: Sequence[Check]) -> NoReturn:
    """Keep a model that failed under another name, with what was found, and say so."""
    kept, k = folder.with_name(f"{folder.name}.failed"), 1
    while kept.exists():
        k += 1
        kept = folder.with_name(f"{folder.name}.failed-{k}")
    if found is not None:
        _finish(temporary, kept.name, record(found, checks))
    temporary.rename(kept)
    reason = failed(checks).replace(str(temporary), str(kept))
    raise ValidationError(f"the export did not validate: {reason}. It is kept as {kept}; do not ship it")


# ---- the run ------------------------------------------------------------------------------------


def _remake(path: Path, number: int, progress: Progress) -> None:
    run = RunFolder.open(path)
    try:
        remake(run, number, progress)
    finally:
        run.close()


def recorded_answers(facts: Mapping[str, Any]) -> int:
    """Validation answers of a run, by its facts; runs made before these were noted have its rows.

    >>> recorded_answers({"validation_rows": 10, "validation_answers": 250})
    250
    >>> recorded_answers({"validation_rows": 10})
    10
    """
    return int(facts.get("validation_answers", facts["validation_rows"]))


def _best_within(path: Path, budget: Budget, progress: Progress) -> str:
    """Number of the best trial within a budget, once the solver's answer to it is among the trials."""
    answers = recorded_answers(read_record(path / FRONT)["run"])
    run = RunFolder.open(path)
    try:
        found = best(answer(run, budget, progress), budget, answers=answers)
    finally:
        run.close()
    if found is None:
        raise BudgetError(f"no trial is within {budget}, nor is what the solver predicted to be")
    return str(found.number)


def _example(reader: Path, architecture: Architecture, task: str) -> Batch:
    """Two rows of a few tokens, with the inputs that the tokenizer gives; or two pictures of nothing."""
    if architecture.kind == OWN:
        own = own_task(task)
        return own.batch(own.validation, own.example_rows)
    if architecture.image is not None:
        return {"pixel_values": np.zeros((2, *architecture.image), np.float32)}
    import transformers

    known = transformers.AutoTokenizer.from_pretrained(reader, local_files_only=True)
    tokens = known(["one two three"] * 2, return_tensors="np")
    names = ["input_ids"] if architecture.kind == CAUSAL_LM else known.model_input_names
    return {name: np.asarray(tokens[name], np.int64) for name in names}
