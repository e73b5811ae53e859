"""One contract for all trackers, each read back with its own reader; none can end or slow a search."""

from __future__ import annotations

import io
import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.core.files import write_json
from autoprune.core.progress import Progress
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, RunFolder
from autoprune.run.links import check_links
from autoprune.space.levels import Candidate
from autoprune.space.trial import Measurement, Trial
from autoprune.tasks.metrics import ACCURACY, METRICS
from autoprune.tracking import names
from autoprune.tracking.names import TRACKERS, check_names, check_trackers, sent_variables
from autoprune.tracking.process import Feed
from autoprune.tracking.tracker import about_of, metric_name, rows_of
from autoprune.tracking.tracking import Tracking
from tests.report.test_report import synthetic
from tests.support.wandb_file import items, records

SECRET = "s3cretpassword"
NOWHERE = Candidate(())


def trial(number: int, *, fails: bool = False) -> Trial:
    m = None if fails else Measurement(1000 + number, 2.0 + number, 80.0 + number, kl=0.5)
    return Trial(number, NOWHERE, m, failure="loss is NaN" if fails else None, rung=number % 2, seconds=1.5)


TRIALS = [trial(k, fails=k == 2) for k in range(6)]


class Read:
    """What a tracker has of a run. steps: values of each metric by step, in the order of the file."""

    def __init__(self) -> None:
        self.steps: dict[str, list[tuple[int, float]]] = {}
        self.settings: dict[str, str] = {}
        self.front: str = ""
        self.files: set[str] = set()
        self.runs: set[str] = set()


def read_mlflow(run: Path) -> Read:
    from mlflow.tracking import MlflowClient

    read = Read()
    client = MlflowClient(f"sqlite:///{run.parent}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'autoprune'")
    for found in client.search_runs([experiment.experiment_id]):
        read.runs.add(found.info.run_id)
        assert found.info.run_name == run.name
        assert found.info.status == "FINISHED"
        read.settings |= found.data.params
        for name in found.data.metrics:
            history = client.get_metric_history(found.info.run_id, name)
            read.steps.setdefault(name, []).extend((m.step, m.value) for m in history)
        read.files |= {Path(file.path).name for file in client.list_artifacts(found.info.run_id)}
        table = Path(client.download_artifacts(found.info.run_id, "front.json")).read_text()
        read.front = table
    return read


def read_tensorboard(run: Path) -> Read:
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator

    read = Read()
    events = EventAccumulator(str(run / "trackers" / "tensorboard"), size_guidance={TENSORS: 0})
    events.Reload()
    read.runs = {"its folder"}
    for name in events.Tags()["scalars"]:
        read.steps[name] = [(event.step, event.value) for event in events.Scalars(name)]
    text = {
        name: events.Tensors(name)[-1].tensor_proto.string_val[0].decode()
        for name in events.Tags()["tensors"]
    }
    lines = [line.strip("| ").split(" | ") for line in text["settings"].splitlines()[2:]]
    read.settings = dict(lines)
    read.front, read.files = text["front"], {Path(line).name for line in text["files"].splitlines()}
    return read


def read_wandb(run: Path) -> Read:
    read = Read()
    for path in sorted(run.glob("trackers/wandb/offline-run-*/*.wandb")):
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                read.runs.add(record.run.run_id)
                assert (record.run.project, record.run.display_name) == ("autoprune", run.name)
                read.settings |= {name: str(x) for name, x in items(record.run.config.update).items()}
            elif kind == "history":
                row = items(record.history.item)
                for name, value in row.items():
                    if isinstance(value, int | float) and not name.startswith("_"):
                        read.steps.setdefault(name, []).append((record.history.step.num, value))
            elif kind == "summary":
                for name, value in items(record.summary.update).items():
                    if name.startswith("best/"):
                        read.steps[name] = [(0, value)]
            elif kind == "files":
                read.files |= {Path(file.path).name for file in record.files.files}
        for table in path.parent.glob("files/media/table/*.json"):
            read.front = table.read_text(encoding="utf-8")
    return read


