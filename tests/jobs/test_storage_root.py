"""The storage root: what is sent comes back as it was, or is refused by name; in a folder or elsewhere."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.jobs.contents import INPUTS, Content, read_content
from autoprune.jobs.storage_root import MANIFEST, StorageRoot


@pytest.fixture(params=["folder", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> StorageRoot:
    """A root in a folder, and one that fsspec keeps as it keeps an object store's."""
    address = str(tmp_path / "root") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    return StorageRoot(address)


@pytest.fixture
def content(tmp_path: Path) -> Content:
    folder = tmp_path / "sent" / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "sub" / "weights").write_bytes(b"w" * 3_000_000)
    return read_content(folder)


def test_what_is_sent_comes_back_and_goes_once(root: StorageRoot, content: Content, tmp_path: Path) -> None:
    heard: list[int] = []
    assert not root.has(content)
    assert root.send(content, heard.append) == content.size_bytes == sum(heard)
    assert root.has(content)
    assert root.send(content, heard.append) == 0
    brought = root.bring(content.place, tmp_path / "node")
    assert brought == tmp_path / "node" / content.place
    assert read_content(brought).key == content.key
    (brought / "config.json").write_bytes(b"changed here")
    assert root.bring(content.place, tmp_path / "node") == brought  # what is there is not brought again


def test_a_file_alone_keeps_its_name(root: StorageRoot, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    content = read_content(tmp_path / "rows.csv")
    root.send(content)
    assert root.bring(content.place, tmp_path / "node").read_text() == "text,label\n"


def test_what_was_cut_off_is_not_there(root: StorageRoot, content: Content, tmp_path: Path) -> None:
    root.put(f"{INPUTS}/{content.key}/model/config.json", content.files[0].source)
    assert not root.has(content)
    with pytest.raises(AutopruneError, match="not whole"):
        root.bring(content.place, tmp_path / "node")
    assert not (tmp_path / "node" / content.place).exists()


def test_damage_is_refused_and_leaves_nothing(root: StorageRoot, content: Content, tmp_path: Path) -> None:
    root.send(content)
    place = f"{INPUTS}/{content.key}"
    root.write(f"{place}/model/config.json", b"{ }")
    with pytest.raises(AutopruneError, match=r"config\.json is damaged"):
        root.bring(content.place, tmp_path / "node")
    root.remove(f"{place}/model/config.json")
    with pytest.raises(AutopruneError, match="is missing"):
        root.bring(content.place, tmp_path / "node")
    manifest = root.read_json(f"{place}/{MANIFEST}")
    assert manifest is not None
    manifest["files"][0][0] = "../../outside"
    root.write_json(f"{place}/{MANIFEST}", manifest)
    with pytest.raises(AutopruneError, match="outside its folder"):
        root.bring(content.place, tmp_path / "node")
    assert not (tmp_path / "node" / content.place).exists()


def test_files_are_read_written_and_listed(root: StorageRoot) -> None:
    assert root.read("runs/a/status.json") is None
    assert root.read_json("runs/a/status.json") is None
    assert root.folders("runs") == []
    root.write_json("runs/a/status.json", {"state": "running"})
    root.write("runs/b/log", "länger".encode())
    assert root.read_json("runs/a/status.json") == {"state": "running"}
    assert root.read("runs/b/log", 3) == b"nger"
    assert root.read("runs/b/log", 7) == b""
    assert root.folders("runs") == ["a", "b"]
    root.remove("runs/a/status.json")
    root.remove("runs/a/status.json")
    assert root.read("runs/a/status.json") is None
    root.write("runs/b/log", json.dumps([1]).encode())
    with pytest.raises(AutopruneError, match="an object is needed"):
        root.read_json("runs/b/log")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("s3://key:secret@bucket/x", "password or token"),
        ("nothing://x", "s3://BUCKET/PATH"),
        ("ftp://127.0.0.1:9/x", "Connection refused"),
        ("gs://bucket/x", "pip install gcsfs"),
        ("s3://bucket/x", "pip install s3fs"),
    ],
)
def test_an_address_that_cannot_be_used_says_what_to_do(address: str, told: str) -> None:
    package = told.rpartition(" ")[2]
    if package in ("gcsfs", "s3fs"):
        try:
            __import__(package)
        except ImportError:
            pass
        else:
            pytest.skip(f"{package} is installed here")
    with pytest.raises(AutopruneError) as caught:
        StorageRoot(address)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(AutopruneError, match="cannot be written"):
        StorageRoot(str(tmp_path / "file")).write("inputs/x", b"")
