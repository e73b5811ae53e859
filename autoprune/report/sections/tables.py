"""The small tables: gain over uniform compression, failures by cause, provenance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.report.sections.lines import fits_budget
from autoprune.report.sections.verdict import accuracy_on, budget_text, split_of
from autoprune.report.text import duration, milliseconds, named_score, plural, score_text, share
from autoprune.run.front_schema import Front, LineRow, TrialRow
from autoprune.run.remarks import STOPPED
from autoprune.run.text import small_size
from autoprune.space.budget import megabytes
from autoprune.space.trial import ORIGINAL, cause_of
from autoprune.tasks.metrics import ACCURACY

MOST_LISTED = 100
"""Failed trials of one cause that are named."""


@dataclass(frozen=True)
class Rival:
    """A trial set against a baseline; `step` of the metric on `split`, `ahead` where it is for the better."""

    label: str
    size: str
    accuracy: str
    baseline: str
    step: str
    split: str
    ahead: bool


@dataclass(frozen=True)
class Gain:
    """One baseline or line: against the trial to ship, and against the best of no more bytes.

    what: a line in words; nothing of a baseline.
    """

    name: str
    size: str
    latency: str
    accuracy: str
    fits: bool
    chosen: Rival | None
    equal: Rival | None
    what: str = ""


@dataclass(frozen=True)
class Cause:
    """Failed trials that share a cause; `example` is one message in full."""

    cause: str
    count: int
    numbers: str
    example: str


def gains(front: Front) -> list[Gain]:
    """Each uniform baseline, largest first, then each line, with what the search found beside it."""
    chosen = front.chosen if front.chosen is not None and front.chosen.measured else None
    uniform = [trial for trial in front.baselines if trial.measured and trial.name != ORIGINAL]
    rows = []
    compared: list[TrialRow | LineRow] = [*sorted(uniform, key=lambda trial: -(trial.size_bytes or 0))]
    for base in [*compared, *front.lines]:
        fits = fits_budget(front, base) if isinstance(base, LineRow) else base.within_budget
        equal = best_of_at_most(front.searched, base.size_bytes or 0)
        rows.append(
            Gain(
                name=base.label,
                size=small_size(base.size_bytes or 0),
                latency=milliseconds(base.latency_ms),
                accuracy=score_text(front.run.metric, base.accuracy),
                fits=fits,
                chosen=_rival(front, chosen, base) if chosen is not None and fits else None,
                equal=None if equal is None else _rival(front, equal, base),
                what=base.what if isinstance(base, LineRow) else "",
            )
        )
    return rows


def gain_heads(front: Front) -> tuple[str, str]:
    """Heads of the columns that have baselines' scores, and gains over them."""
    metric = front.run.metric
    return metric.title, "Gain, points" if metric.higher_is_better else f"Change in {metric.word}"


def gain_note(front: Front) -> str:
    """How the table of gains is to be read."""
    metric = front.run.metric
    best = "most accurate" if metric == ACCURACY else f"one of best {metric.word}"
    less = "" if metric.higher_is_better else f" Less {metric.word} is better."
    return (
        f"The best trial of no more bytes is the {best} on validation. Gains are on test where both models "
        f"were measured there; on validation, a choice among many is partly luck.{less}"
    )


def best_of_at_most(trials: Sequence[TrialRow], size_bytes: int) -> TrialRow | None:
    """The most accurate trial, on validation, of no more bytes."""
    small = [trial for trial in trials if trial.measured and (trial.size_bytes or 0) <= size_bytes]
    return min(small, key=_rank, default=None)


def causes(front: Front) -> list[Cause]:
    """Failures by the part of their message before the first colon, most frequent first."""
    groups: dict[str, list[TrialRow]] = {}
    for trial in front.trials:
        if trial.state == "FAIL":
            groups.setdefault(cause_of(trial.failure or ""), []).append(trial)
    ordered = sorted(groups.items(), key=lambda pair: -len(pair[1]))
    return [
        Cause(
            cause=cause,
            count=len(members),
            numbers=_listed([trial.name or str(trial.number) for trial in members]),
            example=members[0].failure or "",
        )
        for cause, members in ordered
    ]


def _listed(numbers: Sequence[str]) -> str:
    more = len(numbers) - MOST_LISTED
    return ", ".join(numbers[:MOST_LISTED]) + (f" and {more:,} more" if more > 0 else "")


