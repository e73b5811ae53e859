"""What each rung cost, and whether it ranks candidates as the rung above does."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.report.text import DASH, MINUS, plural
from autoprune.run.front_schema import AgreementRow, Front
from autoprune.space.trial import FEWEST_PAIRS

NAMES = {0: "untrained", 1: "brief", 2: "long"}
"""A rung in a table; dom.js has the same words."""

MEANING = {
    0: "measured as compressed, without training",
    1: "after a brief fine-tune",
    2: "after a longer fine-tune, finalists only",
}

STAGE = {0: "untrained", 1: "after the brief fine-tune", 2: "after the long fine-tune"}

AGREE = 0.5
"""Kendall's tau from which three of four pairs of candidates keep their order."""


@dataclass(frozen=True)
class Step:
    """A line of the table of rungs, as text."""

    name: str
    meaning: str
    steps: str
    trials: str
    seconds: str


@dataclass(frozen=True)
class Said:
    """A sentence about two rungs; `low` where their ranks flip."""

    text: str
    low: bool


def ladder(front: Front) -> list[Step]:
    """The rungs, lowest first."""
    rungs = sorted(front.rungs or (), key=lambda row: row.rung)
    return [
        Step(
            name=NAMES.get(rung.rung, f"rung {rung.rung}"),
            meaning=MEANING.get(rung.rung, ""),
            steps=DASH if rung.steps is None else f"{rung.steps:,}",
            trials=f"{rung.trials:,}",
            seconds=DASH if rung.mean_seconds is None else f"{rung.mean_seconds:.1f}\u00a0s",
        )
        for rung in rungs
    ]


def agreements(front: Front) -> list[Said]:
    """A sentence for each two rungs that any candidate was measured at."""
    said = [row for row in front.agreement or () if row.pairs or row.trained]
    return [Said(" ".join(filter(None, (_kept(row), _sentence(row)))), row.low) for row in said]


def _kept(row: AgreementRow) -> str:
    """How many fine-tunes were kept, and what they left; empty where the record does not say."""
    if row.trained is None:
        return ""
    stage = STAGE.get(row.upper, f"at rung {row.upper}").removeprefix("after the ")
    done = f"{row.pairs} of {plural(row.trained, f'{stage}')}" if row.trained else ""
    changed = "changed anything and was kept" if row.pairs == 1 else "changed anything and were kept"
    left = "" if row.left is None else f"; on average {100 * row.left:.0f}\u00a0% of the KL was left"
    return f"{done} {changed}{left}."


def _sentence(row: AgreementRow) -> str:
    lower, upper = (STAGE.get(rung, f"at rung {rung}") for rung in (row.lower, row.upper))
    if not row.pairs:
        return ""
    if row.kendall_tau is None:
        if row.pairs < FEWEST_PAIRS:
            few = f"{plural(row.pairs, 'candidate')} {'was' if row.pairs == 1 else 'were'}"
            return f"{few} measured both {lower} and {upper}, too few to compare ranks."
        return f"Ranks by KL {lower} and {upper} cannot be compared: too many are tied."
    tau = f"Kendall\u2019s tau {row.kendall_tau:.2f}".replace("-", MINUS)
    over = f"{tau} over {plural(row.pairs, 'candidate')}"
    if row.low:
        return (
            f"Ranks flip between rungs: by KL, candidates stand in one order {lower} and in another "
            f"{upper} ({over}), so the search promoted more of them."
        )
    how = "agree with" if row.kendall_tau >= AGREE else "agree only in part with"
    return f"Ranks by KL {lower} {how} those {upper}: {over}."
