"""Where the search spaces lie that come with the package."""

from __future__ import annotations

from pathlib import Path


def spaces_folder() -> Path:
    """Where the shipped search spaces lie: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"
