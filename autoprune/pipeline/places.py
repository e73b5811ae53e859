"""Whether a run finds what it needs outside itself: a folder to write, a cache, and its database.

All of it is tried before anything is loaded, which may take minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from autoprune.core.cache import check_cache
from autoprune.core.errors import AutopruneError, StoppedError
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, STUDY, RunFolder, check_new_run
from autoprune.run.status import resume_command


def check_places(config: Config, output: Path | None) -> None:
    """Check what a new search needs.

    Args:
        output: the run folder; None is one below `runs`.

    Raises:
        AutopruneError: naming what cannot be written or opened, and what to do.
    """
    check_new_run(output if output is not None else Path("runs") / "new")
    check_cache()
    if config.search.storage is not None:
        from autoprune.strategy.study_database import check_database  # takes long: Optuna

        check_database(Path(STUDY), config.search.storage)


def check_taken_up(run: RunFolder) -> None:
    """Check what a run needs that is taken up: its study is where it was.

    Raises:
        AutopruneError: as `check_places` raises.
        StoppedError: where its database is away; it says how to go on.
    """
    from autoprune.strategy.study_database import check_database

    check_cache()
    expected = expected_study(run)
    if expected == "present" and run.storage is None and not (run.path / STUDY).exists():
        raise AutopruneError(
            f"run {run.path} keeps its trials in {STUDY}, which is not there: put it back, or begin a new "
            "search with another -o"
        )
    name = run.study_name() if expected == "present" else None
    try:
        check_database(run.path / STUDY, run.storage, study=name, is_known=True)
    except StoppedError as error:
        error.add_note(f"go on with: {resume_command(run.path)}")
        raise


def expected_study(run: RunFolder) -> Literal["absent", "present", "either"]:
    """Whether a run's study is there: not before its search, and surely once trials were summed up.

    One that is there and empty has lost its trials.
    """
    if run.is_new:
        return "absent"
    return "present" if (run.path / FRONT).is_file() else "either"
