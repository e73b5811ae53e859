"""A search from Python: a model and rows in memory, a front of objects, and going on with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
import transformers

import autoprune
from autoprune.api.signals import stopped_by_sigterm
from autoprune.jobs.local_run import stop_local
from autoprune.run.status import read_status
from autoprune.watch.source import LocalSource
from tests.support.tiny_search import write_inputs

SMALL: dict[str, Any] = {
    "budget": "300kB", "target": "packed", "workers": 0, "trials": 2, "finetune_steps": 1, "max_length": 16,
    "sequence": 16, "calibration_rows": 32, "limit_rows": (64, 20, 20), "quiet": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished search, what it told on the way, and its inputs."""
    folder = tmp_path_factory.mktemp("api")
    write_inputs(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    rows, told = pandas.read_csv(folder / "rows.csv"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOPRUNE_CACHE", str(folder / "cache"))
        front = autoprune.search(
            model, processor=tokenizer, dataset=rows, output=folder / "run", on_trial=told.append, **SMALL
        )
        yield front, told, folder


def test_every_trial_is_told_as_it_is_recorded(searched: Any) -> None:
    front, told, _ = searched
    assert sorted(trial.number for trial in told) == [point.number for point in front.trials]
    for trial in told:
        assert front[trial.number].size_bytes == trial.measurement.size_bytes
        assert front[trial.number].levels == dict(trial.candidate.items)


def test_the_front_is_walked_from_the_smallest(searched: Any) -> None:
    front, _, folder = searched
    sizes = [point.size_bytes for point in front]
    assert len(sizes) == len(front) > 0
    assert sizes == sorted(sizes)
    assert all(point.on_front for point in front)
    assert front.best.size_bytes <= 300_000
    assert "best" in front.best.names
    assert front.original.baseline == "original"
    assert front.report.is_file()
    with pytest.raises(autoprune.AutopruneError, match="has no trial 99: give 0 to"):
        front[99]
    again = autoprune.open_run(folder / "run")
    assert [point.number for point in again] == [point.number for point in front]


def test_a_table_has_every_trial(searched: Any) -> None:
    front, _, _ = searched
    table = front.to_pandas()
    assert list(table.index) == [point.number for point in front.trials]
    unit, level = next(iter(front.best.levels.items()))
    assert table.loc[front.best.number, f"{unit}.storage"] == level.storage.name
    assert f"#{front.best.number} " in front._repr_html_()


def test_a_plot_names_the_points(searched: Any) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    front, _, _ = searched
    words = [text.get_text() for text in front.plot().texts]
    assert any(text.startswith(f"#{front.best.number} ") for text in words)


def test_a_point_is_loaded_and_exported(searched: Any) -> None:
    front, _, folder = searched
    done = front.best.export(folder / "shipped")
    assert done.measured.size_bytes == front.best.size_bytes
    kept, shipped = front.best.load(), autoprune.load(folder / "shipped")
    ids = {"input_ids": torch.tensor([[2, 7, 8, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    with torch.no_grad():
        torch.testing.assert_close(kept(**ids).logits, shipped(**ids).logits)


def test_what_a_callback_raises_ends_a_search_that_can_be_gone_on_with(searched: Any) -> None:
    class EnoughError(Exception):
        pass

    def enough(trial: autoprune.Trial) -> None:
        if not trial.is_baseline:
            raise EnoughError

    _, _, folder = searched
    run = folder / "stopped"
    with pytest.raises(EnoughError):
        autoprune.search(folder / "model", dataset=folder / "rows.csv", output=run, on_trial=enough, **SMALL)
    assert read_status(run)["state"] == "stopped"
    begun = len(autoprune.open_run(run).trials)
    went_on = autoprune.resume(run, quiet=True)
    assert len(went_on.trials) > begun
    assert read_status(run)["state"] == "finished"
    assert went_on.record.run.command.startswith("autoprune.search(")


def test_a_run_that_was_left_off_and_limits_that_are_replaced_are_said(
    searched: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class EnoughError(Exception):
        pass

    def enough(trial: autoprune.Trial) -> None:
        raise EnoughError

    def notes(call: Callable[..., object], *what: object, **more: object) -> list[str]:
        capsys.readouterr()
        with pytest.raises(EnoughError):
            call(*what, on_trial=enough, **more)
        ours = ("is of the same search", "replaced by")
        return [line for line in capsys.readouterr().err.splitlines() if any(word in line for word in ours)]

    _, _, folder = searched
    monkeypatch.chdir(tmp_path)
    asked = {**SMALL, "dataset": folder / "rows.csv", "quiet": False}
    assert notes(autoprune.search, folder / "model", **asked) == []
    again = (
        "runs/model-300kB is of the same search and can be gone on with: autoprune resume runs/model-300kB"
    )
    assert notes(autoprune.search, folder / "model", **asked) == [f"Note      {again}"]
    assert notes(autoprune.search, folder / "model", **{**asked, "seed": 1}) == []
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "model-300kB", "model-300kB-2", "model-300kB-3",
    ]  # fmt: skip
    replaced = notes(autoprune.resume, "runs/model-300kB", budget="350kB")
    assert replaced == ["Note      the limit 0.3 MB is replaced by 0.35 MB"]


def test_a_stop_ends_the_search_of_a_program_and_not_the_program(searched: Any) -> None:
    """By `autoprune stop`, and by the button of `watch`; the program's own handlers are as before."""
    _, _, folder = searched
    run = folder / "ended"

    def stopping(stop: Callable[[], object]) -> Callable[[autoprune.Trial], None]:
        def stop_it(trial: autoprune.Trial) -> None:
            if not trial.is_baseline:
                threading.Thread(target=stop).start()
                time.sleep(60)

        return stop_it

    before = [signal.signal(signal.SIGTERM, lambda *_: None), signal.getsignal(signal.SIGALRM)]
    own = signal.getsignal(signal.SIGTERM)
    try:
        by_command = stopping(lambda: stop_local(run, seconds=60))
        with pytest.raises(autoprune.StoppedError) as caught:
            autoprune.search(
                folder / "model", dataset=folder / "rows.csv", output=run, on_trial=by_command, **SMALL
            )
        told = f"stopped by SIGTERM; finished trials are saved; go on with: autoprune resume {run}"
        assert str(caught.value) == told
        status = read_status(run)
        assert (status["state"], status["reason"], status["exit_code"]) == ("stopped", "signal SIGTERM", 143)
        assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGALRM) is before[1]
        with pytest.raises(autoprune.StoppedError):
            autoprune.resume(run, quiet=True, on_trial=stopping(LocalSource(run).stop))
        autoprune.resume(run, quiet=True)  # that a signal came before does not count any more
        assert (read_status(run)["state"], read_status(run)["exit_code"]) == ("finished", 0)
    finally:
        signal.signal(signal.SIGTERM, before[0])


def test_a_signal_after_the_work_goes_to_the_handler_of_before() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with pytest.raises(autoprune.StoppedError, match="stopped by SIGTERM"), stopped_by_sigterm():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyError), stopped_by_sigterm():
            raise KeyError
        assert heard == []
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_search_in_another_thread_takes_no_signal() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stopped_by_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_what_is_no_callback_or_model_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(autoprune.AutopruneError, match="on_trial is a int"):
        autoprune.search(tmp_path, dataset="rows.csv", output=tmp_path / "run", on_trial=5)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
    with pytest.raises(autoprune.AutopruneError, match="what is a Linear"):
        autoprune.inspect(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


EXAMPLE = """
import autoprune

front = autoprune.search("model", dataset="rows.csv", budget="300kB", trials=2)
for point in front:
    size: int | None = point.size_bytes
front.best.export("shipped", target="onnx").folder
front.knee.load()
autoprune.search("model", budget=20, trails=3)
autoprune.resume("runs/x", trials="+50", workers="two")
reveal = front[12].accuracy + "x"
"""


STRICT = """
[mypy]
strict = True
follow_imports = silent
[mypy-torch.*,transformers.*,ray.*,optuna.*,datasets.*,openvino.*,sqlalchemy.*,PIL.*,numpy.*]
follow_imports = skip
"""
"""Of other packages it would read two thousand files, for minutes, of which the interface shows none."""


def test_the_types_are_seen_from_outside(tmp_path: Path) -> None:
    """Right calls pass mypy's strict mode in a program of its own; each wrong one is found."""
    (tmp_path / "program.py").write_text(EXAMPLE, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(STRICT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "program.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert lines == {9, 10, 11}, done.stdout
