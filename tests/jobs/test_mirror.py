"""A run's copy in a storage root is of one moment, follows the run, and brings back the same run."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from autoprune.core.errors import AutopruneError
from autoprune.jobs.lease import DRIVER, Lease
from autoprune.jobs.mirror import LOG, Mirror, bring_run, listed_files
from autoprune.jobs.storage_root import StorageRoot
from autoprune.run.config import Config
from autoprune.run.folder import STATUS, STUDY, RunFolder


@pytest.fixture
def root(tmp_path: Path) -> StorageRoot:
    return StorageRoot(str(tmp_path / "root"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run under way, with a study and a trial that is kept."""
    folder = RunFolder.create(tmp_path / "home" / "runs" / "made", Config(), "autoprune search")
    folder.status("running", trials=1, planned=5)
    folder.keep_artifact(3, b"weights", {"a": 1})
    with sqlite3.connect(folder.path / STUDY) as database:
        database.execute("create table trials (number integer)")
    database.close()
    folder.close()
    return folder.path


def tell(run: Path, number: int) -> None:
    with sqlite3.connect(run / STUDY) as database:
        database.execute("insert into trials values (?)", [number])
    database.close()


def numbers(study: Path) -> list[int]:
    with sqlite3.connect(study) as database:
        rows = [row[0] for row in database.execute("select number from trials order by number")]
    database.close()
    return rows


def tree(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not path.name.startswith(".")}


def test_a_copy_follows_the_run_and_brings_it_back(root: StorageRoot, run: Path, tmp_path: Path) -> None:
    log = tmp_path / "made.log"
    mirror = Mirror(root, "made", run, log)
    log.write_text("$ autoprune search\n")
    assert mirror.copy()
    assert not mirror.copy()
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    assert bring_run(root, "made", fetched) == len(listed_files(root, "made"))
    assert tree(fetched) | {LOG: b""} == tree(run) | {LOG: b"", STUDY: (fetched / STUDY).read_bytes()}
    tell(run, 7)
    (run / "trials" / "0003" / "model.safetensors").unlink()
    (run / STATUS).write_text('{"state": "finished"}')
    log.write_text("$ autoprune search\n[1/5]\n")
    assert mirror.copy()
    bring_run(root, "made", fetched)
    assert numbers(fetched / STUDY) == [7]
    assert not (fetched / "trials" / "0003" / "model.safetensors").exists()
    assert (fetched / LOG).read_text() == log.read_text()
    RunFolder.open(fetched).close()


def test_the_study_is_copied_whole_while_it_is_written(root: StorageRoot, run: Path, tmp_path: Path) -> None:
    """The copy has every trial that was told before it began."""
    done, told = threading.Event(), [0]

    def write() -> None:
        while not done.is_set():
            tell(run, told[0])
            told[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        mirror = Mirror(root, "made", run, tmp_path / "none.log")
        for attempt in range(10):
            before = told[0]
            mirror.copy()
            fetched = tmp_path / f"fetched-{attempt}"
            fetched.mkdir()
            bring_run(root, "made", fetched)
            copied = numbers(fetched / STUDY)
            assert copied == [*range(len(copied))]
            assert len(copied) >= before
    finally:
        done.set()
        writer.join()


KILLED = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("pragma cache_size = 2")
database.execute("begin")
database.execute("update trials set number = -1")
os.kill(os.getpid(), 9)
"""


def test_a_study_whose_writer_was_killed_is_copied_without_the_half_done(
    root: StorageRoot, run: Path, tmp_path: Path
) -> None:
    with sqlite3.connect(run / STUDY) as database:
        database.executemany("insert into trials values (?)", [[number] for number in range(20_000)])
    database.close()
    subprocess.run([sys.executable, "-c", KILLED, str(run / STUDY)], check=False)
    assert (run / f"{STUDY}-journal").exists()
    Mirror(root, "made", run, tmp_path / "none.log").copy()
    (tmp_path / "fetched").mkdir()
    bring_run(root, "made", tmp_path / "fetched")
    assert numbers(tmp_path / "fetched" / STUDY) == [*range(20_000)]


def test_what_sums_up_a_study_is_never_newer_than_its_copy(
    root: StorageRoot, run: Path, tmp_path: Path
) -> None:
    mirror = Mirror(root, "made", run, tmp_path / "none.log")
    mirror.copy(study_every=3600)
    tell(run, 1)
    (run / STATUS).write_text('{"state": "running", "trials": 2}')
    assert not mirror.copy(study_every=3600)
    assert mirror.copy()
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    bring_run(root, "made", fetched)
    assert numbers(fetched / STUDY) == [1]


def test_a_damaged_copy_is_refused(
    root: StorageRoot, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoprune.jobs.mirror._PAUSE_SECONDS", 0.0)
    with pytest.raises(AutopruneError, match="holds no files of a run"):
        bring_run(root, "made", tmp_path)
    Mirror(root, "made", run, tmp_path / "none.log").copy()
    root.write(f"runs/made/{STATUS}", b"{}")
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    with pytest.raises(AutopruneError, match=r"status\.json is not what its hash says"):
        bring_run(root, "made", fetched)


# ---- one driver at a time ------------------------------------------------------------------------


def test_a_second_driver_is_refused_while_the_first_counts(root: StorageRoot, tmp_path: Path) -> None:
    first = Lease(root, "runs/made")
    first.take(tmp_path / "one")
    done = threading.Event()

    def beat() -> None:
        while not done.wait(0.1):
            first.beat()
            data = root.read_json(f"runs/made/{DRIVER}")
            assert data is not None
            root.write_json(f"runs/made/{DRIVER}", data | {"beat": data["beat"] + 1})

    beater = threading.Thread(target=beat)
    beater.start()
    try:
        with pytest.raises(AutopruneError, match="is being worked on by process"):
            Lease(root, "runs/made").take(tmp_path / "two", watch_seconds=5)
    finally:
        done.set()
        beater.join()


def test_a_driver_that_is_gone_gives_way(root: StorageRoot, tmp_path: Path) -> None:
    first = Lease(root, "runs/made")
    first.take(tmp_path / "one")
    assert first.before is None
    second = Lease(root, "runs/made")
    second.take(tmp_path / "two", watch_seconds=0.6)  # counts no more
    assert second.before is not None
    assert (second.before.attempt, second.before.home) == (1, first.home)
    assert second.home != first.home
    second.end(75, "autoprune: stopped")
    third = Lease(root, "runs/made")
    third.take(tmp_path / "one", watch_seconds=3600)  # one that has ended is not waited for
    assert third.before is not None
    assert (third.before.exit_code, third.before.last) == (75, "autoprune: stopped")
    assert third.home == first.home
