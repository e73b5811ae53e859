"""What is made once and kept: under which name, and what comes of failures, damage and company."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from autoprune.core import cache
from autoprune.core.cache import DiskCache, cache_folder, content_key
from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json, write_json
from tests.support.paths import ROOT

FILES, FOLDERS = DiskCache("files", 1, ".json"), DiskCache("folders", 1)

KINDS = pytest.mark.parametrize("kept", [FILES, FOLDERS], ids=["file", "folder"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, not yet there."""
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Makes numbers, each time the next; counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return self.count


def value_file(entry: Path) -> Path:
    return entry / "value.json" if entry.is_dir() else entry


def get(kept: DiskCache, make: Callable[[], Any], parts: Sequence[object] = ("a", 1)) -> Any:
    return kept.get(
        parts,
        make=make,
        save=lambda value, path: write_json(value_file(path), value),
        load=lambda path: read_json(value_file(path)),
    )


def entries(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


# ---- once ---------------------------------------------------------------------------------------


@KINDS
def test_a_value_is_made_once_and_read_from_then_on(kept: DiskCache) -> None:
    make = Maker()
    assert [get(kept, make) for _ in range(3)] == [1, 1, 1]
    assert make.count == 1


@KINDS
def test_a_value_that_was_just_made_is_what_is_read_later(kept: DiskCache) -> None:
    assert get(kept, lambda: (1, 2)) == get(kept, lambda: (1, 2)) == [1, 2]


def test_another_kind_version_or_part_is_another_entry(folder: Path) -> None:
    make = Maker()
    caches = [DiskCache("a", 1), DiskCache("a", 2), DiskCache("b", 1), DiskCache("a", 1, ".json")]
    parts: list[list[object]] = [[], ["x"], ["x", "y"], [["x", "y"]], ["xy"], [{"x": 1}], [None], [1.0]]
    values = [get(cache, make, told) for cache in caches for told in parts]
    assert values == list(range(1, len(caches) * len(parts) + 1))
    assert values == [get(cache, make, told) for cache in caches for told in parts]


def test_an_entry_is_named_by_its_version_and_parts_in_the_folder_of_its_kind(folder: Path) -> None:
    key = content_key(1, "a", 1)
    for kept, name in ((FILES, f"files/{key}.json"), (FOLDERS, f"folders/{key}")):
        get(kept, Maker())
        assert kept.path(("a", 1)) == folder / name
        assert name in entries(folder)


def test_a_cache_follows_the_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    assert (cache_folder(), get(FILES, make)) == (folder, 1)
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(folder / "other"))
    assert (cache_folder(), get(FILES, make)) == (folder / "other", 2)
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(folder))
    assert get(FILES, make) == 1
    monkeypatch.setenv("AUTOPRUNE_CACHE", "")
    assert cache_folder().name == "autoprune"


# ---- failures -----------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_value_that_cannot_be_made_leaves_nothing(
    folder: Path, kept: DiskCache, error: BaseException
) -> None:
    def fail() -> int:
        raise error

    with pytest.raises(type(error)):
        get(kept, fail)
    assert entries(folder) == []


@KINDS
def test_a_value_that_cannot_be_written_leaves_no_entry(folder: Path, kept: DiskCache) -> None:
    def half(value: int, path: Path) -> None:
        value_file(path).write_text("half", encoding="utf-8")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        kept.get(["a"], make=Maker(), save=half, load=read_json)
    assert [name for name in entries(folder) if "/" in name] == []
    assert get(kept, Maker(), ["a"]) == 1


def test_a_folder_that_cannot_be_made_is_an_error(folder: Path) -> None:
    folder.write_text("a file", encoding="utf-8")
    make = Maker()
    with pytest.raises(
        AutopruneError, match=f"{folder} cannot be written .*Not a directory.*AUTOPRUNE_CACHE"
    ):
        get(FILES, make)
    assert make.count == 0  # what takes long is not made in vain


