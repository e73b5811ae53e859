"""Commands that begin where they cannot, or are given a folder that is no sound run: one line, and why."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json, write_json
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, RUN, STUDY, RunFolder, check_new_run
from autoprune.run.status import status_line, write_ending
from tests.support.paths import ROOT

SEARCH = ["search", "model", "--dataset", "rows.csv", "--workers", "0"]


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with five candidates and a baseline that were tried."""
    folder = RunFolder.create(tmp_path / "run", Config(), "autoprune search")
    folder.status("finished", trials=5, planned=5)
    folder.close()
    trials = [
        {"number": k, "name": "original" if k == 0 else None, "failure": "x", "rung": 0, "levels": {}}
        for k in range(6)
    ]
    write_json(folder.path / FRONT, {"version": 1, "run": {"state": "finished"}, "trials": trials})
    return folder.path


def refused(*words: object, code: int = 2) -> str:
    """The one line that a command says, which must end with `code`."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert "Errno" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("autoprune: ")]
    return line


# ---- before anything is loaded ------------------------------------------------------------------


def test_an_output_a_cache_and_a_database_are_tried_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no model and no data, which is not even looked at."""
    for more in ([], ["--dry-run"]):
        assert "/proc/ro/x cannot be made (/proc: " in refused(*SEARCH, "-o", "/proc/ro/x", *more)
        said = refused(*SEARCH, "--storage", "postgres://me@127.0.0.1:9/db", *more)
        assert "cannot be opened" in said
        assert "needs a driver" in refused(*SEARCH, "--storage", "postgresql+pg8000://host/db", *more)
    monkeypatch.setenv("AUTOPRUNE_CACHE", "/proc/ro")
    assert "set the environment variable AUTOPRUNE_CACHE to a folder that can" in refused(*SEARCH)
    assert [path.name for path in Path().iterdir()] == []


def test_an_export_that_cannot_be_written_is_refused_first(run: Path) -> None:
    assert "/proc/out cannot be made (No such file" in refused("export", run, "-o", "/proc/out")


# ---- a folder that is no sound run --------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "report"])
@pytest.mark.parametrize(
    ("changed", "words"),
    [({"config": []}, "config: "), ({"id": None}, "'study' and no 'id'"),
     ({"study": None}, "'id' and no 'study'"), ({"command": 3}, "command: text is needed")],
)  # fmt: skip
def test_a_run_json_that_is_not_sound_is_noticed(
    run: Path, command: str, changed: dict[str, Any], words: str
) -> None:
    about = {name: value for name, value in (read_json(run / RUN) | changed).items() if value is not None}
    (run / RUN).write_text(json.dumps(about))
    before = {path.name for path in run.iterdir()}
    result = CliRunner().invoke(main, [command, str(run)])
    assert result.exit_code == 2
    assert f"{run / RUN} cannot be read" in result.stderr
    assert words in result.stderr
    assert "Value error" not in result.stderr
    assert {path.name for path in run.iterdir()} == before


@pytest.mark.parametrize("words", [["status"], ["report"], ["resume"], ["export", "-o", "out"]])
@pytest.mark.parametrize("name", ["small", "small.failed", "small.failed-2"])
def test_an_exported_model_is_told_from_a_run(tmp_path: Path, words: list[str], name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "autoprune.json").write_text("{}")
    said = refused(*words, folder)
    assert f"{folder} is an exported model" in said
    assert ("which failed its checks" in said) == (".failed" in name)
    assert said.endswith(f"measure it with: autoprune bench {folder}")


def test_a_run_of_before_ids_is_sound(run: Path) -> None:
    about = {name: value for name, value in read_json(run / RUN).items() if name not in ("id", "study")}
    (run / RUN).write_text(json.dumps(about))
    assert CliRunner().invoke(main, ["status", str(run)]).exit_code == 0


def test_a_missing_export_is_told_without_a_number() -> None:
    assert "missing or damaged (No such file or directory)" in refused("bench", "nowhere")


