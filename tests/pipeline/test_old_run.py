"""A run and an export that an older version wrote: still read, reported, gone on with and exported.

`support/old_run` is of version d20ac89: `search model --dataset rows.csv` with the options of `tiny_search`,
and `export run --trial 2`. The model and the rows are those of `tiny_search`; of the export, the files that
the run has too are left out.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from autoprune.export.artifact import read_about
from autoprune.run.folder import FRONT, RUN
from tests.support.tiny_search import autoprune, environment, write_inputs

OLD = Path(__file__).parents[1] / "support" / "old_run"
TRIAL = 2

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model`, `rows.csv` and the old `run`, before anything is done with it."""
    folder = tmp_path_factory.mktemp("old")
    write_inputs(folder)
    shutil.copytree(OLD / "run", folder / "run")
    return folder


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base / "run", tmp_path / "run"))


def done(base: Path, *arguments: object, code: int = 0) -> str:
    """What a command prints; its inputs are found from `base`."""
    return autoprune(arguments, cwd=base, env=environment(base / "cache"), code=code).stdout


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_its_status_is_read(base: Path, run: Path) -> None:
    said = done(base, "status", run)
    assert (
        said == f"{run}: finished; 2 of 2 trials, 0 failed, 0 in flight; best 4, knee 6, hypervolume 0.000\n"
    )


def test_it_is_reported(base: Path, run: Path) -> None:
    before = read(run / FRONT)
    assert done(base, "report", run) == f"{run / 'report.html'}\n"
    assert "uniform 4-bit" in (run / "report.html").read_text(encoding="utf-8")
    assert len((run / "front.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(before["trials"])
    assert read(run / FRONT) == before


def test_it_is_inspected(base: Path, run: Path) -> None:
    found = json.loads(done(base, "inspect", run, "--json"))
    assert (found["model"], found["target"], found["space"]) == ("model", "packed", "bert.yaml")
    assert [unit["kind"] for unit in found["units"]][-1] == "pooler"
    assert found["library"]["key"] == read(run / RUN)["library_key"]


def test_it_is_gone_on_with(base: Path, run: Path) -> None:
    before, old_front = read(run / RUN), read(run / FRONT)
    assert not {"id", "study", "inputs"} & before.keys()
    done(base, "resume", run, "--trials", "+1", "-q")
    after, front = read(run / RUN), read(run / FRONT)
    tried = [trial for trial in front["trials"] if trial["name"] is None and trial["rung"] == 0]
    assert len(tried) == 3
    kept = front["trials"][: len(old_front["trials"])]
    same = ("number", "name", "levels", "size_bytes", "accuracy", "kl", "rung", "test_accuracy", "seconds")
    for name in same:
        assert [trial[name] for trial in kept] == [trial[name] for trial in old_front["trials"]], name
    assert after["original_ms"] == before["original_ms"]
    assert after["config"] == before["config"] | {"trials": 3}
    assert after["facts"].keys() >= before["facts"].keys()
    assert set(after["inputs"]) == {"weights", "head", "data", "paths", "folder", "run", "commits"}
    assert front["run"]["state"] == "finished"
    assert (front["points"]["best"], front["points"]["knee"]) == (front["best"], front["knee"])
    assert front["points"]["accurate"] in front["as_accurate"]
    with contextlib.closing(sqlite3.connect(run / "study.db")) as database:
        kept = database.execute("SELECT value_json FROM trial_user_attributes WHERE key = 'row_scores'")
        rows = [json.loads(text) for (text,) in kept]
    assert len(rows) >= 1
    assert all(text.startswith("bits ") for text in rows if text)
    assert any(rows)  # of the new trials
    assert "lines" not in old_front
    assert [line["name"] for line in front["lines"]] == [
        "tf-idf and logistic regression",
        "averaged token vectors",
    ]


def test_a_point_that_it_does_not_name_is_refused(base: Path, run: Path, tmp_path: Path) -> None:
    asked = ["export", run, "--trial", "small", "-o", tmp_path / "out"]
    said = autoprune(asked, cwd=base, env=environment(base / "cache"), code=2).stderr
    assert "an earlier version made this run and named best and knee alone" in said


def test_a_trial_of_it_is_exported(base: Path, run: Path, tmp_path: Path) -> None:
    done(base, "export", run, "--trial", TRIAL, "-q", "-o", tmp_path / "out")
    now, before = read_about(tmp_path / "out").as_json(), read(OLD / "export" / "autoprune.json")
    assert before.keys() <= now.keys()
    predicted = {"unit_bytes", "predicted_size_bytes"}  # with the header of each unit, not one for all
    other = {"sha256", "validated", "export", "data", "library_key"} | predicted
    for name in before.keys() - other:
        assert now[name] == before[name], name
    assert now["data"] | {"on_disk": True} == before["data"] | {"on_disk": True}
    assert now["sha256"]["model.safetensors"] == before["sha256"]["model.safetensors"]
    assert now["validated"]["passed"] is True
    assert now["unit_bytes"].keys() == before["unit_bytes"].keys()
    size = now["validated"]["size_bytes"]
    assert abs(now["predicted_size_bytes"] - size) < abs(before["predicted_size_bytes"] - size)


def test_an_export_of_before_is_measured_again(base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(OLD / "export", tmp_path / "export"))
    for source in ("trials/0002", "tokenizer"):
        shutil.copytree(OLD / "run" / source, folder, dirs_exist_ok=True)
    found = json.loads(done(base, "bench", folder, "--json"))
    assert found["passed"] is True
    assert {check["name"]: check["passed"] for check in found["checks"]} == {
        "files": True, "bytes": True, "accuracy": True,
    }  # fmt: skip
    assert found["recorded"]["size_bytes"] == found["size_bytes"]
    assert found["recorded"]["latency"] == read(folder / "autoprune.json")["validated"]["latency"]
