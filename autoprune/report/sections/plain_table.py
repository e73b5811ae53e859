"""The table of trials for browsers without JavaScript: rows of texts, in order of number."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from autoprune.report.sections.rungs import NAMES
from autoprune.report.text import DASH, milliseconds, nats, score_text
from autoprune.run.front_schema import Front, TrialRow
from autoprune.space.budget import megabytes
from autoprune.space.trial import cause_of


class PlainRow(NamedTuple):
    """One trial in words."""

    label: str
    standing: str
    size: str
    latency: str
    validation: str
    test: str
    kl: str
    rung: str


def plain_rows(front: Front, shown: Container[int]) -> list[PlainRow]:
    """The trials whose numbers are in `shown`, as the page's own table has them."""
    points = {trial.number: words for trial, words in front.named}
    return [
        _row(front, trial, points.get(trial.number, [])) for trial in front.trials if trial.number in shown
    ]


def _row(front: Front, trial: TrialRow, points: Sequence[str]) -> PlainRow:
    metric = front.run.metric
    return PlainRow(
        label=trial.label,
        standing=_standing(trial, points),
        size=DASH if trial.size_bytes is None else megabytes(trial.size_bytes),
        latency=milliseconds(trial.latency_ms),
        validation=score_text(metric, trial.accuracy),
        test=score_text(metric, trial.test_accuracy),
        kl=nats(trial.kl),
        rung=DASH if trial.rung is None else NAMES.get(trial.rung, str(trial.rung)),
    )


def _standing(trial: TrialRow, points: Sequence[str]) -> str:
    if trial.state == "FAIL":
        return f"failed: {cause_of(trial.failure or '')}"
    if trial.name is not None:
        return ", ".join([*points, "baseline"])
    return ", ".join([*points, "on the front" if trial.on_front else "dominated"])
