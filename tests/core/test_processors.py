"""The quota of a container counts as affinity does: files as the kernels of both versions write them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from autoprune.core import processors
from autoprune.core.processors import (
    TRIES,
    cpu_quota,
    idle_processors,
    quota_line,
    throttled_periods,
    unthrottled,
    usable_processors,
)

MOST = len(os.sched_getaffinity(0))
V2 = "31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:11 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 /docker/ab /sys/fs/cgroup/memory ro master:12 - cgroup cgroup rw,memory\n"
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


def version2(limit: str, group: str = "/", **more: str) -> dict[str, str]:
    folder = "sys/fs/cgroup" + group.rstrip("/")
    return {
        "proc/self/cgroup": f"0::{group}\n",
        "proc/self/mountinfo": V2,
        f"{folder}/cpu.max": limit,
        **{f"{folder}/{name.replace('_', '.')}": text for name, text in more.items()},
    }


def version1(quota: int, **more: str) -> dict[str, str]:
    folder = "sys/fs/cgroup/cpu,cpuacct"
    return {
        "proc/self/cgroup": "12:memory:/docker/ab\n3:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n",
        "proc/self/mountinfo": V1,
        f"{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"{folder}/cpu.cfs_period_us": "100000\n",
        **{f"{folder}/{name.replace('_', '.')}": text for name, text in more.items()},
    }


@pytest.mark.parametrize("files", [version2("max 100000\n"), version1(-1), {}, {"proc/self/cgroup": "?"}])
def test_without_a_quota_affinity_counts(
    write: Callable[[dict[str, str]], Path], files: dict[str, str]
) -> None:
    root = write(files)
    assert (cpu_quota(root), usable_processors(root), quota_line(root)) == (None, MOST, "")
    assert throttled_periods(root) == 0


@pytest.mark.parametrize(
    ("files", "share"),
    [(version2("100000 100000\n"), 1.0), (version1(100_000), 1.0), (version2("150000 100000\n"), 1.5),
     (version1(50_000), 0.5), (version2("6400000 100000\n"), 64.0)],
)  # fmt: skip
def test_whole_processors_of_a_quota_count_and_at_least_one(
    write: Callable[[dict[str, str]], Path], files: dict[str, str], share: float
) -> None:
    root = write(files)
    quota = cpu_quota(root)
    assert quota is not None
    assert quota.processors == share
    assert usable_processors(root) == max(1, min(MOST, int(share)))
    line = quota_line(root)
    assert (line == "") == (share >= MOST)
    if line:
        assert line.startswith(f"{usable_processors(root)} of {MOST} processors")
        assert f"/{next(name for name in files if name.endswith(('cpu.max', 'quota_us')))}" in line
    assert ("milliseconds will be too high" in line) == (share < 1)


def test_the_least_quota_of_all_groups_above_counts(write: Callable[[dict[str, str]], Path]) -> None:
    files = version2("max 100000\n", "/a.slice/b.scope") | {
        "sys/fs/cgroup/a.slice/cpu.max": "50000 100000\n",
        "sys/fs/cgroup/other/cpu.max": "1000 100000\n",
    }
    quota = cpu_quota(write(files))
    assert quota is not None
    assert (quota.processors, "a.slice/cpu.max" in quota.said) == (0.5, True)


def test_a_group_that_is_not_below_the_mounted_one_is_taken_for_it(
    write: Callable[[dict[str, str]], Path],
) -> None:
    files = version1(200_000)
    files["proc/self/cgroup"] = "3:cpu,cpuacct:/../elsewhere\n"
    quota = cpu_quota(write(files))
    assert quota is not None
    assert quota.processors == 2.0


@pytest.mark.parametrize("text", ["", "x y\n", "100000\n", "100000 0\n", "-5 100000\n"])
def test_a_file_that_says_nothing_sensible_is_no_quota(
    write: Callable[[dict[str, str]], Path], text: str
) -> None:
    assert cpu_quota(write(version2(text))) is None


# ---- what was held back is timed again ----------------------------------------------------------


@pytest.mark.parametrize("version", [version1(100_000), version2("100000 100000\n")])
@pytest.mark.parametrize("times", [0, 1, TRIES - 1, TRIES + 3])
def test_what_was_held_back_is_taken_again_and_said_at_last(
    write: Callable[[dict[str, str]], Path],
    version: dict[str, str],
    times: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(processors, "PAUSE_SECONDS", 0.0)
    stat = next(name for name in version if "cpu." in name).rpartition("/")[0] + "/cpu.stat"
    root, taken = write(version | {stat: "nr_periods 9\nnr_throttled 4\n"}), []

    def take() -> int:
        taken.append(len(taken))
        if len(taken) <= times:  # the kernel counts while this runs
            (root / stat).write_text(f"nr_periods 9\nnr_throttled {4 + len(taken)}\n")
        return taken[-1]

    with caplog.at_level(logging.WARNING):
        assert unthrottled(take, root=root) == min(times, TRIES - 1)
    assert len(taken) == min(times + 1, TRIES)
    assert ("too high" in caplog.text) == (times >= TRIES)


@pytest.mark.parametrize(("busy", "idle"), [(0.0, MOST), (0.4, max(1, MOST - 1)), (1.0, 1)])
def test_processors_that_others_use_are_not_idle(
    write: Callable[[dict[str, str]], Path], busy: float, idle: int
) -> None:
    """The first processor has a neighbour for a share of the time; with 1.0 all have one all the time."""
    numbers = sorted(os.sched_getaffinity(0))

    def ticks(more: int) -> str:
        lines = []
        for number in numbers:
            used = round(more * (busy if number == numbers[0] or busy == 1.0 else 0.0))
            lines.append(f"cpu{number} {1000 + used} 0 0 {5000 + more - used} 0 0 0 0 0 0")
        return "\n".join(["cpu 1 2 3 4 5 6 7 8 9 10", *lines, "intr 5"]) + "\n"

    root = write({"proc/stat": ticks(0)})
    later = threading.Timer(0.1, lambda: write({"proc/stat": ticks(20)}))
    later.start()
    assert idle_processors(0.4, root=root) == idle
    later.join()


def test_without_a_word_of_the_kernel_all_processors_are_idle(tmp_path: Path) -> None:
    assert idle_processors(0.0, root=tmp_path) == MOST
