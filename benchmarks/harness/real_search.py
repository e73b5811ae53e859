"""A real search, of the built-in model and reviews, as a process whose faults are caused: figures."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.run.folder import FRONT
from tests.support.fault_scenarios import states, status_of
from tests.support.paths import ROOT

PATIENCE_S = 1500.0
WORDS = ("--budget", "20MB", "--workers", "2")


@dataclass
class Search:
    """One process that searches or goes on. begun: when it was started, by `time.monotonic()`."""

    run: Path
    process: subprocess.Popen[bytes]
    begun: float

    @classmethod
    def start(cls, *words: object, run: Path) -> Search:
        command = [sys.executable, "-c", "from autoprune.cli.main import main; main()", *map(str, words)]
        variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with open(f"{run}.log", "ab") as log:
            process = subprocess.Popen(
                command, env={**os.environ, **variables}, cwd=run.parent, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        return cls(run, process, time.monotonic())

    def wait_until(self, holds: Callable[[dict[str, Any]], bool]) -> float:
        """Wait until something holds of its status; seconds since the start."""
        while time.monotonic() - self.begun < PATIENCE_S:
            with contextlib.suppress(OSError, ValueError):
                now = status_of(self.run)
                if now.get("pid") == self.process.pid and holds(now):
                    return time.monotonic() - self.begun
            assert self.process.poll() is None, said(self.run)
            time.sleep(0.1)
        raise AssertionError(f"it took too long: {said(self.run)}")

    def end(self) -> int:
        """Wait until it ends; its exit code."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"it did not end: {said(self.run)}") from None


def said(run: Path) -> str:
    """The end of what the processes wrote."""
    return Path(f"{run}.log").read_text(encoding="utf-8", errors="replace")[-2000:]


def ended_and_gone_on_with(run: Path, number: int, trials: int, seed: int) -> dict[str, Any]:
    """A search that a signal ends at a random moment of its trials, and that is gone on with to the end."""
    rng = random.Random(seed)
    first = Search.start("search", *WORDS, "--trials", trials, "-o", run, run=run)
    wanted = rng.randint(1, max(1, trials // 2))
    first.wait_until(lambda now: now["state"] == "running" and now["trials"] >= wanted)
    time.sleep(rng.uniform(0.0, 8.0))
    ended = time.monotonic()
    first.process.send_signal(number)
    code, seconds = first.end(), time.monotonic() - ended
    before = states(run)
    second = Search.start("resume", run, run=run)
    resumed = second.wait_until(lambda now: now["state"] == "running")
    figures = {"code": code, "end_s": round(seconds, 1), "resume_s": round(resumed, 1)}
    return figures | {"resumed_code": second.end()} | _kept(run, before, trials)


def worker_killed(run: Path, trials: int, seed: int) -> dict[str, Any]:
    """A search one of whose workers is killed while it trains."""
    search = Search.start("search", *WORDS, "--trials", trials, "-o", run, run=run)
    search.wait_until(lambda now: now["state"] == "running" and now["trials"] >= 1 and bool(_training(now)))
    pid = random.Random(seed).choice(_training(status_of(run)) or [0])
    assert pid, "no worker trains"
    os.kill(pid, signal.SIGKILL)
    before = states(run)
    code = search.end()
    dead = "1 died" in said(run) or " died: " in Path(f"{run}.log").read_text(encoding="utf-8")
    return {"code": code, "is_told": dead} | _kept(run, before, trials)


def _training(now: dict[str, Any]) -> list[int]:
    """Processes of the workers that have a trial."""
    each = (now.get("workers") or {}).get("each", ())
    return [int(worker["name"].rpartition(":")[2]) for worker in each if worker["state"] == "training"]


def _kept(run: Path, before: dict[str, int], trials: int) -> dict[str, Any]:
    """What of the trials before a fault is there at the end."""
    after = states(run)
    rows = json.loads((run / FRONT).read_text(encoding="utf-8"))["trials"]
    tried = sum(row["name"] is None and row["rung"] == 0 for row in rows)
    return {
        "before": before,
        "after": after,
        "lost": max(0, sum(before.values()) - sum(after.values())) + max(0, trials - tried),
        "running": after.get("RUNNING", 0) + after.get("WAITING", 0),
        "failed": after.get("FAIL", 0),
    }


def real_scenarios(folder: Path, trials: int, seed: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Each fault of the real search, by its name."""
    return {
        "real driver killed": lambda: ended_and_gone_on_with(folder / "kill", signal.SIGKILL, trials, seed),
        "real driver stopped": lambda: ended_and_gone_on_with(folder / "stop", signal.SIGTERM, trials, seed),
        "real worker killed": lambda: worker_killed(folder / "worker", trials, seed),
    }
