"""What runs were asked for otherwise than each other, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.core.redaction import redacted
from autoprune.report.compared.compared_runs import ComparedRun
from autoprune.report.sections.verdict import budget_text
from autoprune.report.text import milliseconds, score_text
from autoprune.run.config import Config, setting_names
from autoprune.space.budget import megabytes

WORDS = {
    "model": "Model", "weights": "Weights file", "revision": "Revision of the model",
    "trust_remote_code": "Code of the model", "image_size": "Side of pictures, pixels",
    "new_head": "New head", "dataset": "Data",
    "image_column": "Column of pictures", "text_columns": "Columns of text",
    "label_column": "Column of labels",
    "group_by": "Rows kept together by", "limit_rows": "Most rows: training, validation, test",
    "task": "Task",
    "metric": "Metric", "max_length": "Tokens a row is cut at", "budget": "Budget", "space": "Search space",
    "target": "Target", "trials": "Trials asked for", "timeout_s": "Seconds for trials",
    "trial_timeout_s": "Seconds for a trial", "patience": "Patience, trials", "sampler": "Sampler",
    "seed": "Seed", "storage": "Database of the study", "file_storage": "Files stored",
    "robustness": "Scored on altered rows",
    "no_examples": "Rows of data left out", "allocation": "Rules of baselines",
    "folds": "Folds of finalists", "attacks": "Scored on attacked rows", "track": "Trackers",
    "teacher": "Another teacher", "teacher_weights": "Weights file of the teacher",
    "teacher_revision": "Revision of the teacher",
    "finetune_steps": "Steps of a brief fine-tune", "teacher_epochs": "Passes that fit a missing head",
    "teacher_rate": "Learning rate of that fit", "calibration_rows": "Rows of calibration",
    "clean_data": "Rows left out of training", "augment": "Training rows changed", "batch": "Batch timed at",
    "sequence": "Tokens timed at", "workers": "Workers", "gpus_per_trial": "GPUs of a worker",
    "cpus_per_trial": "CPUs of a worker", "address": "Cluster", "latency_node": "Node that times",
    "wait_s": "Seconds to wait for room",
}  # fmt: skip
"""Settings in words, by their flat names."""


@dataclass(frozen=True)
class Difference:
    """A setting or a fact, and its value in each run."""

    name: str
    values: tuple[str, ...]


def differences(runs: Sequence[ComparedRun]) -> list[Difference]:
    """What differs, settings first, then what the runs began with and ran on."""
    defaults = Config().as_json()
    rows = [
        Difference(
            WORDS.get(name, name.replace("_", " ")),
            tuple(_value(run.about.config.get(name, defaults.get(name))) for run in runs),
        )
        for name in setting_names()
    ]
    facts = [run.front.run for run in runs]
    rows += [
        Difference("Weights of the original", tuple(fact.model_hash[:19] or "\u2013" for fact in facts)),
        Difference("Rows of the data, hash", tuple(fact.data_hash[:19] or "\u2013" for fact in facts)),
        Difference("Machine", tuple(fact.machine or "\u2013" for fact in facts)),
    ]
    for package in sorted({name for fact in facts for name in fact.versions}):
        versions = tuple(str(fact.versions.get(package, "\u2013")) for fact in facts)
        rows.append(Difference(f"Version of {package}", versions))
    return [row for row in rows if len(set(row.values)) > 1]


def summaries(runs: Sequence[ComparedRun]) -> list[tuple[str, tuple[str, ...]]]:
    """Each run in a row: name, folder, trials, original and best."""
    rows = []
    for run in runs:
        front, metric = run.front, run.front.run.metric
        cells = [str(run.folder), f"{sum(trial.measured for trial in front.searched):,}", budget_text(front)]
        for trial in (front.original, front.chosen):
            if trial is None or not trial.measured:
                cells.append("\u2013")
                continue
            score = trial.accuracy if trial.test_accuracy is None else trial.test_accuracy
            where = "validation" if trial.test_accuracy is None else "test"
            parts = (megabytes(trial.size_bytes or 0), milliseconds(trial.latency_ms))
            cells.append(f"{', '.join(parts)}, {score_text(metric, score)} on {where}")
        rows.append((run.title, tuple(cells)))
    return rows


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == [] or value == ():
        return "as usual"
    if isinstance(value, list | tuple):
        return redacted(", ".join(map(str, value)))
    return redacted(str(value))
