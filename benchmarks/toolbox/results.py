"""The file that rows are kept in."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from autoprune.core.files import read_json, write_json
from benchmarks.toolbox.rows import Row

RESULTS = Path(__file__).parents[1] / "results" / "toolbox.json"


def read_rows(path: Path) -> list[Row]:
    """All that are there."""
    return [Row.from_json(row) for row in read_json(path)["rows"]] if path.is_file() else []


def note_row(path: Path, row: Row) -> list[Row]:
    """Put one row into the file, which another process may have written to meanwhile."""
    rows = [*(old for old in read_rows(path) if old.key != row.key), row]
    versions = {package: metadata.version(package) for package in ("autoprune", "torch", "transformers")}
    write_json(path, {"versions": versions, "rows": [each.as_json() for each in rows]})
    return rows
