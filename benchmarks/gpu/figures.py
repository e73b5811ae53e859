"""The figures of a part, on disk after each that is added: a part that is stopped keeps what it had."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from autoprune.core.files import write_json


class Figures:
    """Figures by name, in a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._figures: dict[str, Any] = {}

    def note(self, **figures: Any) -> None:
        """Add figures, or replace those of the same name; floats are rounded to six digits."""
        self._figures |= {name: _plain(value) for name, value in figures.items()}
        write_json(self._path, self._figures)


def read_figures(path: Path) -> dict[str, Any]:
    """What was noted so far; nothing where none was."""
    if not path.is_file():
        return {}
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return figures


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value
