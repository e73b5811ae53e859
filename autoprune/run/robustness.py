"""`robustness.json`: what the original and the points to ship score on altered test rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pydantic

from autoprune.core.files import write_json
from autoprune.run.recorded import recorded

ROBUSTNESS = "robustness.json"


class AlterationRow(pydantic.BaseModel):
    """An alteration: its name, and what it does in words."""

    model_config = pydantic.ConfigDict(frozen=True)

    name: str
    what: str


class Robustness(pydantic.BaseModel):
    """Scores of 0..100 on `rows` of the test rows, by number of trial: as they are, then by alteration.

    flips: percent of the answers that are not the original's to the same rows; None where answers are no
    classes.
    """

    model_config = pydantic.ConfigDict(frozen=True)

    rows: int
    test_rows: int
    seed: int
    alterations: tuple[AlterationRow, ...]
    scores: dict[str, tuple[float, ...]] = {}
    flips: dict[str, tuple[float | None, ...]] = {}

    @pydantic.model_validator(mode="after")
    def _of_every_alteration(self) -> Self:
        lengths = {len(row) for row in (*self.scores.values(), *self.flips.values())}
        if not lengths <= {1 + len(self.alterations)}:
            raise ValueError(f"{len(self.alterations)} alterations have scores of {sorted(lengths)}")
        return self

    def with_model(self, number: int, scores: Sequence[float], flips: Sequence[float | None]) -> Self:
        """The same with one more model."""
        return self.model_copy(
            update={
                "scores": {**self.scores, str(number): tuple(scores)},
                "flips": {**self.flips, str(number): tuple(flips)},
            }
        )

    def drops(self, number: int) -> list[float] | None:
        """Points that a trial's model loses by each alteration; None where it was not scored."""
        scores = self.scores.get(str(number))
        return None if scores is None else [scores[0] - score for score in scores[1:]]


def recorded_robustness(run: Path) -> Robustness | None:
    """What is recorded in a run folder; None where nothing is.

    Raises:
        AutopruneError: where the file is damaged.
    """
    return recorded(Robustness, run / ROBUSTNESS)


def record_robustness(run: Path, what: Robustness) -> None:
    """Write it, whole or not at all."""
    write_json(run / ROBUSTNESS, what.model_dump())


def robustness_field(run: Path) -> dict[str, Any]:
    """What `front.json` has of it: the field `robustness`, or none where there is none."""
    what = recorded_robustness(run)
    return {} if what is None else {"robustness": what.model_dump()}
