"""A run folder that can only be read, and damaged files: each end has a name, and nothing finished is lost.

`python -m benchmarks.faults` does the same in volume.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support import damage_scenarios as scenarios
from tests.support.damage_scenarios import SmallRun, can_mount

mounting = pytest.mark.skipif(not can_mount(), reason="this machine lets nobody have mounts of his own")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    return SmallRun(tmp_path_factory.mktemp("small"))


@mounting
def test_a_folder_that_becomes_read_only_ends_it_and_lets_it_go_on_later(tmp_path: Path) -> None:
    figures = scenarios.made_read_only(tmp_path / "run")
    assert (figures["code"], figures["state"], figures["resumed_code"]) == (75, "gone", 0), figures
    assert (figures["lost"], figures["running"]) == (0, 0)
    assert "go on with: autoprune resume" in figures["said"]
    assert figures["refused_code"] == 2
    assert "cannot be written (Read-only file system): mount its disk for writing" in figures["refused"]


@pytest.mark.parametrize("kind", ["garbage", "emptied", "removed"])
def test_a_study_that_is_damaged_is_named_and_a_copy_of_it_is_gone_on_with(tmp_path: Path, kind: str) -> None:
    figures = scenarios.study_damaged(tmp_path / "run", kind, 0)
    assert scenarios.wrong_of_study(kind, figures) == []
    assert (figures["code"], figures["after_code"]) == (2, 2), figures
    assert "restore it from a copy" in figures["said"]


@pytest.mark.slow
@mounting
def test_what_only_reads_works_on_a_run_that_can_only_be_read(small: SmallRun) -> None:
    figures = scenarios.read_only_commands(small)
    resume = figures["codes"].pop("resume")
    assert figures["codes"] == dict.fromkeys(figures["codes"], 0), figures["said"]
    assert resume == 2
    assert "Read-only file system" in figures["said"]["resume"]
    assert "this is the report that it has" in figures["said"]["report"]
    assert (small.base / "page" / "report.html").is_file()
    assert (small.base / "exported" / "autoprune.json").is_file()


@pytest.mark.slow
def test_a_library_that_is_damaged_is_made_again(small: SmallRun) -> None:
    figures = scenarios.library_damaged(small, "changed", random.Random(0))
    assert figures["code"] == 0, figures
    assert figures["files"] > 0
    assert figures["more"] >= 1


@pytest.mark.slow
def test_a_library_that_is_damaged_during_a_search_does_not_end_it(small: SmallRun) -> None:
    figures = scenarios.library_damaged_meanwhile(small, "meanwhile", random.Random(0))
    assert figures["code"] == 0, figures
    assert figures["damages"] > 0


@pytest.mark.slow
def test_a_kept_model_that_is_damaged_is_named_and_made_again(small: SmallRun) -> None:
    figures = scenarios.kept_model_damaged(small, "changed", random.Random(0))
    assert (figures["code"], figures["again_code"], figures["lost"]) == (2, 0, 0), figures
    assert "is not the file that the run wrote" in figures["said"]
    assert "and its model is made again" in figures["said"]
