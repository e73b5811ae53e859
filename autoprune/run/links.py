"""Links in a run folder: none may lead out of it."""

from __future__ import annotations

import os
from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.core.files import is_inside


def check_links(path: Path) -> None:
    """Raise `AutopruneError` for a link that leads out of a run folder.

    A run may come from somebody else. What it has is copied to exports, which are published, and its study,
    its lock and its records are written to.
    """
    for folder, folders, files in os.walk(path):
        for entry in (Path(folder, name) for name in (*folders, *files)):
            if entry.is_symlink() and not is_inside(entry, path):
                raise AutopruneError(
                    f"{entry} is a link to {os.readlink(entry)}, outside of the run folder, and is not "
                    "followed: put what it stands for in its place, or move the whole run and link to that"
                )
