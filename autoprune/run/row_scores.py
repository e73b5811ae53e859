"""`row_scores.json`: the score of each row of models worth comparing, so that another run can be compared.

Scores alone, in the rows' order, as `tasks/row_scores` writes them; no text and no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pydantic

from autoprune.core.files import write_json
from autoprune.run.recorded import recorded

if TYPE_CHECKING:
    from autoprune.run.standing import Standing

ROW_SCORES = "row_scores.json"

MOST_CHARACTERS = 2_000_000
"""Scores of members of the front that have no name are kept up to so many characters of all."""


class RowScores(pydantic.BaseModel):
    """The rows' scores by number of trial, on both splits that are measured on."""

    model_config = pydantic.ConfigDict(frozen=True)

    validation: dict[str, str] = {}
    test: dict[str, str] = {}

    def of(self, split: str) -> Mapping[str, str]:
        """Those on `validation` or `test`."""
        return self.test if split == "test" else self.validation


def recorded_scores(run: Path) -> RowScores:
    """What is recorded in a run folder; nothing where earlier versions made it.

    Raises:
        AutopruneError: where the file is damaged.
    """
    return recorded(RowScores, run / ROW_SCORES) or RowScores()


def record_test_scores(run: Path, number: int, text: str) -> None:
    """Add the scores of a model's test rows; none where its metric has none."""
    if text:
        before = recorded_scores(run)
        _write(run, before.model_copy(update={"test": {**before.test, str(number): text}}))


def record_validation_scores(run: Path, now: Standing) -> None:
    """Write the scores of validation rows: of baselines, points to ship, and the front where room is."""
    named = [*(trial for trial in now.trials if trial.is_baseline), *now.points_to_ship]
    kept: dict[str, str] = {}
    room = MOST_CHARACTERS
    for trial in (*named, *now.front):
        room -= len(trial.row_scores)
        if trial.row_scores and (room >= 0 or trial in named):
            kept[str(trial.number)] = trial.row_scores
    before = recorded_scores(run)
    if kept and kept != before.validation:
        _write(run, before.model_copy(update={"validation": kept}))


def _write(run: Path, scores: RowScores) -> None:
    write_json(run / ROW_SCORES, scores.model_dump())
