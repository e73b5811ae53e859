"""What must be said of the points to choose from: a uniform model wins, or one is no better than guessing.

The one place of these sentences, for the terminal and for the report.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from autoprune.space.budget import megabytes
from autoprune.space.trial import ORIGINAL
from autoprune.tasks.metrics import ACCURACY, Metric

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
