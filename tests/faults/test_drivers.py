"""A driver that is killed, stopped, doubled, or whose disk and database fail: nothing finished is lost.

`python -m benchmarks.faults` does the same in volume.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import fault_scenarios as faults
from tests.support.paths import ROOT


def test_a_driver_that_is_killed_loses_no_finished_trial(tmp_path: Path) -> None:
    ends = faults.ended_again_and_again(tmp_path / "run", 3, (signal.SIGKILL,), most_s=0.5)
    assert (ends.ends, ends.lost, ends.running, ends.wrong) == (3, 0, 0, [])
    assert ends.told > 3
    assert max(ends.resume_seconds) <= 30


def test_a_driver_that_is_stopped_saves_and_says_so(tmp_path: Path) -> None:
    stops = (signal.SIGINT, signal.SIGTERM)
    ends = faults.ended_again_and_again(tmp_path / "run", 3, stops, most_s=0.5)
    assert (ends.ends, ends.lost, ends.running, ends.wrong) == (3, 0, 0, [])
    assert max(ends.end_seconds) <= 10


DEAF = """
import os, signal, sys, time
from autoprune.cli.signals import reported
class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass
with reported():
    try:
        deaf = Deaf()
        del deaf
        time.sleep(20)
    finally:
        time.sleep(1.5)
        print("saved", flush=True)
"""


def test_a_signal_that_comes_in_a_destructor_is_heard_and_does_not_cut_the_saving_short() -> None:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", DEAF], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (143, "saved\n"), done.stderr
    assert "Exception ignored" in done.stderr  # it was not raised where it came
    assert time.monotonic() - begun < 15


def test_a_second_driver_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    figures = faults.second_driver(tmp_path / "run")
    assert (figures["code"], figures["is_named"]) == (2, True), figures


def test_a_disk_that_fills_ends_it_and_room_lets_it_go_on(tmp_path: Path) -> None:
    if os.getuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a disk of his own")
    figures = faults.disk_filled(tmp_path)
    assert (figures["code"], figures["state"], figures["resumed_code"]) == (75, "stopped", 0), figures
    assert (figures["lost"], figures["running"]) == (0, 0)
    assert "full" in figures["said"]


def test_a_database_that_is_away_ends_it_and_its_return_lets_it_go_on(tmp_path: Path) -> None:
    figures = faults.database_away(tmp_path / "run", 1, "--outage", 8)
    assert (figures["code"], figures["state"], figures["resumed_code"]) == (75, "stopped", 0), figures
    assert (figures["lost"], figures["is_secret_kept"]) == (0, True)
    assert figures["code_while_away"] == 75


def test_trials_that_fail_have_their_cause_and_others_go_on(tmp_path: Path) -> None:
    figures = faults.faulty_trials(tmp_path / "run", "--faults", "nan,,raise,")
    assert (figures["code"], figures["states"]) == (0, {"COMPLETE": 6, "FAIL": 6})
    assert len(figures["causes"]) == 2
    assert "ValueError" in figures["causes"]
