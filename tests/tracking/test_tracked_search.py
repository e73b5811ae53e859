"""A real search that is followed in all trackers at once, and gone on with in the same runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoprune.tracking.names import TRACKERS
from tests.support.tiny_search import OPTIONS, autoprune, environment, write_inputs
from tests.tracking.test_trackers import READERS

pytestmark = pytest.mark.slow


def test_a_search_and_its_resume_are_one_run_in_each_tracker(tmp_path: Path) -> None:
    for kind in TRACKERS.values():
        pytest.importorskip(kind.package)
    write_inputs(tmp_path)
    env = environment(tmp_path / "cache")
    env = {name: value for name, value in env.items() if not name.startswith(("MLFLOW_", "WANDB_"))}
    config = tmp_path / "run.yaml"
    config.write_text("track: [mlflow, wandb]\n", encoding="utf-8")
    run = tmp_path / "run"
    words = ["search", "model", "--dataset", "rows.csv", *OPTIONS]
    autoprune([*words, "--config", config, "-o", run], cwd=tmp_path, env=env)
    more = [word for name in TRACKERS for word in ("--track", name)]
    done = autoprune(["resume", run, "--trials", "+1", *more], cwd=tmp_path, env=env)
    assert done.stderr.count("Tracking") == len(TRACKERS), done.stderr
    front = json.loads((run / "front.json").read_text(encoding="utf-8"))
    sizes = {trial["number"]: trial["size_bytes"] for trial in front["trials"]}
    for name, read in READERS.items():
        found = read(run)
        assert len(found.runs) == 1, name
        assert found.steps["size_bytes"] == [(k, pytest.approx(x)) for k, x in sorted(sizes.items())], name
        best = sizes[front["best"]]
        assert found.steps["best/size_bytes"][-1][1] == pytest.approx(best), name
        assert "report.html" in found.files, name
        assert found.settings["target"] == "packed", name
