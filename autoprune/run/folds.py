"""`folds.json`: what the original and the points to ship score on each fold, fine-tuned on the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Self

import pydantic

from autoprune.core.files import write_json
from autoprune.run.recorded import recorded
from autoprune.tasks.metrics import Metric

FOLDS = "folds.json"


class Folds(pydantic.BaseModel):
    """Scores of 0..100 by number of trial and by fold, of `rows` training and validation rows.

    scores: by the fold's number as text; a fold that was not scored yet is not there.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    count: int
    rows: int
    seed: int
    scores: Mapping[str, Mapping[str, float]] = {}

    def with_score(self, number: int, fold: int, score: float) -> Self:
        """The same with one more score."""
        mine = {**self.scores.get(str(number), {}), str(fold): score}
        return self.model_copy(update={"scores": {**self.scores, str(number): mine}})

    def of(self, number: int) -> list[float] | None:
        """What a trial's model scores, fold by fold; None where a fold lacks."""
        mine = self.scores.get(str(number), {})
        known = [mine.get(str(fold)) for fold in range(self.count)]
        return None if None in known else [score for score in known if score is not None]

    def gaps(self, number: int, other: int) -> list[float] | None:
        """By how many points a trial is off another, fold by fold: both met the same rows."""
        ours, theirs = self.of(number), self.of(other)
        if ours is None or theirs is None:
            return None
        return [a - b for a, b in zip(ours, theirs, strict=True)]


def mean_and_spread(scores: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation over folds.

    >>> mean_and_spread([80.0, 81.0, 82.0])
    (81.0, 1.0)
    """
    return fmean(scores), stdev(scores)


def spread_text(metric: Metric, scores: list[float]) -> str:
    """A metric's own number over folds.

    >>> from autoprune.tasks.metrics import ACCURACY
    >>> spread_text(ACCURACY, [80.3, 80.9, 81.5])
    'accuracy 80.9 ± 0.6 % over 3 folds'
    """
    mean, spread = mean_and_spread([metric.shown(score) for score in scores])
    unit = f" {metric.unit}" if metric.unit else ""
    return f"{metric.word} {mean:.1f} ± {spread:.1f}{unit} over {len(scores)} folds"


def recorded_folds(run: Path) -> Folds | None:
    """What is recorded in a run folder; None where nothing is.

    Raises:
        AutopruneError: where the file is damaged.
    """
    return recorded(Folds, run / FOLDS)


def record_folds(run: Path, what: Folds) -> None:
    """Write it, whole or not at all."""
    write_json(run / FOLDS, what.model_dump())


def folds_field(run: Path) -> dict[str, Any]:
    """What `front.json` has of it: the field `folds`, or none where there is none."""
    what = recorded_folds(run)
    return {} if what is None else {"folds": what.model_dump()}
