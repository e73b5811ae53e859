"""The runtime's own dynamic quantization as a baseline: searched on ONNX Runtime, read back, gone on with."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import autoprune
from autoprune.run.lines import LINES
from autoprune.targets.onnx.target import GRAPH, Onnx
from tests.support import tiny_search
from tests.support.tiny_search import OPTIONS, environment, write_inputs

NAME = "dynamic 8-bit"
ON_ONNX = [word if word != "packed" else "onnx" for word in OPTIONS]


@dataclass(frozen=True)
class Searched:
    """A finished search. said: on the terminal, both streams."""

    base: Path
    run: Path
    environment: dict[str, str]
    said: str

    def row(self) -> dict[str, Any]:
        front = json.loads((self.run / "front.json").read_text(encoding="utf-8"))
        (row,) = [row for row in front["lines"] if row["name"] == NAME]
        return dict(row)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    base = tmp_path_factory.mktemp("dynamic")
    write_inputs(base)
    env = environment(base / "cache")
    words = ["search", "model", "--dataset", "rows.csv", *ON_ONNX, "-o", "run"]
    done = tiny_search.autoprune(words, cwd=base, env=env)
    return Searched(base, base / "run", env, done.stdout + done.stderr)


def test_it_is_measured_like_every_model(searched: Searched, tmp_path: Path) -> None:
    row = searched.row()
    (original,) = (searched.base / "cache" / "originals").glob(f"*/{GRAPH}")
    Onnx().save_dynamic(original.parent, tmp_path)
    assert row["size_bytes"] == (tmp_path / GRAPH).stat().st_size < 0.5 * original.stat().st_size
    assert row["latency_ms"] > 0
    assert 0 < row["kl"] < 0.02
    assert math.isfinite(row["kl"])
    assert min(row["accuracy"], row["test_accuracy"]) >= 0
    assert "quantize_dynamic" in row["what"]
    assert row["seconds"] < 30


def test_terminal_and_report_have_it_beside_the_others(searched: Searched) -> None:
    rows = [line for line in searched.said.splitlines() if line.startswith("  ")]
    starts = [line.strip().split("  ")[0] for line in rows]
    place = starts.index(NAME)
    assert starts[place + 1 : place + 3] == ["tf-idf and logistic regression", "averaged token vectors"]
    is_over = searched.row()["size_bytes"] > 300_000
    assert rows[place].endswith("over budget") == is_over
    assert "was not measured" not in searched.said
    assert "WARNING" not in searched.said
    assert NAME in (searched.run / "report.html").read_text(encoding="utf-8")


def test_python_has_it(searched: Searched) -> None:
    front = autoprune.open_run(searched.run)
    assert front.record.lines[0].name == NAME
    assert front.record.lines[0].model_dump() == searched.row()


def test_an_export_of_it_is_refused_with_what_makes_it(searched: Searched) -> None:
    words = ["export", "run", "--trial", NAME, "-o", "out"]
    said = tiny_search.autoprune(words, cwd=searched.base, env=searched.environment, code=2).stderr
    assert NAME in said
    assert "is no trial" in said
    assert not (searched.base / "out").exists()


def test_a_resumed_run_does_not_measure_it_again(searched: Searched) -> None:
    before, row = (searched.run / LINES).read_bytes(), searched.row()
    words = ["resume", "run", "--trials", "+1"]
    done = tiny_search.autoprune(words, cwd=searched.base, env=searched.environment)
    assert (searched.run / LINES).read_bytes() == before
    assert searched.row() == row
    assert "Simple models" not in done.stderr
    assert NAME in done.stdout


def test_a_line_that_was_lost_is_measured_the_same_again(searched: Searched) -> None:
    row = searched.row()
    (searched.run / LINES).unlink()
    words = ["resume", "run", "--trials", "+1"]
    tiny_search.autoprune(words, cwd=searched.base, env=searched.environment)
    times = ("latency_ms", "seconds")
    assert {**searched.row(), **dict.fromkeys(times)} == {**row, **dict.fromkeys(times)}
