"""No file that a user is given makes anything run: no pickle, no code, no YAML that builds objects.

The source is searched for what could read one; then every file of a run, a model, an export and the caches is
replaced by a pickle that would leave a trace.
"""

from __future__ import annotations

import ast
import contextlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoprune
from autoprune.core.cache import DiskCache
from autoprune.core.errors import AutopruneError
from autoprune.models.loading import load_pretrained
from autoprune.space.space_file import read_space
from autoprune.targets.packed import read_packed
from autoprune.tasks.data.source import DataSource
from autoprune.tasks.data.splits import read_splits
from tests.support.checkpoints import write_checkpoint
from tests.support.made_runs import OLD, RunDamage, check_run, old_run, write_damaged

SOURCE = Path(autoprune.__file__).parent

UNPICKLES = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "dill.load",
    "dill.loads", "joblib.load", "marshal.load", "marshal.loads", "shelve.open", "pandas.read_pickle",
}  # fmt: skip
READS_ANYTHING = {
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.load_all",
    "torch.load",
    "torch.jit.load",
}
RUNS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.spawnv"}
UNPACKS = {"tarfile.open", "zipfile.ZipFile", "shutil.unpack_archive"}
"""An archive's names may lead anywhere: none is unpacked."""

BETWEEN_PROCESSES = {"workers/carried_errors.py": {"pickle.loads"}}
"""What Ray carries from a worker to the driver of one search; no file has it."""


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in the package: file, dotted name, and the call."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield str(file.relative_to(SOURCE)), ast.unparse(node.func), node


def test_nothing_in_the_source_could_read_a_pickle_or_run_a_text() -> None:
    forbidden = UNPICKLES | READS_ANYTHING | RUNS | UNPACKS
    found = {(file, name) for file, name, _ in calls() if name in forbidden}
    assert found == {(file, name) for file, names in BETWEEN_PROCESSES.items() for name in names}


def test_every_loader_is_told_to_run_nothing() -> None:
    wrong = []
    for file, name, call in calls():
        words = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name in ("np.load", "numpy.load") and words.get("allow_pickle") != "False":
            wrong.append((file, call.lineno, "allow_pickle"))
        if name.endswith((".from_pretrained", ".from_config")) and "json" not in name:
            if name.startswith("cls.") or "Architecture" in name:  # ours: of plain data
                continue
            if words.get("trust_remote_code", "False") != "False":
                wrong.append((file, call.lineno, "trust_remote_code"))
        if (
            name.endswith("from_pretrained")
            and "auto_class" in name
            and words.get("use_safetensors") != "True"
        ):
            wrong.append((file, call.lineno, "use_safetensors"))
        if words.get("shell") == "True":
            wrong.append((file, call.lineno, "shell"))
        if words.get("trust_remote_code") == "True" or words.get("weights_only") == "False":
            wrong.append((file, call.lineno, "trust"))
    assert wrong == []


# ---- files that would run, if they were read as pickles ------------------------------------------


class Trace:
    """Leaves a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    """Where a pickle that ran would leave a trace; that it is none when the test ends."""
    path = tmp_path / "ran"
    yield path
    assert not path.exists(), "a pickle ran"


@pytest.fixture
def harmful(trace: Path) -> bytes:
    return pickle.dumps(Trace(trace))


def test_the_trace_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trace(tmp_path / "here")))
    assert (tmp_path / "here").exists()


RUN_FILES = sorted(str(file.relative_to(OLD)) for file in OLD.rglob("*") if file.is_file())


@pytest.mark.parametrize("name", RUN_FILES)
def test_no_file_of_a_run_is_unpickled(
    name: str, harmful: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    run, damage = old_run(), RunDamage({name: harmful})
    with contextlib.suppress(AutopruneError):  # where what the study has does not fit the rest any more
        check_run(run, damage, tmp_path / "run")
    write_damaged(run, damage, tmp_path / "run")
    for model in (tmp_path / "run" / "trials").iterdir():
        with contextlib.suppress(AutopruneError):
            read_packed(model)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "config.json", "tokenizer.json"])
def test_no_file_of_a_model_is_unpickled(name: str, harmful: bytes, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=2)
    if name.endswith(".bin"):
        (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "model" / name).write_bytes(harmful)
    with pytest.raises(AutopruneError):
        load_pretrained(str(tmp_path / "model"), labels=2)


@pytest.mark.parametrize(
    "suffix", ["csv", "tsv", "json", "jsonl", "parquet", "pkl", "pt", "npy", "arrow", "csv.gz"]
)
def test_no_file_of_data_is_unpickled(suffix: str, harmful: bytes, tmp_path: Path) -> None:
    (tmp_path / f"rows.{suffix}").write_bytes(harmful)
    with pytest.raises(AutopruneError):
        read_splits(DataSource(str(tmp_path / f"rows.{suffix}")))


def test_a_space_file_builds_no_objects(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(f"version: !!python/object/apply:os.mkdir ['{trace}']\n")
    with pytest.raises(AutopruneError, match=r"space\.yaml is not YAML"):
        read_space(tmp_path / "space.yaml")


def test_a_numpy_file_of_the_cache_holds_no_objects(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one way to read numpy's own files: an entry that holds a pickle is damaged, and made again."""
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    cache = DiskCache("made", 1, ".npz")
    path = cache.path(["x"])
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        np.savez(file, words=np.array([Trace(trace)], dtype=object))

    def load(path: Path) -> list[int]:
        with np.load(path, allow_pickle=False) as file:
            return [int(x) for x in file["words"]]

    def save(value: object, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, words=value)

    assert cache.get(["x"], make=lambda: np.array([7]), save=save, load=load) == [7]
