"""A run in Weights & Biases: on its server where a key is set up, else offline in the run folder."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoprune.tracking.tracker import About, Ending, Row

PROJECT = "autoprune"
"""Used unless WANDB_PROJECT is set."""

_EXIT_CODES = {"finished": 0, "stopped": 75, "failed": 1}


class WandbTracker:
    """One run of W&B; a `Tracker`. Offline, a resume goes on in a further folder of the same run's id."""

    def __init__(self, about: About, noted: Mapping[str, Any]) -> None:
        folder = Path(os.environ.get("WANDB_DIR") or about.folder)
        folder.mkdir(parents=True, exist_ok=True)
        # A link to a log in the user's cache would lead out of the run, which no run folder may have.
        os.environ["WANDB_CACHE_DIR"] = str(folder / "wandb" / "cache")
        import wandb

        id = noted.get("run") or uuid.uuid4().hex[:8]
        # What a run is called with, the machine, its packages and the code are nobody's business but the
        # user's: a command line may have an address with its password.
        settings = wandb.Settings(
            console="off", silent=True, symlink=False, disable_code=True, disable_git=True,
            disable_job_creation=True, save_code=False, x_disable_meta=True, x_disable_machine_info=True,
            x_disable_stats=True, x_save_requirements=False,
        )  # fmt: skip
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=about.name,
            id=id,
            resume="allow",
            mode=None if os.environ.get("WANDB_MODE") else "online" if _has_key(wandb) else "offline",
            dir=str(folder),
            config=dict(about.settings),
            settings=settings,
        )
        for link in (path for path in folder.rglob("*") if path.is_symlink()):
            link.unlink()  # it names where the run is now, and runs are moved
        self._run.config.update(dict(about.settings), allow_val_change=True)
        self.logged: int = max(noted.get("logged", -1), self._run.step - 1)
        offline = self._run.settings.sync_dir
        url = None if self._run.offline else self._run.url
        self.place = url or f"run {id}, offline: wandb sync {Path(offline).parent}/offline-run-*"
        self.noted: Mapping[str, Any] = {"run": id}

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._run.log({**row.values, "trial": row.number}, step=row.number)
        self.logged = max(self.logged, *(row.number for row in rows))

    def finish(self, ending: Ending) -> None:
        import wandb

        if ending.rows:
            table = wandb.Table(columns=list(ending.columns), data=[list(row) for row in ending.rows])
            self._run.log({"front": table}, step=max(self.logged, self._run.step))
        self._run.summary.update({f"best/{name}": value for name, value in ending.best.items()})
        for path in ending.files:
            copy = shutil.copy(path, self._run.dir)
            self._run.save(copy, base_path=self._run.dir, policy="now")
        self._run.finish(exit_code=_EXIT_CODES[ending.state])
        wandb.teardown()  # its own process may not have written all of the file before


def _has_key(wandb: Any) -> bool:
    """Whether W&B has a key or a token for its server; it would ask for one otherwise."""
    import requests

    settings = wandb.setup().settings
    if settings.api_key or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    return requests.utils.get_netrc_auth(settings.base_url) is not None
