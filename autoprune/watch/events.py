"""What changes in a run that is watched, as events: trials that ended, and its state."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from autoprune.run.text import rough_duration
from autoprune.watch.source import Followed

STATUS_FIELDS = (
    "state", "trials", "planned", "failed", "in_flight", "seconds_left", "hypervolume", "points", "workers",
    "reason", "exit_code", "next", "unread",
)  # fmt: skip
"""What of a status is told when it changes."""

TRIAL_FIELDS = (
    "number", "name", "rung", "size_bytes", "latency_ms", "accuracy", "test_accuracy", "kl", "failure",
    "seconds", "worker", "on_front", "within_budget",
)  # fmt: skip
"""What of a trial is told."""


def events(
    run: Followed, *, every: float = 1.0, sleep: Callable[[float], object] = time.sleep
) -> Iterator[dict[str, Any]]:
    """`{"event": "status", ...}` and `{"event": "trial", ...}` as they come, until nobody works on the run.

    Trials that have ended before come first. A status is told when a field of `STATUS_FIELDS` changes, the
    seconds that are left apart.
    """
    told: set[int] = set()
    before: dict[str, Any] = {}
    while True:
        is_over = run.is_over()  # asked first: what it ended with is read after
        status = run.status()
        for trial in sorted((run.front() or {}).get("trials", ()), key=lambda row: row["number"]):
            if trial["number"] not in told:
                told.add(trial["number"])
                yield {"event": "trial", **{name: trial.get(name) for name in TRIAL_FIELDS}}
        now = {name: status[name] for name in STATUS_FIELDS if status.get(name) is not None}
        if _lasting(now) != _lasting(before):
            before = now
            yield {"event": "status", **now}
        if is_over:
            return
        sleep(every)


def _lasting(status: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name != "seconds_left"}


def short_line(status: Mapping[str, Any]) -> str:
    """A status in one short line, for a terminal that shows it in place.

    >>> short_line({"state": "running", "trials": 3, "planned": 16, "in_flight": 2, "seconds_left": 240.0,
    ...             "workers": {"training": 2, "dead": 1}, "hypervolume": 0.531})
    'running  3 of 16 trials  2 in flight  workers 2 training, 1 dead  hypervolume 0.531  4 min left'
    """
    workers = status.get("workers") or {}
    counts = [f"{workers[name]} {name}" for name in ("training", "idle", "loading", "waiting", "dead")
              if workers.get(name)]  # fmt: skip
    planned = "?" if status.get("planned") is None else status["planned"]
    parts = [str(status.get("state")), f"{status.get('trials', 0)} of {planned} trials"]
    parts += [f"{status[name]} {words}" for name, words in (("failed", "failed"), ("in_flight", "in flight"))
              if status.get(name)]  # fmt: skip
    parts += [f"workers {', '.join(counts)}"] if counts else []
    parts += [f"hypervolume {status['hypervolume']:.3f}"] if status.get("hypervolume") else []
    if status.get("seconds_left") is not None:
        parts.append(f"{rough_duration(status['seconds_left'])} left")
    return "  ".join(parts + ([f"({status['unread']})"] if status.get("unread") else []))
