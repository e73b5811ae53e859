"""Inputs of a run that was fetched from a cluster: in the run itself, each in a folder named by its hash."""

from __future__ import annotations

import sys
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


def test_code_that_was_fetched_with_a_run_is_imported_where_the_user_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in a run is as strange as the run: whoever gives it away could have put it there."""
    config = Config.of(model="mymodels.net:build")
    sent = run / "inputs" / "0123456789abcdef01234567" / "code"
    (sent / "mymodels").mkdir(parents=True)
    folder = RunFolder.open(run)
    identity = {"weights": "0", "head": None, "data": "0", "folder": "/nowhere/0123456789abcdef01234567/code"}
    folder.note(inputs=identity, config=config.as_json())
    folder.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = [*sys.path]
    with pytest.raises(AutopruneError, match=f"look it over, then run this again with PYTHONPATH={sent}"):
        located(config, run)
    assert sys.path == before
    sys.path.insert(0, str(sent))  # as PYTHONPATH does
    assert located(config, run) == config
    sys.path.remove(str(sent))
    (tmp_path / "mymodels").mkdir()
    assert located(config, run) == config
