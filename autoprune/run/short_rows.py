"""Trials of `front.json` that hold the levels of their units as numbers.

With all its units by name a trial of 38 units takes 6 kB. Of more than `WHOLE_TRIALS` trials those that are
neither on the front, nor baselines, nor points to choose from have `level_numbers` instead: for each unit, in
the order of `units`, the place of its level among the unit's rows of `sensitivity.levels`, from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WHOLE_TRIALS = 2000
"""Trials up to which all are whole."""

NUMBERS = "level_numbers"

LevelRows = Mapping[str, Sequence[Sequence[Any]]]
"""The rows of `sensitivity.levels` by unit: unit, ratio, bits, bytes of the unit, damage, milliseconds."""


def level_rows(record: Mapping[str, Any]) -> LevelRows:
    """The rows of `sensitivity.levels` of a `front.json`, unit by unit."""
    rows: dict[str, list[Sequence[Any]]] = {}
    for row in (record.get("sensitivity") or {}).get("levels") or ():
        rows.setdefault(row[0], []).append(row)
    return rows


def whole_row(trial: Mapping[str, Any], rows: LevelRows) -> dict[str, Any]:
    """A trial with the levels, bytes and milliseconds of its units by name; one that has them as it is.

    Raises:
        ValueError, LookupError: where the numbers are not those of these units.
    """
    if trial.get(NUMBERS) is None:
        return dict(trial)
    chosen = []
    for (unit, levels), number in zip(rows.items(), trial[NUMBERS], strict=True):
        if not 0 <= number < len(levels):
            raise ValueError(f"{unit} of trial {trial.get('number')} has no level {number}")
        chosen.append(levels[number])
    timed = () if trial.get("predicted_latency_ms") is None else chosen
    units = {
        "levels": {unit: {"ratio": ratio, "bits": bits} for unit, ratio, bits, *_ in chosen},
        "unit_bytes": {row[0]: row[3] for row in chosen},
        "unit_ms": {row[0]: row[5] for row in timed},
    }
    return {**{key: value for key, value in trial.items() if key != NUMBERS}, **units}