def provenance(front: Front) -> list[tuple[str, str]]:
    """Names and values that say where the numbers come from; what is unknown is left out."""
    run = front.run
    pairs = [
        ("Model", run.model),
        ("Model hash", run.model_hash),
        ("Data", run.dataset),
        ("Data hash", run.data_hash),
        ("Rows", _rows(front)),
        ("Left out of training", ", ".join(f"{count:,} {why}" for why, count in run.cleaned.items())),
        ("Metric", "" if run.metric == ACCURACY else run.metric.label),
        ("Target", run.target_text),
        ("Budget", budget_text(front)),
        ("Search space", run.space),
        ("Sampler", run.sampler),
        ("Seed", "" if run.seed is None else str(run.seed)),
        ("Trials", _trials(front)),
        ("Fine-tune", _fine_tune(front)),
        ("Started", run.started),
        ("Duration", "" if run.seconds is None else duration(run.seconds)),
        ("Stopped by", STOPPED.get(run.stopped_by, run.stopped_by)),
        ("Driver", _share_of(run.driver_share, "the wall time spent thinking")),
        ("Overhead", _share_of(run.overhead_share, "the trials\u2019 time neither training nor evaluation")),
        ("Run folder", run.folder),
        ("Machine", run.machine),
        ("Versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
        ("Hypervolume", _hypervolume(front)),
        ("KL hypervolume", _kl_hypervolume(front)),
    ]
    return [(name, value) for name, value in pairs if value]


def _rival(front: Front, trial: TrialRow, base: TrialRow | LineRow) -> Rival:
    split, metric = split_of(trial, base), front.run.metric
    after, before = accuracy_on(split, trial) or 0.0, accuracy_on(split, base) or 0.0
    return Rival(
        label=trial.label,
        size=megabytes(trial.size_bytes or 0),
        accuracy=score_text(metric, after),
        baseline=score_text(metric, before),
        step=metric.signed(after, before),
        split=split,
        ahead=metric.is_ahead(after, before),
    )


def _rank(trial: TrialRow) -> tuple[float, float, int, int]:
    """Least is best: accuracy, then divergence from the teacher, then bytes."""
    kl = math.inf if trial.kl is None else trial.kl
    return (-(trial.accuracy or 0.0), kl, trial.size_bytes or 0, trial.number)


def _rows(front: Front) -> str:
    run = front.run
    pairs = ((run.validation_rows, "validation"), (run.test_rows, "test"))
    return ", ".join(f"{count:,} {name}" for count, name in pairs if count)


def _trials(front: Front) -> str:
    """What was asked for and what came of it; promotions are trials of their own."""
    planned, searched = front.run.planned_trials, front.searched
    failed = sum(trial.state == "FAIL" for trial in searched)
    counts = [f"{planned:,} asked for"] if planned else []
    counts += [f"{len(searched):,} ended, those trained further counted again"] if searched else []
    return ", ".join([*counts, f"{failed:,} failed"] if failed else counts)


def _fine_tune(front: Front) -> str:
    """The brief fine-tune of a trial; nothing where none was or it is unknown."""
    recipe = front.run.recipe
    parts = [f"{recipe.steps:,} steps"] if recipe.steps else []
    parts += [f"of {plural(recipe.batch_size, 'row')}"] if parts and recipe.batch_size else []
    parts += [f"at a learning rate of {recipe.learning_rate:g}"] if parts and recipe.learning_rate else []
    more = [f"a weight decay of {recipe.weight_decay:g}"] if recipe.weight_decay else []
    more += [f"dropout of {recipe.dropout:g}"] if recipe.dropout else []
    parts += [f"with {' and '.join(more)}"] if parts and more else []
    return " ".join(parts) + " in a brief one" if parts else ""


def _share_of(value: float | None, whole: str) -> str:
    return "" if value is None else f"{share(value)} of {whole}"


def _kl_hypervolume(front: Front) -> str:
    return "" if front.kl_hypervolume is None else f"{front.kl_hypervolume:.4f} in bytes and log KL"


def _hypervolume(front: Front) -> str:
    point = front.hypervolume_reference
    if front.hypervolume is None:
        return ""
    if point.size_bytes is None:
        return f"{front.hypervolume:.4f}"
    return (
        f"{front.hypervolume:.4f}, reference {megabytes(point.size_bytes)}, "
        f"{milliseconds(point.latency_ms)}, {named_score(front.run.metric, point.accuracy)}"
    )
