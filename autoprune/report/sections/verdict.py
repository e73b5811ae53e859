"""What the run came to, in one sentence, a few notes and four figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoprune.report.sections.choices import as_good_as_best, remarks_on
from autoprune.report.sections.lines import not_above
from autoprune.report.text import (
    TIMES,
    duration,
    milliseconds,
    named_score,
    plural,
    score_text,
    standard_error,
)
from autoprune.run.front_schema import Front, LineRow, TrialRow
from autoprune.run.text import shell_word
from autoprune.space.budget import Budget, megabytes


@dataclass(frozen=True)
class Figure:
    """One measurement of the chosen trial beside the original's."""

    label: str
    value: str
    change: str
    detail: str


def budget_text(front: Front) -> str:
    """The limits as the user wrote them, or as numbers where that is not kept."""
    given = front.run.budget
    return front.run.budget_text or str(Budget(given.size_bytes, given.latency_ms))


def has_budget(front: Front) -> bool:
    """Whether the user set any limit."""
    return front.run.budget != type(front.run.budget)()


def verdict(front: Front) -> str:
    """The sentence that a reader takes away."""
    chosen = front.chosen
    if chosen is None or not chosen.measured:
        return _nothing(front)
    where = f"{chosen.label} is within {budget_text(front)}"
    if not has_budget(front):
        done = sum(trial.measured for trial in front.searched)
        where = f"{chosen.label} is the best of {plural(done, 'trial')}; no limit was set"
    parts = f"{megabytes(chosen.size_bytes or 0)}{_compared(chosen, front.original)}"
    return f"{_so_far(front)}{parts} at {_score(front, chosen)}: {where}"


def notes(front: Front) -> list[str]:
    """What a careful reader has to know about the sentence."""
    simple = [as_good_as_best(front), not_above(front)]
    sentences = [*simple, _unfinished(front), *remarks_on(front), _noise(front), _unseen(front)]
    return [sentence for sentence in sentences if sentence]


def figures(front: Front) -> list[Figure]:
    """Size, latency and score of the chosen trial, and how far the run went."""
    chosen, original = front.chosen, front.original
    measured = [] if chosen is None or not chosen.measured else _measured(front, chosen, original)
    done = sum(trial.measured for trial in front.searched)
    failed = sum(trial.state == "FAIL" for trial in front.searched)
    planned = front.run.planned_trials
    shown = f"{done} of {planned}" if planned > done else str(done)
    change = f"{failed} failed" if failed else "none failed"
    return [*measured, Figure("Trials measured", shown, change, duration(front.run.seconds))]


def split_of(trial: TrialRow, other: TrialRow | LineRow | None) -> str:
    """`test` where both were measured on test rows, else `validation`."""
    known = trial.test_accuracy is not None and (other is None or other.test_accuracy is not None)
    return "test" if known else "validation"


def accuracy_on(split: str, trial: TrialRow | LineRow) -> float | None:
    """The score on that split."""
    return trial.test_accuracy if split == "test" else trial.accuracy


def _measured(front: Front, chosen: TrialRow, original: TrialRow | None) -> list[Figure]:
    split, metric = split_of(chosen, original), front.run.metric
    value = accuracy_on(split, chosen)
    size = Figure("Size", megabytes(chosen.size_bytes or 0), "", "")
    latency = Figure(latency_title(front), milliseconds(chosen.latency_ms), "", "")
    accuracy = Figure(f"{metric.title}, {split}", score_text(metric, value), "", "")
    if original is None:
        return [size, latency, accuracy]
    before = accuracy_on(split, original)
    change = "" if value is None or before is None else metric.difference(value, before)
    return [
        Figure(
            size.label,
            size.value,
            _times(original.size_bytes, chosen.size_bytes, "smaller", "larger") or "the same size",
            f"original {megabytes(original.size_bytes or 0)}",
        ),
        Figure(
            latency.label,
            latency.value,
            _times(original.latency_ms, chosen.latency_ms, "faster", "slower") or "equally fast",
            f"original {milliseconds(original.latency_ms)}",
        ),
        Figure(accuracy.label, accuracy.value, change, f"original {score_text(metric, before)}"),
    ]


