"""A record that a run folder may have: read and checked where it is there."""

from __future__ import annotations

from pathlib import Path

from autoprune.core.record import Model, checked
from autoprune.run.folder import read_record


def recorded(model: type[Model], path: Path) -> Model | None:
    """What a file says; None where there is none.

    Raises:
        AutopruneError: where the file is damaged.
    """
    return checked(model, read_record(path), str(path)) if path.is_file() else None