# ---- how far it is ------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["0", "2", "4"])
def test_fewer_trials_than_there_are_is_refused(run: Path, given: str) -> None:
    said = refused("resume", run, "--trials", given)
    assert "has tried 5 candidates already. Give 5 or more in all, or +N for N more" in said
    assert read_json(run / RUN)["config"]["trials"] == Config().search.trials


def test_a_front_that_cannot_be_counted_is_told(run: Path) -> None:
    write_json(run / FRONT, {"version": 1})
    assert f"{run / FRONT} is damaged" in refused("resume", run, "--trials", "+1")


def test_a_status_never_says_five_of_two() -> None:
    now = {"state": "finished", "trials": 5, "planned": 2}
    assert status_line(Path("run"), now) == (
        "run: finished; 5 trials, 0 failed, 0 in flight; no trial within the budget yet, hypervolume 0.000"
    )


# ---- stopped before there is a run --------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_there_is_a_run_promises_nothing(tmp_path: Path, number: int, code: int) -> None:
    """The data come from a function, which waits until the signal is sent."""
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\ndef rows():\n    pathlib.Path('waits').touch()\n    time.sleep(60)\n"
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model" / "model.safetensors").touch()
    words = ["search", "model", "--dataset", "slow:rows", "--task", "text-classification", "--workers", "0"]
    code_ = "from autoprune.cli.main import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code_, *words, "-o", "run"], env=environment, cwd=tmp_path,
        stderr=subprocess.PIPE, text=True,
    ) as driver:  # fmt: skip
        deadline = time.monotonic() + 120
        while not (tmp_path / "waits").exists():
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        driver.send_signal(number)
        _, told = driver.communicate(timeout=60)
    assert driver.returncode == code, told
    assert told.splitlines()[-1] == "autoprune: stopped"
    assert not (tmp_path / "run").exists()


# ---- what of a run is missing -------------------------------------------------------------------


def test_status_says_what_of_a_run_is_missing_or_damaged(run: Path) -> None:
    done = CliRunner().invoke(main, ["status", str(run)])
    assert f"{run / STUDY}, with its trials, is not there" in done.stdout
    (run / STUDY).write_bytes(b"")
    assert "is not there" not in CliRunner().invoke(main, ["status", str(run)]).stdout
    (run / FRONT).write_text((run / FRONT).read_text()[:40])
    done = CliRunner().invoke(main, ["status", str(run)])
    assert done.exit_code == 0
    assert f"{run / FRONT} is damaged (not JSON)" in done.stdout
    told = json.loads(CliRunner().invoke(main, ["status", str(run), "--json"]).stdout)
    assert [line.partition(" is ")[0] for line in told["lost"]] == [str(run / FRONT)]


def test_a_run_whose_study_is_gone_is_not_begun_anew(run: Path) -> None:
    before = {file.name: file.read_bytes() for file in run.iterdir() if file.suffix == ".json"}
    line = refused("resume", run)
    assert f"run {run} keeps its trials in study.db, which is not there: put it back" in line
    kept = {file.name: file.read_bytes() for file in run.iterdir() if file.name in (RUN, FRONT)}
    assert kept == {name: before[name] for name in kept}


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path: Path, command: str) -> None:
    (tmp_path / "thesis").mkdir()
    assert "thesis is no run folder: it has no run.json" in refused(command, tmp_path / "thesis")
    assert "run folder 'gone' does not exist (looked in" in refused(command, "gone")


def test_a_run_that_was_refused_is_not_offered_for_resuming(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", Config(), "autoprune search")
    folder.close()
    with pytest.raises(AutopruneError, match="go on with it: autoprune resume"):
        check_new_run(tmp_path / "run")
    write_ending(tmp_path / "run", reason="the original guesses", exit_code=2)
    with pytest.raises(AutopruneError, match="refused before it had any trial"):
        check_new_run(tmp_path / "run")


def test_a_dry_run_tries_the_cluster_that_was_named() -> None:
    """Before anything is loaded: there is no model and there are no rows here."""
    said = refused("search", "model", "--dataset", "rows.csv", "--dry-run", "--address", "127.0.0.1:9")
    assert "no Ray cluster answers at '127.0.0.1:9'" in said
