"""A run that is taken up again: only with the weights and data it began with, and from any folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autoprune.run.folder import RUN
from autoprune.run.run_lock import HOLDER
from tests.support.tiny_search import OPTIONS, autoprune, change_weights, environment, write_inputs

FUNCTION = """
def rows():
    words = [" ".join(f"w{(7 * k + j) % 290}" for j in range(3 + k % 5)) for k in range(200)]
    return {"text": words, "label": [("bad", "fair", "good")[k % 3] for k in range(200)]}
"""


@dataclass(frozen=True)
class Searched:
    """A finished search of inputs that were named by relative paths, from `base`."""

    base: Path
    run: Path
    environment: dict[str, str]

    def about(self) -> dict[str, Any]:
        return dict(json.loads((self.run / RUN).read_text(encoding="utf-8")))

    def files(self) -> dict[str, bytes]:
        """All of the run but who last had its lock."""
        files = [
            file for file in self.run.rglob("*") if file.is_file() and file.name not in (HOLDER, ".lock")
        ]
        return {str(file.relative_to(self.run)): file.read_bytes() for file in files}

    def refused(self, *words: object) -> str:
        """The message of a command that must end with 2 and change nothing."""
        before = self.files()
        done = autoprune(words, cwd=self.base, env=self.environment, code=2)
        assert self.files() == before
        return next(line for line in done.stderr.splitlines() if line.startswith("autoprune: "))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    base = tmp_path_factory.mktemp("resume")
    write_inputs(base)
    (base / "given.py").write_text(FUNCTION)
    (base / "my.yaml").write_bytes((Path(__file__).parents[2] / "search_spaces" / "bert.yaml").read_bytes())
    env = environment(base / "cache")
    words = ["search", "model", "--dataset", "rows.csv", "--space", "my.yaml", *OPTIONS, "-o", "run"]
    autoprune(words, cwd=base, env=env)
    return Searched(base, base / "run", env)


def test_paths_are_kept_absolute_beside_those_given(searched: Searched) -> None:
    about = searched.about()
    given = {name: about["config"][name] for name in ("model", "dataset", "space")}
    assert given == {"model": "model", "dataset": "rows.csv", "space": "my.yaml"}
    assert about["inputs"]["paths"] == {name: str(searched.base / text) for name, text in given.items()}
    assert about["inputs"]["folder"] == str(searched.base)


def test_changed_labels_are_refused_before_anything_is_done(searched: Searched) -> None:
    path = searched.base / "rows.csv"
    before = path.read_text()
    path.write_text(before.replace(",bad", ",x").replace(",good", ",bad").replace(",x", ",good"))
    try:
        for words in (
            ["resume", "run", "--trials", "+1"],
            ["export", "run", "--budget", "120kB", "-o", "out"],
        ):
            message = searched.refused(*words)
            assert f"changed: the data (rows.csv, {path}: SHA-256 " in message
            assert searched.about()["inputs"]["data"][:12] + " then" in message
            assert "weights (" not in message
            assert "Put back what it began with, or start a new run" in message
        assert not (searched.base / "out").exists()
    finally:
        path.write_text(before)


def test_changed_weights_are_refused_before_anything_is_done(searched: Searched) -> None:
    before = change_weights(searched.base / "model")
    try:
        message = searched.refused("resume", "run", "--budget", "200kB")
        assert f"changed: the weights (model, {searched.base / 'model'}: SHA-256 " in message
        assert "data (" not in message
    finally:
        (searched.base / "model" / "model.safetensors").write_bytes(before)


def test_another_importance_is_refused_before_anything_is_done(searched: Searched) -> None:
    path = searched.base / "my.yaml"
    before = path.read_text()
    path.write_text(before.replace("by: head,", "by: head, importance: [taylor, obs],"))
    try:
        message = searched.refused("resume", "run")
        assert "began with importance obs, and its space file now says attention by taylor or obs" in message
    finally:
        path.write_text(before)


def test_a_changed_tokenizer_is_refused(searched: Searched) -> None:
    path = searched.base / "model" / "tokenizer.json"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace('"w1"', '"w-1"'), encoding="utf-8")
    try:
        assert "changed: the data (" in searched.refused("resume", "run")
    finally:
        path.write_text(before, encoding="utf-8")


def test_another_folder_resumes_and_exports_the_same_inputs(searched: Searched, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()  # a trap: what the run began with is not here
    env = searched.environment
    autoprune(["resume", searched.run, "--trials", "+1"], cwd=tmp_path, env=env)
    done = autoprune(["export", searched.run, "--trial", "1", "-o", "out"], cwd=tmp_path, env=env)
    assert "20 validation rows" in done.stdout  # the data were found for the check of its accuracy
    about = json.loads((tmp_path / "out" / "autoprune.json").read_text(encoding="utf-8"))
    assert (about["base"]["name"], about["data"]["dataset"]) == ("model", "rows.csv")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert not [name for name in ("model", "rows.csv") if str(searched.base / name) in card]


def test_a_run_of_before_hashes_goes_on_and_is_held_to_what_is_read_then(searched: Searched) -> None:
    about = searched.about()
    noted = about.pop("inputs")
    (searched.run / RUN).write_text(json.dumps(about))
    done = autoprune(["resume", "run"], cwd=searched.base, env=searched.environment)
    told = [line for line in done.stderr.splitlines() if "does not say which weights and data" in line]
    assert len(told) == 1
    assert searched.about()["inputs"] == noted


def test_functions_are_imported_from_where_the_run_began(searched: Searched, tmp_path: Path) -> None:
    words = ["search", "model", "--dataset", "given:rows", *OPTIONS, "-o", "by-function"]
    autoprune(words, cwd=searched.base, env=searched.environment)
    run = searched.base / "by-function"
    assert json.loads((run / RUN).read_text(encoding="utf-8"))["inputs"]["paths"] == {
        "model": str(searched.base / "model")
    }
    autoprune(["resume", run, "--trials", "+1"], cwd=tmp_path, env=searched.environment)
