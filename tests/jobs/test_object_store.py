"""A storage root in an object store, over HTTP, by the driver of fsspec: what is sent, and a whole job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json
from autoprune.jobs.contents import read_content
from autoprune.jobs.storage_root import StorageRoot
from tests.support.object_store import KEY, ObjectStore, object_store
from tests.support.paths import ROOT
from tests.support.ray_head import ray_head
from tests.support.tiny_search import OPTIONS, autoprune, environment, write_inputs

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    with object_store(request.param) as server:
        yield server


def test_files_are_kept_as_in_a_folder(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in store.variables.items():
        monkeypatch.setenv(name, value)
    root = StorageRoot(store.root)
    sent = tmp_path / "model"
    (sent / "sub").mkdir(parents=True)
    (sent / "config.json").write_bytes(b"{}")
    (sent / "sub" / "weights").write_bytes(b"w" * 6_000_000)
    content = read_content(sent)
    assert not root.has(content)
    assert root.send(content) == content.size_bytes
    assert root.send(content) == 0
    assert read_content(root.bring(content.place, tmp_path / "node")).key == content.key
    root.write("runs/a/log", b"one\n")
    root.write("runs/b/status.json", b"{}")
    assert root.read("runs/a/log", start=4) == b""
    root.write("runs/a/log", b"one\ntwo\n")
    assert root.read("runs/a/log", start=4) == b"two\n"
    assert root.folders("runs") == ["a", "b"]
    root.remove("runs/b/status.json")
    assert root.folders("runs") == ["a"]
    with pytest.raises(AutopruneError, match=r"storage root cannot be written at .*no-such-bucket/x"):
        StorageRoot(f"{store.root.partition('://')[0]}://no-such-bucket").write("x", b"")


def test_a_job_sends_writes_goes_on_and_is_fetched(store: ObjectStore, tmp_path: Path) -> None:
    laptop = tmp_path / "laptop"
    write_inputs(laptop)
    (tmp_path / "head").mkdir()
    common = {**store.variables, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    with ray_head({**environment(tmp_path / "head"), **common}) as head:
        variables = {
            **environment(tmp_path / "cache"), **common,
            "AUTOPRUNE_STORAGE_ROOT": store.root, "AUTOPRUNE_CLUSTER": head.address,
        }  # fmt: skip

        def run(*words: object, code: int = 0) -> str:
            return autoprune(words, cwd=laptop, env=variables, code=code).stdout

        submit = ["submit", "search", "model", "--dataset", "rows.csv", *OPTIONS, "--workers", 1]
        assert run(*submit) == "model-300kB\n"
        assert "autoprune fetch model-300kB" in run("logs", "model-300kB", "-f")
        assert run(*submit, "--trials", 4) == "model-300kB\n"  # goes on with it
        run("logs", "model-300kB", "-f")
        told = json.loads(run("status", "model-300kB", "--json"))
        assert (told["state"], told["trials"]) == ("finished", 4)
    del variables["AUTOPRUNE_CLUSTER"]  # the head is gone
    assert run("fetch", "model-300kB") == "runs/model-300kB\n"
    fetched = laptop / "runs" / "model-300kB"
    assert read_json(fetched / "status.json")["trials"] == 4
    assert run("report", fetched) == f"{fetched / 'report.html'}\n"
    assert "Checked in a fresh process" in run("export", fetched, "-o", "out")
    for path in fetched.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
