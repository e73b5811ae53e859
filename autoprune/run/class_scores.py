"""What `front.json` has of single classes, as typed, checked data."""

from __future__ import annotations

import pydantic

FEWEST_SHOWN = 10
"""Rows of a class below which what share of them is right says little; as `tasks.row_scores` has it."""


class ClassScores(pydantic.BaseModel):
    """Percent of each class's validation rows that are right, of the original and the points to ship.

    percent_right: by number of trial, in the order of the classes; None of a class without a row.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    classes: tuple[str, ...]
    validation_rows: tuple[int, ...]
    percent_right: dict[str, tuple[float | None, ...]]

    @pydantic.model_validator(mode="after")
    def _of_every_class(self) -> ClassScores:
        lengths = {len(scores) for scores in (self.validation_rows, *self.percent_right.values())}
        if lengths != {len(self.classes)}:
            raise ValueError(f"{len(self.classes)} classes have scores of {sorted(lengths)}")
        return self
