"""What an export's record says of its trial: where it comes from, what it was measured to be, its bytes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune.export.card import base_of
from autoprune.export.original import original_folder
from autoprune.models.unit import Unit
from autoprune.run.config import Config
from autoprune.search.promotion import RUNG_STEPS
from autoprune.space.budget import Budget
from autoprune.space.levels import UNTOUCHED, Level
from autoprune.targets import Target, kept_at, size_on_disk
from autoprune.targets.packed import PLAIN
from autoprune.tasks.kinds import task_kind
from autoprune.tasks.metrics import Metric
from autoprune.tasks.task import Batch

MEASURED = ("size_bytes", "predicted_size_bytes", "latency_ms", "latency_low_ms", "latency_high_ms",
            "accuracy", "kl", "test_accuracy")  # fmt: skip
"""What of a trial's record goes into `autoprune.json`."""


def about_trial(
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
        "base": base_of(config.model.name, config.model.revision) | {"tensors_sha256": facts["model_hash"]},
        "dataset": facts["dataset"],
        "data": {
            "dataset": dataset,
            "on_disk": config.data.dataset is not None and Path(config.data.dataset).exists(),
            "text_columns": list(config.data.text_columns),
            "label_column": config.data.label_column,
            "group_by": config.data.group_by,
            "seed": config.search.seed,
            "max_length": config.task.max_length,
            "labels": facts["labels"],
            "fingerprint": facts["data_hash"],
            "task": task_kind(facts.get("task")).name,
            "metric": Metric.from_json(facts.get("metric")).name,
            "own": config.task.name if ":" in config.task.name else None,
            "image_column": config.data.image_column,
            "limit_rows": list(config.data.limit_rows),
            "validation_rows": facts["validation_rows"],
        },
        "run": facts["name"],
        "trial": trial["number"],
        "steps": facts["recipe"]["steps"] * RUNG_STEPS[trial["rung"]],
        "command": facts["command"],
        "measured": {name: trial[name] for name in MEASURED} | {"original_ms": run.get("original_ms")},
        "measured_on": config.search.target,
        "protocol": facts["protocol"],
        "latency_of": facts.get("latency_of"),
        "timed_at": {"batch": config.timing.batch, "sequence": config.timing.sequence, "threads": 1},
        "library_key": run.get("library_key"),
        "searched_with": facts["versions"],
    }


def export_command(run: str, number: int, budget: Budget | None, target: str, storage: str, name: str) -> str:
    """The command that exports the same model again, once the search has been run again.

    >>> export_command("runs/x", 3, Budget(8_000_000), "packed", "entropy", "small")
    'autoprune export runs/x --budget 8000000B --target packed --storage entropy -o small'
    """
    which = ["--trial", str(number)]
    if budget is not None:
        limits = [(budget.size_bytes, "B"), (budget.latency_ms, "ms")]
        which = [word for n, unit in limits if n is not None for word in ("--budget", f"{n}{unit}")]
    stored = [] if storage == PLAIN else ["--storage", storage]
    return shlex.join(["autoprune", "export", run, *which, "--target", target, *stored, "-o", name])


def predicted_bytes(
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


def recorded_bytes(
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
