"""What must be said of the points to choose from: a simple model is as good, a uniform one wins, or one is no
better than guessing.

The one place of these sentences, for the terminal and for the report.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoprune.run.text import small_size
from autoprune.space.budget import megabytes
from autoprune.space.trial import ORIGINAL
from autoprune.tasks.metrics import ACCURACY, Metric

if TYPE_CHECKING:
    from autoprune.run.front_schema import LineRow

STOPPED = {
    "trials": "the number of trials asked for",
    "time": "the time limit",
    "patience": "patience: no more progress",
    "space": "no candidate within the budget being left to try",
}
"""What ended a run, by its word in `front.json`."""


@dataclass(frozen=True)
class Remarked:
    """A measured trial or baseline, as sentences need it.

    name: of a baseline. label: in a sentence. made: its levels, equal where two are of one candidate.
    """

    number: int
    name: str | None
    label: str
    made: object
    size_bytes: int
    latency_ms: float
    accuracy: float


@dataclass(frozen=True)
class Compared:
    """What the points are held against.

    baselines: with the original. as_accurate: numbers of what is as accurate as the most accurate. chance:
    accuracy of always answering with the commonest class, in percent, or 0; answers: on validation.
    """

    baselines: Sequence[Remarked]
    as_accurate: Collection[int]
    metric: Metric
    chance: float
    answers: int


def remarks(best: Remarked | None, points: Sequence[tuple[Remarked, str]], beside: Compared) -> list[str]:
    """Sentences of the best, and of the points with the words for each."""
    uniform = [] if best is None else [_is_uniform(best, beside), *_uniform_wins(best, beside)]
    guessing = [_guesses(trial, words, beside) for trial, words in points]
    return [sentence for sentence in [*uniform, *guessing] if sentence]


def as_good_lines(
    best: Remarked | None, lines: Sequence[LineRow], metric: Metric, *, answers: int
) -> list[str]:
    """A sentence for each simple model that is no larger, no slower and no less accurate than the best.

    No less accurate is what lies within one standard error of the difference on validation below it, each of
    the two scores being binomial over `answers`: their rows are not kept, so that no paired test can be made,
    which would tell more of them apart. Of a score that is no share of rows the bare numbers count.
    """
    if best is None:
        return []
    return [
        f"{line.name} ({small_size(line.size_bytes)}, {line.latency_ms:.2f} ms, "
        f"{metric.told(line.accuracy)}) is {words}, "
        f"{'smaller' if line.size_bytes < best.size_bytes else 'no larger'} and "
        f"{'faster' if line.latency_ms < best.latency_ms else 'no slower'}."
        for line in lines
        if line.size_bytes <= best.size_bytes
        if line.latency_ms is not None and line.latency_ms <= best.latency_ms
        if (words := _beside_best(line.accuracy, best.accuracy, metric, answers))
    ]


def _beside_best(score: float, best: float, metric: Metric, answers: int) -> str:
    """How a simple model's score compares with the best's, in words; empty where it is worse."""
    shares = [min(max(x / 100.0, 0.0), 1.0) for x in (score, best)] if metric.is_share_of_rows else []
    error = 100.0 * math.sqrt(sum(share * (1.0 - share) for share in shares) / max(answers, 1))
    if not (metric.is_ahead(score, best) or metric.is_ahead(best, score)):
        return "as accurate as the best"
    if abs(best - score) <= error + 1e-9:
        return "as accurate as the best within the noise"
    return "more accurate than the best" if score > best else ""


def _is_uniform(best: Remarked, beside: Compared) -> str:
    """That the best is a uniform model, which may have been trained longer than baselines are."""
    same = next((model for model in beside.baselines if model.made == best.made), None)
    if same is None:
        return ""
    name = best.name or f"{same.name}, trained longer"
    return f"{best.label} is {name}, which no trial dominates; more trials may find better."


def _uniform_wins(best: Remarked, beside: Compared) -> list[str]:
    """That a uniform model is as accurate as the best, and smaller and faster."""
    return [
        f"{str(model.name).capitalize()} is as accurate as {best.label.lower()}, smaller and faster: "
        f"{megabytes(model.size_bytes)}, {model.latency_ms:.2f} ms, "
        f"{beside.metric.told(model.accuracy)} on validation."
        for model in beside.baselines
        if model.name != ORIGINAL and best.name is None and model.number in beside.as_accurate
        if model.size_bytes < best.size_bytes and model.latency_ms < best.latency_ms
    ]


def is_a_guess(accuracy: float, metric: Metric, *, chance: float, answers: int) -> bool:
    """Whether a score tells of no more than which class is the commonest; never of another metric.

    accuracy, chance, answers: as in `strategy.paired.better_than_guessing`.
    """
    from autoprune.strategy.paired import better_than_guessing  # takes long: numpy

    return metric == ACCURACY and not better_than_guessing(accuracy, chance, answers)


def _guesses(trial: Remarked, words: str, beside: Compared) -> str:
    """That a point knows no more than which class is the commonest."""
    if not is_a_guess(trial.accuracy, beside.metric, chance=beside.chance, answers=beside.answers):
        return ""
    return (
        f"{trial.label} ({words}) is no better than guessing: {beside.metric.told(trial.accuracy)} on "
        f"validation; always answering with the commonest class gives {beside.metric.told(beside.chance)}."
    )