def _nothing(front: Front) -> str:
    """The sentence where there is no trial to ship."""
    done = [trial for trial in front.searched if trial.measured]
    failed = sum(trial.state == "FAIL" for trial in front.searched)
    if not done and failed:
        which = "the only trial" if failed == 1 else f"all {failed} trials"
        return f"{_so_far(front)}no result: {which} failed".capitalize()
    if not done:
        return "No trial has finished yet"
    if not has_budget(front):
        told = f"{_so_far(front)}no trial was chosen among {plural(len(done), 'trial')}"
        return told.capitalize()
    slow = front.run.budget.size_bytes is None
    near = min(done, key=lambda trial: (_or_inf(trial.latency_ms) if slow else 0.0, trial.size_bytes or 0))
    now = " so far" if front.run.state == "running" else ""
    which = "fastest" if slow else "smallest"
    latency = "" if near.latency_ms is None else f", {milliseconds(near.latency_ms)}"
    return (
        f"No trial{now} is within {budget_text(front)}: the {which} of "
        f"{plural(len(done), 'trial')} is {near.label} with {megabytes(near.size_bytes or 0)}"
        f"{latency} at {named_score(front.run.metric, near.accuracy)} on validation"
    )


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value


def _so_far(front: Front) -> str:
    return "So far " if front.run.state == "running" else ""


def _times(before: float | None, after: float | None, less: str, more: str) -> str:
    """`4.6× smaller`; empty where either is unknown or both round to the same."""
    if not before or not after:
        return ""
    word, factor = (less, before / after) if before >= after else (more, after / before)
    shown = f"{factor:.2f}" if factor < 1.1 else f"{factor:.1f}"
    return "" if factor < 1.005 else f"{shown}{TIMES} {word}"


def _compared(trial: TrialRow, original: TrialRow | None) -> str:
    if original is None:
        return ""
    size = _times(original.size_bytes, trial.size_bytes, "smaller", "larger")
    latency = _times(original.latency_ms, trial.latency_ms, "faster", "slower")
    told = " and ".join(part for part in (size, latency) if part)
    return f", {told} than the original" if told else ""


def latency_title(front: Front) -> str:
    """What the milliseconds are of."""
    return f"Latency of {front.run.latency_of}" if front.run.latency_of else "Latency"


def _score(front: Front, trial: TrialRow) -> str:
    """A trial's score beside the original's, on the split that both have."""
    split, metric = split_of(trial, front.original), front.run.metric
    before = ""
    if front.original is not None:
        before = f" (original {score_text(metric, accuracy_on(split, front.original))})"
    return f"{named_score(metric, accuracy_on(split, trial))}{before} on {split}"


def _unfinished(front: Front) -> str:
    run = front.run
    done = sum(trial.measured for trial in front.searched)
    told = f"{done} of {plural(run.planned_trials, 'trial')} measured"
    if done > run.planned_trials:
        told = f"{plural(done, 'trial')} measured"
    if run.state == "running":
        return f"The run is not finished: {told}. This page is a picture of the moment."
    if run.state in ("stopped", "gone"):
        ended = "was stopped" if run.state == "stopped" else "ended without a word"
        return f"The run {ended}: {told}. autoprune resume {shell_word(run.folder)} goes on."
    return ""


def _noise(front: Front) -> str:
    """How far a score may be off by the choice of rows: known of a share of rows alone."""
    chosen = front.chosen
    if chosen is None or not chosen.measured or not front.run.metric.is_share_of_rows:
        return ""
    split = split_of(chosen, front.original)
    rows = front.run.test_rows if split == "test" else front.run.validation_rows
    value = accuracy_on(split, chosen)
    error = standard_error(value, rows)
    if error is None:
        return ""
    shown = score_text(front.run.metric, value)
    return (
        f"On {plural(rows, f'{split} row')}, {shown} has a standard error of {error:.1f} "
        f"points; smaller differences are not settled by this run."
    )


def _unseen(front: Front) -> str:
    chosen = front.chosen
    if chosen is None or not chosen.measured or split_of(chosen, front.original) == "test":
        return ""
    word = front.run.metric.word
    return (
        f"Test {word} has not been measured. The trial was chosen on these validation rows, so "
        f"its {word} on them is somewhat optimistic."
    )
