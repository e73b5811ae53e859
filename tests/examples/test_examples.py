"""Every example runs at small size, as its docstring says, and ends with figures that hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoprune.core.files import read_json
from tests.examples.long import LONG
from tests.support.paths import ROOT
from tests.support.ray_head import ray_head
from tests.support.tiny_search import environment

pytestmark = pytest.mark.slow

SIZES = re.compile(r"^([\d.]+ [kM]B) to ([\d.]+ [kM]B), .* test ([\d.]+) to ([\d.]+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples make once, for all of them."""
    return tmp_path_factory.mktemp("cache")


def run(name: str, work: Path, cache: Path, *words: object, **variables: str) -> str:
    """What an example prints at small size."""
    env = environment(cache, PYTHONPATH=str(ROOT), npm_config_cache=str(cache / "npm"), **variables)
    line = [sys.executable, "-m", f"examples.{name}", "--small", "--work", str(work), *map(str, words)]
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bytes_and_scores(printed: str) -> tuple[float, float, float, float]:
    """Bytes and test scores before and after, from the line that each example prints."""
    found = SIZES.search(printed)
    assert found, printed
    before, after, *scores = found.groups()
    units = {"kB": 1e3, "MB": 1e6}
    sizes = [float(number) * units[unit] for number, unit in (before.split(), after.split())]
    return sizes[0], sizes[1], float(scores[0]), float(scores[1])


def test_a_task_of_ones_own(tmp_path: Path, cache: Path) -> None:
    printed = run("own_task", tmp_path, cache)
    before, after, score, smaller_score = bytes_and_scores(printed)
    assert after <= 10_000 < before
    assert score > 40
    assert smaller_score > score - 15
    (told,) = re.findall(r"The export explains ([\d.]+) %", printed)
    assert float(told) == pytest.approx(smaller_score, abs=0.11)


def test_a_cnn_within_milliseconds(tmp_path: Path, cache: Path) -> None:
    printed = run("edge_cnn", tmp_path, cache)
    _, _, score, smaller_score = bytes_and_scores(printed)
    assert score > 90
    assert smaller_score > 75
    front = read_json(tmp_path / "run" / "front.json")
    limit_ms = front["run"]["budget"]["latency_ms"]
    (original,) = [trial for trial in front["trials"] if trial["name"] == "original"]
    assert 0 < limit_ms < original["latency_ms"] * 1.5
    assert len(read_json(tmp_path / "model" / "autoprune.json")["sha256"]) > 1
    assert re.search(r"latency +measured +[\d.]+ ms \([\d. to]+\) at batch 1, 1 thread; ", printed)


@LONG
@pytest.mark.demo
def test_a_tagger(tmp_path: Path, cache: Path) -> None:
    printed = run("tagger", tmp_path, cache)
    before, after, score, smaller_score = bytes_and_scores(printed)
    assert after <= 5_000_000 < before / 10
    assert score > 34  # a macro F1 of one class alone is below a third
    assert smaller_score > score - 10
    (marked,) = re.findall(r"^out (.*)$", printed, re.MULTILINE)
    (given,) = re.findall(r"^in  (.*)$", printed, re.MULTILINE)
    assert re.sub("[,.]", "", marked) == given


@LONG
@pytest.mark.demo
def test_embeddings_of_a_search_engine(tmp_path: Path, cache: Path) -> None:
    printed = run("search_engine", tmp_path, cache)
    before, after, _, agreement = bytes_and_scores(printed)
    assert after <= 12_000_000 < before / 6
    assert agreement > 90
    shares = {
        name: float(value)
        for name, value in re.findall(r"^(original|smaller) .* for ([\d.]+) %", printed, re.M)
    }
    by_chance = 100 * 10 / 150
    assert shares["original"] > 3 * by_chance
    assert shares["smaller"] > shares["original"] - 10


@LONG
@pytest.mark.demo
def test_a_language_model_that_writes(tmp_path: Path, cache: Path) -> None:
    printed = run("writer", tmp_path, cache)
    before, after, *_ = bytes_and_scores(printed)
    assert after <= 600_000 < before / 5
    for when in ("before", "after"):
        (text,) = re.findall(rf"^{when}: (.*)$", printed, re.MULTILINE)
        assert len(text.split()) > 5


@pytest.mark.ray
def test_a_job_of_a_cluster(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "home").mkdir()
    variables = {**environment(tmp_path / "home"), "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    with ray_head(variables) as head:
        printed = run(
            "cluster", tmp_path / "work", cache, "--cluster", head.address, RAY_AUTH_MODE="disabled"
        )
    before, after, *_ = bytes_and_scores(printed)
    assert after <= 10_000 < before
    assert "ray job submit --no-wait" in printed  # of the dry run
    assert "example-cluster: finished; 2 of 2 trials" in printed
    assert (tmp_path / "work" / "model" / "model.safetensors").is_file()


NOTEBOOK = ROOT / "examples" / "first_search.ipynb"


def test_the_notebook_runs(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for name, value in environment(cache, PYTHONPATH=str(ROOT)).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    (times,) = re.findall(r"([\d.]+) times smaller", printed)
    assert float(times) > 229 / 30
    assert "False" not in printed


def test_the_notebook_is_kept_with_its_output_and_small() -> None:
    assert NOTEBOOK.stat().st_size < 60_000
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    ran = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in ran] == list(range(1, len(ran) + 1))
    outputs = [output for cell in ran for output in cell["outputs"]]
    assert not [
        output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"
    ]
    assert not re.search(r"/(work|home|root|tmp)/", json.dumps(outputs))
