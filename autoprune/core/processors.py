"""Processors that this process may use: its affinity, and the quota of the container it runs in.

A container with a quota sees all processors of its machine, and the kernel stops its processes for the rest
of each period in which they have used up their share (https://docs.kernel.org/admin-guide/cgroup-v2.html,
"CPU Interface Files"; https://docs.kernel.org/scheduler/sched-bwc.html for version 1).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

log = logging.getLogger(__name__)

_Taken = TypeVar("_Taken")

TRIES = 4
"""How often something is timed at most, until the quota did not hold it back."""

PAUSE_SECONDS = 0.5
"""Between two tries: the other processes of the container may have ended by then."""


@dataclass(frozen=True)
class Quota:
    """What a container may use. processors: may be a fraction. said: the file that says so, and its words."""

    processors: float
    said: str


def usable_processors(root: Path = Path("/")) -> int:
    """Processors that this process may use at once, at least one: whole ones of a quota."""
    quota = cpu_quota(root)
    most = len(os.sched_getaffinity(0))
    return most if quota is None else max(1, min(most, int(quota.processors)))


def cpu_quota(root: Path = Path("/")) -> Quota | None:
    """The least quota of this process's control groups, of either version; None where there is none.

    Args:
        root: of the file system that the kernel's files are read from.
    """
    quotas = [quota for folder in _cpu_groups(root) if (quota := _quota_of(folder, root)) is not None]
    return min(quotas, key=lambda quota: quota.processors, default=None)


def throttled_periods(root: Path = Path("/")) -> int:
    """Periods so far in which a quota held back this process's control groups."""
    return sum(_number(folder / "cpu.stat", "nr_throttled") for folder in _cpu_groups(root))


def unthrottled(take: Callable[[], _Taken], *, root: Path = Path("/")) -> _Taken:
    """What `take` times, once more where a quota held this process back meanwhile; `TRIES` times at most."""
    for _ in range(TRIES):
        before = throttled_periods(root)
        taken = take()
        if throttled_periods(root) == before:
            return taken
        time.sleep(PAUSE_SECONDS)
    log.warning(
        "the CPU quota of this container held back what was timed, %d times in a row: these milliseconds are "
        "too high. Give the container a processor more than there are workers",
        TRIES,
    )
    return taken


def idle_processors(seconds: float = 0.2, *, root: Path = Path("/")) -> int:
    """Processors that this process may use and that others leave idle, at least one.

    More threads than these wait for each other: two beside a busy neighbour took nine times as long as alone.
    It sleeps for so many seconds and sees what runs meanwhile; without the kernel's word all are idle.
    """
    allowed, before = os.sched_getaffinity(0), _idle_ticks(root)
    time.sleep(seconds)
    after = _idle_ticks(root)
    shares = [
        (after[k][0] - before[k][0]) / max(1, after[k][1] - before[k][1])
        for k in allowed
        if k in before and k in after
    ]
    most = usable_processors(root)
    return max(1, min(most, int(sum(shares) + 0.25))) if shares else most


def quota_line(root: Path = Path("/")) -> str:
    """What a plan says of a quota that counts; "" where there is none, or affinity allows less."""
    quota, most = cpu_quota(root), len(os.sched_getaffinity(0))
    if quota is None or quota.processors >= most:
        return ""
    line = f"{usable_processors(root)} of {most} processors, as this container's quota is ({quota.said})"
    if quota.processors < 1:
        line += "; less than one: milliseconds will be too high, as the kernel stops what is timed"
    return line


def _cpu_groups(root: Path) -> Iterator[Path]:
    """Folders of this process's control groups that may limit processors, with all above them."""
    mounts = list(_mounts(root))
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        is_unified = number == "0" and not controllers
        if not is_unified and "cpu" not in controllers.split(","):
            continue
        for kind, options, top, place in mounts:
            if (kind == "cgroup2") if is_unified else (kind == "cgroup" and "cpu" in options):
                folder = root / place.lstrip("/")
                inside = _inside(group, top)
                yield folder
                for k in range(len(inside)):
                    yield folder.joinpath(*inside[: k + 1])
                break


def _inside(group: str, top: str) -> tuple[str, ...]:
    """The parts of a group's path below the one that is mounted; none where it lies elsewhere."""
    path = PurePosixPath(group)
    if not path.is_relative_to(top):
        return ()
    parts = path.relative_to(top).parts
    return () if ".." in parts else tuple(part for part in parts if part != "/")


def _mounts(root: Path) -> Iterator[tuple[str, list[str], str, str]]:
    """Type, options, mounted folder and place of every control group that is mounted."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, about = before.split(), after.split()
        if len(fields) > 4 and about and about[0].startswith("cgroup"):
            yield about[0], about[-1].split(","), fields[3], fields[4]


def _quota_of(folder: Path, root: Path) -> Quota | None:
    """The quota of one control group."""
    for limit, period in (("cpu.max", ""), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        words = " ".join([*_lines(folder / limit), *(_lines(folder / period) if period else ())]).split()
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[1]) > 0:
            place = f"/{(folder / limit).relative_to(root)}"
            return Quota(int(words[0]) / int(words[1]), f"{place}: {words[0]} of {words[1]} microseconds")
    return None


def _idle_ticks(root: Path) -> dict[int, tuple[int, int]]:
    """Ticks of each processor since the start: idle ones, and all."""
    ticks: dict[int, tuple[int, int]] = {}
    for line in _lines(root / "proc/stat"):
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and len(fields) >= 8:
            numbers = [int(field) for field in fields[:8]]  # guests are among the users already
            ticks[int(name[3:])] = numbers[3] + numbers[4], sum(numbers)
    return ticks


def _number(path: Path, name: str) -> int:
    """A number of a file of names and numbers; 0 where it is not there."""
    pairs = (line.split() for line in _lines(path))
    return next((int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] == name), 0)


def _lines(path: Path) -> list[str]:
    """A file's lines; none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
