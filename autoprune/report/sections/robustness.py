"""What the original and the points to choose from lose on altered test rows, as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.report.text import DASH, percent, score_text
from autoprune.run.front_schema import Front
from autoprune.run.robustness import Robustness


@dataclass(frozen=True)
class RobustCell:
    """What a model scores, and by how many points that is off its score on the rows as they are."""

    score: str
    change: str


@dataclass(frozen=True)
class RobustRow:
    """Test rows with one alteration: its name, what it does, and a cell for the original and each point."""

    name: str
    what: str
    cells: tuple[RobustCell, ...]


@dataclass(frozen=True)
class RobustTable:
    """Scores on altered test rows. heads: of a column for each point, after the original's."""

    heads: tuple[tuple[str, str], ...]
    rows: tuple[RobustRow, ...]
    note: str


def robustness_table(front: Front) -> RobustTable | None:
    """The table; None where no model was asked about altered rows."""
    what, original = front.robustness, front.original
    if what is None or original is None or str(original.number) not in what.scores:
        return None
    points = [
        (trial, ", ".join(words))
        for trial, words in front.named
        if trial is not original and str(trial.number) in what.scores
    ]
    if not points:
        return None
    numbers = [str(trial.number) for trial in (original, *(trial for trial, _ in points))]
    names = [("As they are", ""), *((row.name.capitalize(), row.what) for row in what.alterations)]
    rows = [
        RobustRow(name, told, tuple(_cell(front, what, number, k) for number in numbers))
        for k, (name, told) in enumerate(names)
    ]
    if any(flips[0] is not None for flips in what.flips.values()):
        rows += [
            RobustRow(
                f"Other answers, {name.lower()}",
                "",
                tuple(
                    RobustCell(percent(what.flips[number][k]) if place else DASH, "")
                    for place, number in enumerate(numbers)
                ),
            )
            for k, (name, _) in enumerate(names)
        ]
    heads = tuple((trial.label.capitalize(), words) for trial, words in points)
    return RobustTable(heads, tuple(rows), _note(what))


def _cell(front: Front, what: Robustness, number: str, place: int) -> RobustCell:
    metric, scores = front.run.metric, what.scores[number]
    change = metric.signed(scores[place], scores[0]) if place else ""
    return RobustCell(score_text(metric, scores[place]), change)


def _note(what: Robustness) -> str:
    drawn = "all" if what.rows == what.test_rows else f"{what.rows:,} of {what.test_rows:,}"
    return (
        f"Scores on {drawn} test rows, and by how many points that is off the same model\u2019s score on "
        "them as they are. Other answers: percent of the rows to which a model answers otherwise than the "
        "original does to the same."
    )