READERS = {"mlflow": read_mlflow, "tensorboard": read_tensorboard, "wandb": read_wandb}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with a front, whose settings have an address with a password."""
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = Config.of(
        model="my-bert", budget=("20MB",), seed=7, track=("mlflow",),
        storage=f"postgresql://me:{SECRET}@host/db",
    )  # fmt: skip
    folder = RunFolder.create(tmp_path / "my run", config, "autoprune search")
    folder.close()
    write_json(folder.path / FRONT, synthetic())
    (folder.path / "report.html").write_text("<html></html>", encoding="utf-8")
    (folder.path / "front.csv").write_text("number\n", encoding="utf-8")
    return folder.path


def fed(
    name: str, run: Path, trials: list[Trial], *, state: str | None = "finished"
) -> list[Mapping[str, Any]]:
    """Tell a tracker of trials, one after another; what it says. state: None where the driver is killed."""
    rows = [{"rows": [[row.number, row.values]]} for row in rows_of(trials, ACCURACY)]
    lines = [*rows, *([] if state is None else [{"end": state}])]
    out = io.StringIO()
    taken = Feed(name, run, out).follow(io.StringIO("\n".join(map(json.dumps, lines))))
    said = [json.loads(line) for line in out.getvalue().splitlines()]
    assert taken, said
    return said


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_has_the_settings_every_trial_once_and_the_front(name: str, run: Path) -> None:
    pytest.importorskip(TRACKERS[name].package)
    assert "place" in fed(name, run, TRIALS[:3], state=None)[0]
    fed(name, run, TRIALS)  # a resume tells of all that the run has
    read = READERS[name](run)
    assert len(read.runs) == 1
    for metric in ("size_bytes", "latency_ms", "accuracy", "kl", "rung", "failed_trials"):
        told = {row.number: row.values[metric] for row in rows_of(TRIALS, ACCURACY) if metric in row.values}
        assert read.steps[metric] == [(k, pytest.approx(x, rel=1e-6)) for k, x in told.items()], metric
    assert [step for step, _ in read.steps["size_bytes"]] == [0, 1, 3, 4, 5]
    assert read.steps["failed_trials"][-1][1] == 1
    assert read.settings["model"] == "my-bert"
    assert str(read.settings["seed"]) == "7"
    assert read.settings["budget"] == "20MB"
    front = synthetic()
    best = next(row for row in front["trials"] if row["number"] == front["best"])
    assert str(best["size_bytes"]) in read.front
    assert read.steps["best/size_bytes"][-1][1] == pytest.approx(best["size_bytes"], rel=1e-6)
    assert {"report.html", "front.csv"} <= read.files
    check_links(run)
    for path in run.parent.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_mlflow_is_not_told_twice_of_what_it_has_where_the_note_was_lost(run: Path) -> None:
    pytest.importorskip("mlflow")
    fed("mlflow", run, TRIALS[:3])
    note = run / "trackers" / "mlflow.json"
    write_json(note, {**json.loads(note.read_text()), "logged": 0})  # killed before it was written
    fed("mlflow", run, TRIALS)
    assert [step for step, _ in read_mlflow(run).steps["rung"]] == list(range(6))


def test_a_run_that_mlflow_lost_begins_anew_there(run: Path) -> None:
    pytest.importorskip("mlflow")
    fed("mlflow", run, TRIALS[:3])
    with sqlite3.connect(run.parent / "mlflow.db") as database:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"DELETE FROM {table}")
    fed("mlflow", run, TRIALS)
    assert len(read_mlflow(run).steps["rung"]) == 6


def test_tensorboard_forgets_what_a_killed_process_wrote_and_did_not_note(run: Path) -> None:
    pytest.importorskip("tensorboard")
    fed("tensorboard", run, TRIALS[:4], state=None)
    write_json(run / "trackers" / "tensorboard.json", {"logged": 1})
    fed("tensorboard", run, TRIALS)
    assert [step for step, _ in read_tensorboard(run).steps["rung"]] == list(range(6))


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_refused_with_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(AutopruneError, match=rf"not installed: pip install 'autoprune\[{name}\]'"):
        check_trackers([name])


def test_a_name_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(AutopruneError, match="'comet': give mlflow, tensorboard, wandb"):
        check_names(["mlflow", "comet"])


class Lines(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_a_server_that_is_away_is_said_once_and_holds_nobody(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:9")
    said = Lines()
    begun = time.monotonic()
    followed = Tracking(run, ["mlflow"], said)
    followed.begin(ACCURACY, TRIALS[:2])
    for one in TRIALS[2:]:
        followed.tell([one])
    assert time.monotonic() - begun < 5.0
    while not said.lines and time.monotonic() - begun < 300:
        time.sleep(0.1)
    begun = time.monotonic()
    followed.end("finished")
    assert time.monotonic() - begun < 30.0
    assert len(said.lines) == 2, said.lines
    assert "mlflow fails (" in said.lines[0]
    assert said.lines[0].endswith("the search goes on")
    assert "autoprune resume" in said.lines[1]
    assert SECRET not in "".join(said.lines)


def test_a_crash_is_said_and_nothing_raises(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = Lines()
    followed = Tracking(run, ["none-such"], said)
    followed.begin(ACCURACY, TRIALS)
    followed.end("finished")
    assert len(said.lines) == 1
    assert "none-such does not have all of the run" in said.lines[0]


def test_rows_have_the_metric_in_its_own_unit_and_count_failures() -> None:
    assert metric_name(METRICS["perplexity"]) == "perplexity"
    rows = rows_of(TRIALS, METRICS["perplexity"])
    assert rows[1].values["perplexity"] == pytest.approx(100 / 81.0)
    assert rows[2].values == {"rung": 0.0, "seconds": 1.5, "failed_trials": 1.0}
    assert [row.values["failed_trials"] for row in rows] == [0, 0, 1, 1, 1, 1]


def test_settings_are_those_that_are_set_and_have_no_password(run: Path) -> None:
    about = about_of(run)
    assert about.settings["storage"] == "postgresql://me:***@host/db"
    assert "revision" not in about.settings


def test_a_job_is_sent_addresses_and_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "small")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert sent_variables(["mlflow", "wandb"]) == (
        {"MLFLOW_TRACKING_URI": "http://tracker:5000", "MLFLOW_EXPERIMENT_NAME": "small"}, ()
    )  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert "MLFLOW_TRACKING_URI" not in sent_variables(["mlflow"])[0]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@tracker")
    variables, notes = sent_variables(["mlflow"])
    assert "MLFLOW_TRACKING_URI" not in variables
    assert "set it where Ray is started" in notes[0]
    assert sent_variables([]) == ({}, ())
