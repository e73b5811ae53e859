"""What the original and the points to choose from score over folds, as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.run.folds import mean_and_spread
from autoprune.run.front_schema import Front


@dataclass(frozen=True)
class FoldRow:
    """A model over all folds: mean and spread, the least and the most, and how far it is off the original."""

    name: str
    words: str
    score: str
    extremes: str
    gap: str


@dataclass(frozen=True)
class FoldTable:
    """Scores over folds. head: of the column of scores."""

    head: str
    rows: tuple[FoldRow, ...]
    note: str


def fold_table(front: Front) -> FoldTable | None:
    """The table; None where no point was scored on all folds."""
    folds, original, metric = front.folds, front.original, front.run.metric
    if folds is None or original is None or folds.of(original.number) is None:
        return None
    points = [(trial, ", ".join(words)) for trial, words in front.named if trial is not original]
    rows = []
    for trial, words in [(original, ""), *points]:
        scores, gaps = folds.of(trial.number), folds.gaps(trial.number, original.number)
        if scores is None or gaps is None:
            continue
        shown = [metric.shown(score) for score in scores]
        gap = ""
        if trial is not original:
            theirs = folds.of(original.number) or []
            off = [mine - metric.shown(other) for mine, other in zip(shown, theirs, strict=True)]
            gap = _spread(off, sign="+")
        extremes = f"{min(shown):.1f} to {max(shown):.1f}"
        rows.append(FoldRow(trial.label.capitalize(), words, _spread(shown), extremes, gap))
    if len(rows) < 2:
        return None
    return FoldTable(f"{metric.label}, {folds.count} folds", tuple(rows), _note(folds.rows))


def _spread(values: list[float], sign: str = "") -> str:
    mean, spread = mean_and_spread(values)
    return f"{mean:{sign}.1f} ± {spread:.1f}".replace("-", "\u2212")


def _note(rows: int) -> str:
    return (
        f"Mean and standard deviation over folds of {rows:,} training and validation rows, groups whole. "
        "Each point was fine-tuned anew on the other folds, with the units of its trial. The original was "
        "not trained anew and may know these rows, so scores may lie above those on test: what counts is "
        "how they spread, and the difference, fold by fold."
    )