@KINDS
def test_entries_are_read_where_none_can_be_written(kept: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError("read-only")

    make = Maker()
    get(kept, make)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert get(kept, make) == 1
    with pytest.raises(AutopruneError, match=r"cannot be written \(.*read-only\): set .*AUTOPRUNE_CACHE"):
        get(kept, make, ["b"])


# ---- damage -------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("damage", ["short", "empty", "gone"])
def test_a_damaged_entry_is_made_again_and_said(
    folder: Path, kept: DiskCache, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    make = Maker()
    get(kept, make)
    before = entries(folder)
    file = value_file(kept.path(("a", 1)))
    if damage == "gone":
        file.unlink()
    else:
        file.write_text("[1" if damage == "short" else "", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert [get(kept, make) for _ in range(3)] == [2, 2, 2]
    said = [record.getMessage() for record in caplog.records]
    is_said = not (damage == "gone" and kept is FILES)  # a file that is gone is none
    assert len(said) == is_said
    assert all(str(kept.path(("a", 1))) in text and "is damaged" in text for text in said)
    assert entries(folder) == before


@pytest.mark.parametrize(("kept", "other"), [(FILES, "folder"), (FOLDERS, "file")], ids=["file", "folder"])
def test_what_is_no_entry_makes_room_for_one(kept: DiskCache, other: str) -> None:
    path = kept.path(("a", 1))
    path.parent.mkdir(parents=True)
    if other == "folder":
        (path / "inside").mkdir(parents=True)
    else:
        path.write_text("?", encoding="utf-8")
    make = Maker()
    assert [get(kept, make), get(kept, make)] == [1, 1]


@KINDS
def test_a_damaged_entry_stays_until_there_is_a_new_one(kept: DiskCache) -> None:
    def fail() -> int:
        raise ValueError("no")

    get(kept, Maker())
    file = value_file(kept.path(("a", 1)))
    file.write_text("[1", encoding="utf-8")
    with pytest.raises(ValueError, match="no"):
        get(kept, fail)
    assert file.read_text(encoding="utf-8") == "[1"


@KINDS
@pytest.mark.parametrize("error", [MemoryError, ImportError])
def test_an_entry_is_not_damaged_where_something_else_is_missing(
    kept: DiskCache, error: type[Exception]
) -> None:
    def unable(path: Path) -> int:
        raise error("none left")

    make = Maker()
    get(kept, make)
    with pytest.raises(error, match="none left"):
        kept.get(("a", 1), make=make, save=lambda value, path: None, load=unable)
    assert (get(kept, make), make.count) == (1, 1)


@KINDS
def test_a_new_entry_is_not_taken_for_the_damaged_one(kept: DiskCache) -> None:
    """Another process has seen the damage, too, and was quicker."""
    get(kept, Maker())
    value_file(kept.path(("a", 1))).write_text("[1", encoding="utf-8")
    assert get(kept, lambda: "slow" if get(kept, lambda: "fast") else "") == "fast"


# ---- company ------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("has_links", [True, False], ids=["links", "no-links"])
def test_threads_that_make_an_entry_at_once_read_the_same(
    folder: Path, kept: DiskCache, has_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links on this disk")

    if not has_links:
        monkeypatch.setattr(cache.os, "link", refuse)
    barrier = threading.Barrier(8)

    def one(k: int) -> Any:
        def make() -> str:
            barrier.wait()
            return str(k) if has_links else "equal"

        return get(kept, make)

    with ThreadPoolExecutor(8) as threads:
        values = list(threads.map(one, range(8)))
    assert len(set(values)) == 1
    assert get(kept, Maker()) == values[0]
    assert len(list((folder / kept.path(["a"]).parent).iterdir())) == 1


PROCESS = """
import sys, time
from pathlib import Path
from tests.core.test_cache import FILES, FOLDERS, get

def make():
    ready, go = Path(sys.argv[2]), Path(sys.argv[3])
    ready.touch()
    while not go.exists():
        time.sleep(0.001)
    return [sys.argv[2]] * 10_000

print(get({"files": FILES, "folders": FOLDERS}[sys.argv[1]], make)[0])
"""


@KINDS
def test_processes_that_make_an_entry_at_once_read_the_same(
    folder: Path, kept: DiskCache, tmp_path: Path
) -> None:
    ready = [tmp_path / str(k) for k in range(4)]
    kind = "files" if kept is FILES else "folders"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, kind, str(path), str(tmp_path / "go")],
            stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for path in ready
    ]  # fmt: skip
    while not all(path.exists() for path in ready):
        assert all(process.poll() is None for process in processes)
    (tmp_path / "go").touch()
    printed = {process.communicate(timeout=60)[0] for process in processes}
    assert len(printed) == 1
    assert get(kept, Maker())[0] == printed.pop().strip()
    (entry,) = (folder / kind).iterdir()
    assert len(json.loads(value_file(entry).read_text(encoding="utf-8"))) == 10_000
