"""The points to choose from, as rows of a table, and what must be said of them."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.report.text import milliseconds, score_text
from autoprune.run.front_schema import Front, TrialRow
from autoprune.run.remarks import Compared, Remarked, as_good_lines, remarks
from autoprune.space.budget import megabytes
from autoprune.space.point_names import also


@dataclass(frozen=True)
class Choice:
    """One point: what it is, and what was measured of it."""

    point: str
    also: str
    trial: str
    size: str
    latency: str
    validation: str
    test: str


def choices(front: Front) -> list[Choice]:
    """Each point to choose from, once."""
    metric = front.run.metric
    return [
        Choice(
            point=words[0].capitalize(),
            also=also(words),
            trial=row.label,
            size=megabytes(row.size_bytes or 0),
            latency=milliseconds(row.latency_ms),
            validation=score_text(metric, row.accuracy),
            test=score_text(metric, row.test_accuracy),
        )
        for row, words in front.named
    ]


def choice_note(front: Front) -> str:
    """What *as accurate* means here."""
    if len(front.as_accurate) < 2:
        return ""
    return (
        f"Smallest and fastest are of the {len(front.as_accurate)} models of the front that fit and are as "
        "accurate as the most accurate: a paired test on the same validation rows does not tell them apart, "
        "or, where rows were not kept, they are within one standard error of it."
    )


def as_good_as_best(front: Front) -> str:
    """Which simple models are as good on validation as the best, no larger and no slower; empty of none."""
    chosen, run = front.chosen, front.run
    best = None if chosen is None or not chosen.measured else _remarked(chosen)
    return " ".join(as_good_lines(best, front.lines, run.metric, answers=run.answers))


def remarks_on(front: Front) -> list[str]:
    """That a uniform model wins, or that a point is no better than guessing."""
    chosen = front.chosen
    beside = Compared(
        [_remarked(row) for row in front.baselines if row.measured],
        frozenset(front.as_accurate),
        front.run.metric,
        chance=front.hypervolume_reference.accuracy or 0.0,
        answers=front.run.answers,
    )
    best = None if chosen is None or not chosen.measured or chosen.levels is None else _remarked(chosen)
    return remarks(best, [(_remarked(row), ", ".join(words)) for row, words in front.named], beside)


def _remarked(row: TrialRow) -> Remarked:
    made = row.levels or {}
    levels = frozenset((unit, level.ratio, level.storage) for unit, level in made.items())
    return Remarked(
        row.number,
        row.name,
        f"Trial {row.number}",
        levels,
        row.size_bytes or 0,
        row.latency_ms or 0.0,
        row.accuracy or 0.0,
    )
