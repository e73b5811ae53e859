"""Where the project lies, for tests in any folder."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SPACES = ROOT / "search_spaces"
