"""What `status.json` says of a run's driver: how it ended, and whether it is still there.

A driver that is killed writes no last word. Its lock is an flock, which the kernel frees with the
process, so that whoever reads the status can tell.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from autoprune.core.errors import AutopruneError
from autoprune.core.files import write_json_over
from autoprune.run.folder import (
    FRONT,
    RUN,
    STATUS,
    STUDY,
    check_run_folder,
    read_record,
    read_run,
    run_config,
)
from autoprune.run.run_lock import LOCK
from autoprune.run.text import quoted_path, stored_text
from autoprune.space.point_names import also, by_trial
from autoprune.workers.census import workers_line

Driver = Literal["alive", "gone", "unknown"]
_TOLD_CAUSES = 3
BUSY = ("preparing", "running")
"""States that a driver leaves before it ends."""


def resume_command(run: Path, limits: Iterable[str] = ()) -> str:
    """What goes on with a run, under other limits where there are any."""
    return " ".join([f"autoprune resume {quoted_path(str(run))}", *(f"--budget {text}" for text in limits)])


def worth_resuming(run: Path, exit_code: int) -> bool:
    """Whether a run that ended is gone on with: not one that was refused before it had any trial.

    Its inputs are fixed, so that a resume would meet the same refusal.
    """
    return exit_code != 0 and (exit_code != AutopruneError.exit_code or (run / FRONT).exists())


def write_ending(run: Path, *, reason: str, exit_code: int, limits: Iterable[str] = ()) -> None:
    """Say in `status.json` that the driver ends, why and with what; the rest of it is kept.

    reason: "" where nothing went wrong. A finished search stays one, whatever came after it. limits: other
    ones to go on under, because those of the run were not met.
    """
    now: dict[str, Any] = {}
    with contextlib.suppress(AutopruneError):
        now = read_record(run / STATUS)
    ending = {
        "state": "finished" if now.get("state") == "finished" else "stopped",
        "reason": reason,
        "exit_code": exit_code,
        "next": resume_command(run, limits) if worth_resuming(run, exit_code) else "",
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "updated": time.time(),
    }
    write_json_over(run / STATUS, ending | {name: now[name] for name in now if name not in ending})


def read_status(run: Path) -> dict[str, Any]:
    """`status.json`; while a search is under way with "driver", whether who wrote it is still there.

    Where it is not, the state is "gone". What of the run is missing or damaged is in "lost".

    Raises:
        AutopruneError: when it is missing or damaged.
    """
    check_run_folder(run)
    now = _checked(read_record(run / STATUS), run / STATUS)
    if (run / RUN).exists():
        read_run(run)  # a run that cannot be gone on with is told now
    if now.get("state") in BUSY:
        now["driver"] = driver_of(run, now)
    if lost := [*_lost(run, now)]:
        now["lost"] = lost
    if now.get("driver") == "gone":
        now |= {"state": "gone", "reason": f"{_who(now)} ended without a word", "next": resume_command(run)}
    return now


def _lost(run: Path, now: dict[str, Any]) -> Iterator[str]:
    """What of a run that has trials is missing or damaged."""
    if not now.get("trials"):
        return
    try:
        read_record(run / FRONT)
    except AutopruneError as error:
        yield str(error)
    has_own = (run / RUN).exists() and run_config(run).search.storage is None
    if has_own and not (run / STUDY).exists():
        yield f"{run / STUDY}, with its trials, is not there"


def _checked(now: dict[str, Any], path: Path) -> dict[str, Any]:
    from autoprune.core.record import checked  # takes long: pydantic
    from autoprune.run.run_record import StatusRecord

    return checked(StatusRecord, now, str(path)).as_json()


def read_front_file(run: Path) -> dict[str, Any]:
    """`front.json`, whose run has the state "gone" where nobody works on it any more."""
    check_run_folder(run)
    record = read_record(run / FRONT)
    if (run / RUN).exists():
        read_run(run)
    about = record.get("run")
    if isinstance(about, dict) and about.get("state") in BUSY:
        with contextlib.suppress(AutopruneError):  # the front without a status says what it can
            if driver_of(run, read_record(run / STATUS)) == "gone":
                about["state"] = "gone"
    return record


def driver_of(run: Path, status: dict[str, Any]) -> Driver:
    """Whether the driver of a run is alive, by its lock.

    Locks of another host may not be seen here: the folder may lie on a network file system.
    """
    held = _is_held(run / LOCK)
    if held:
        return "alive"
    return "gone" if held is False and status.get("host") == socket.gethostname() else "unknown"


def status_line(run: Path, now: dict[str, Any]) -> str:
    """A status for people; `now` is of `read_status`."""
    state, reason = str(now["state"]), now.get("reason")
    if state == "gone":
        state = "gone, resumable"
    if now.get("driver") == "unknown":
        state += f" when {_who(now)} was last heard of, {_ago(now)}"
    code = f", exit code {now['exit_code']}" if now.get("exit_code") else ""
    told = f" ({reason}{code})" if reason else ""
    after = "".join(f"; {lost}" for lost in now.get("lost", ()))
    if now["state"] in BUSY and (workers := workers_line(now.get("workers") or {})):
        after = f"; {workers}{after}"
    after += f"; go on with: {now['next']}" if now.get("next") else ""
    coded = stored_text("", now.get("file_storage", "plain")).removeprefix(", ")
    stored = f"; sizes are {coded}" if coded else ""
    trials, planned = now.get("trials", 0), "?" if now.get("planned") is None else now["planned"]
    count = f"{trials} of {planned}"
    if isinstance(planned, int) and trials > planned:  # of a version that took fewer than there were
        count = f"{trials}"
    return (
        f"{run}: {state}{told}; {count} trials, "
        f"{_failures(now)}, {now.get('in_flight', 0)} in flight; "
        f"{_points(now)}, hypervolume {now.get('hypervolume', 0):.3f}{stored}{after}"
    )


def _failures(now: dict[str, Any]) -> str:
    """How many trials failed, and the commonest causes; versions before wrote no causes.

    >>> _failures({"failed": 3, "causes": {"TimedOut": 2, "OutOfMemory": 1}})
    '3 failed (2 TimedOut, 1 OutOfMemory)'
    """
    causes = now.get("causes") or {}
    told = ", ".join(f"{count} {cause}" for cause, count in list(causes.items())[:_TOLD_CAUSES])
    return f"{now.get('failed', 0)} failed" + (f" ({told})" if told else "")


def _points(now: dict[str, Any]) -> str:
    """The points to choose from by number; versions before there were more wrote the best and the knee.

    >>> _points({"best": 4, "knee": 6})
    'best 4, knee 6'
    >>> _points({"points": {"best": 4, "accurate": 5, "small": 4, "fast": 4, "knee": 6}})
    'best 4 (also smallest and fastest), most accurate 5, knee 6'
    """
    numbers = now.get("points") or {name: now.get(name) for name in ("best", "knee")}
    if not any(number is not None for number in numbers.values()):
        return "no trial within the budget yet"
    named = by_trial(numbers).items()
    return ", ".join(
        f"{words[0]} {number}" + (f" ({also(words)})" if words[1:] else "") for number, words in named
    )


def _is_held(lock: Path) -> bool | None:
    """Whether a process has a lock; None where that cannot be told. It is taken shared, for no time."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _who(now: dict[str, Any]) -> str:
    return f"process {now.get('pid')} on {now.get('host')}"


def _ago(now: dict[str, Any]) -> str:
    """How long ago a status was written.

    >>> _ago({"updated": time.time() - 300})
    '5 min ago'
    """
    if now.get("updated") is None:
        return "at an unknown time"
    return f"{max(0.0, time.time() - float(now['updated'])) / 60:.0f} min ago"
