"""What is sent: known by its contents; version control, caches, runs and unread weights stay here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.core.errors import AutopruneError
from autoprune.jobs.contents import check_relative, read_content
from autoprune.run.config import Config
from autoprune.run.folder import RunFolder

names = some.text("abc-_é", min_size=1, max_size=5)
trees = some.dictionaries(some.lists(names, min_size=1, max_size=3).map("/".join), some.binary(max_size=20),
                          min_size=1, max_size=6)  # fmt: skip


def write_tree(folder: Path, tree: dict[str, bytes]) -> dict[str, bytes]:
    """Write files; those whose path is a folder of another are left out. What was written."""
    shutil.rmtree(folder, ignore_errors=True)
    kept = {path: data for path, data in tree.items() if not any(p.startswith(f"{path}/") for p in tree)}
    for path, data in kept.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return kept


@hypothesis.settings(max_examples=60, deadline=None,
                     suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])  # fmt: skip
@hypothesis.given(first=trees, second=trees)
def test_the_key_tells_contents_and_nothing_else(
    tmp_path: Path, first: dict[str, bytes], second: dict
) -> None:
    one, two = tmp_path / "here" / "model", tmp_path / "there" / "model"
    written = write_tree(one, first), write_tree(two, second)
    contents = read_content(one), read_content(two)
    assert (contents[0].key == contents[1].key) == (written[0] == written[1])
    assert contents[0].size_bytes == sum(map(len, written[0].values()))
    assert {file.path for file in contents[0].files} == {f"model/{path}" for path in written[0]}


def test_version_control_caches_runs_and_unread_weights_stay_here(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_tree(folder, {"config.json": b"{}", "model.safetensors": b"w", "pytorch_model.bin": b"w" * 9,
                        ".git/HEAD": b"", "sub/__pycache__/a.pyc": b"", "sub/rows.csv": b"a",
                        "runs/x": b"data", "a.pyc": b""})  # fmt: skip
    RunFolder.create(folder / "tried", Config(), "autoprune search").close()
    content = read_content(folder)
    sent = sorted(file.path for file in content.files)
    assert sent == ["model/config.json", "model/model.safetensors", "model/runs/x", "model/sub/rows.csv"]
    assert len(content.left_out) == 4
    (folder / "model.safetensors").unlink()
    assert "model/pytorch_model.bin" in {
        file.path for file in read_content(folder).files
    }  # refused by name there


def test_links_are_followed_once_and_broken_ones_are_said(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    write_tree(blobs, {"0a": b"weights"})
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(blobs / "0a")
    (folder / "more").symlink_to(blobs)
    (folder / "again").symlink_to(folder)
    (folder / "gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe")
    content = read_content(folder)
    assert {file.path for file in content.files} == {"snapshot/model.safetensors", "snapshot/more/0a"}
    assert len(content.left_out) == 3


def test_what_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AutopruneError, match="is not there"):
        read_content(tmp_path / "nothing")
    with pytest.raises(AutopruneError, match="holds no file"):
        read_content(tmp_path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", ".", "a\\b"])
def test_a_path_that_leaves_its_folder_is_refused(path: str) -> None:
    with pytest.raises(AutopruneError, match="outside its folder"):
        check_relative(path, where="root/inputs/0")
