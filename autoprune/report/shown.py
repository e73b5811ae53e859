"""Which trials a page shows: all of them, or of very many those that matter and a sample of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from autoprune.run.front_schema import Front
from autoprune.run.short_rows import level_rows, whole_row

MOST_SHOWN = 700
"""Trials that a page shows: it opens as one file, of 1.5 MB with 500 trials."""

MOST_OF_FRONT = 400
"""Members of the front that are shown at most, evenly spread over their sizes."""


def shown_numbers(front: Front) -> set[int]:
    """Numbers of the trials to show: points to choose from, baselines, the front, and an even sample."""
    if len(front.trials) <= MOST_SHOWN:
        return {trial.number for trial in front.trials}
    named = {trial.number for trial, _ in front.named} | {trial.number for trial in front.baselines}
    members = sorted((t for t in front.trials if t.on_front), key=lambda trial: trial.size_bytes or 0)
    shown = named | {members[k].number for k in spread_places(len(members), MOST_OF_FRONT)}
    lower = {trial.promoted_from for trial in front.trials if trial.number in named}
    shown |= {number for number in lower if number is not None}
    others = [trial.number for trial in front.trials if trial.number not in shown]
    return shown | {others[k] for k in spread_places(len(others), MOST_SHOWN - len(shown))}


def shown_note(front: Front, shown: int) -> str:
    """That a page does not show all trials, and where they are; nothing where it does."""
    if shown == len(front.trials):
        return ""
    return (
        f"{shown:,} of {len(front.trials):,} trials are shown on this page: the points to choose from, the "
        f"baselines, the front (at most {MOST_OF_FRONT} of it) and an even sample of the others. All of them "
        "are in front.csv."
    )


def with_shown(front: Mapping[str, Any], numbers: set[int]) -> dict[str, Any]:
    """A `front.json` with these trials alone, each with its units by name."""
    levels = level_rows(front)
    rows = [whole_row(trial, levels) for trial in front.get("trials") or () if trial["number"] in numbers]
    return {**front, "trials": rows}


def spread_places(count: int, most: int) -> list[int]:
    """At most so many places of a sequence, evenly spread, with its first and last."""
    if count <= most:
        return list(range(count))
    places = np.unique(np.linspace(0, count - 1, max(0, most)).round().astype(int))
    return [int(place) for place in places]
