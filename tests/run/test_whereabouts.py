"""Inputs of a run that was fetched from a cluster: in the run itself, each in a folder named by its hash."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.run.config import Config
from autoprune.run.folder import RunFolder
from autoprune.run.whereabouts import check_inputs, located

PLACE = "inputs/0123456789abcdef01234567/my-bert"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of a machine whose disk is not here."""
    noted = f"/nowhere/jobs/{PLACE}"
    folder = RunFolder.create(tmp_path / "runs" / "made", Config.of(model=noted), "autoprune search")
    identity = {
        "weights": "0",
        "head": None,
        "data": "0",
        "paths": {"model": noted},
        "run": "/nowhere/jobs/runs/made",
    }
    folder.note(inputs=identity)
    folder.close()
    return folder.path


def test_what_was_fetched_with_a_run_is_its_input(run: Path) -> None:
    with pytest.raises(AutopruneError, match="nothing is there") as caught:
        check_inputs(Config.of(model=f"/nowhere/jobs/{PLACE}"), run)
    assert str(run / PLACE) in str(caught.value)
    (run / PLACE).mkdir(parents=True)
    config = Config.of(model=f"/nowhere/jobs/{PLACE}")
    check_inputs(config, run)
    assert located(config, run).model.name == str(run / PLACE)
