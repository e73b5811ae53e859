"""`cleaning.json`: the training rows that a run left out, so that it is taken up with the same ones.

They follow from a model's embedding, whose last digits may differ from machine to machine.
"""

from __future__ import annotations

from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.core.files import write_json
from autoprune.run.folder import read_record
from autoprune.tasks.data.cleaning import Cleaned, cleaned_as_json, cleaned_from_json

CLEANING = "cleaning.json"


def record_cleaning(run: Path, what: Cleaned) -> None:
    """Write what a run left out, if that is not recorded."""
    if not (run / CLEANING).is_file():
        write_json(run / CLEANING, cleaned_as_json(what))


def recorded_cleaning(run: Path) -> Cleaned | None:
    """What a run left out; None where it left out nothing, or has not begun.

    Raises:
        AutopruneError: where the file is damaged.
    """
    path = run / CLEANING
    if not path.is_file():
        return None
    try:
        return cleaned_from_json(read_record(path))
    except (LookupError, TypeError, ValueError) as error:
        raise AutopruneError(
            f"{path} is damaged ({type(error).__name__}: {error}). Put it back as it was, or take it away: "
            "the rows are then sought anew"
        ) from error
