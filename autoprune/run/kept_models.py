"""Models of trials that a run folder keeps, read only where they are what the run wrote."""

from __future__ import annotations

from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.core.files import file_hash
from autoprune.run.folder import MODEL, artifact_folder, read_record
from autoprune.run.scrub import HASHES


def kept_artifact(run: Path, number: int) -> Path | None:
    """Folder of a trial's model in a run folder, checked by its hashes; None where none is kept.

    Earlier versions noted no hashes.

    Raises:
        AutopruneError: for a file that is missing or not what the run wrote.
    """
    folder = artifact_folder(run, number)
    if not (folder / MODEL).is_file():
        return None
    noted = read_record(folder / HASHES).get("sha256") if (folder / HASHES).exists() else {}
    if not isinstance(noted, dict):
        raise AutopruneError(f"{folder / HASHES} is damaged: it has no object `sha256`")
    for name in (MODEL, "config.json"):
        if noted and (not (folder / name).is_file() or file_hash(folder / name) != noted.get(name)):
            raise AutopruneError(
                f"{folder / name} is not the file that the run wrote (its SHA-256 differs): move {folder} "
                "away, and its model is made again"
            )
    return folder
