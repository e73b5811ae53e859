"""`lines.json`: the simple models that a run is compared with, each measured once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic

from autoprune.core.files import write_json
from autoprune.run.front_schema import LineRow
from autoprune.run.recorded import recorded

LINES = "lines.json"


class _Recorded(pydantic.BaseModel):
    lines: tuple[LineRow, ...] = ()


def recorded_lines(run: Path) -> tuple[LineRow, ...]:
    """What was recorded in a run folder, in order; nothing of a task that has no lines, or of an older run.

    Raises:
        AutopruneError: where the file is damaged.
    """
    found = recorded(_Recorded, run / LINES)
    return () if found is None else found.lines


def record_line(run: Path, row: LineRow) -> None:
    """Add a line to those recorded; one of its name gives way."""
    others = [other for other in recorded_lines(run) if other.name != row.name]
    write_json(run / LINES, {"lines": [line.model_dump() for line in (*others, row)]})


def lines_field(run: Path) -> dict[str, Any]:
    """What `front.json` has of them: the field `lines`, or none where there are none."""
    rows = [line.model_dump() for line in recorded_lines(run)]
    return {"lines": rows} if rows else {}
