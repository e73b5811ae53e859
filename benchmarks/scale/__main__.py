"""How many workers and trials can one driver keep up with? Its real loop over simulated workers.

    python -m benchmarks.scale [--workers N] [--trials N] [--seconds S] [--alone] [--check] [-o FILE.json]

Times what the driver does for each trial (`ask`, `tell`, summing up), the report and the memory at growing
numbers of trials, and says with what power of the number of trials each part's total grows: 1 is linear.
--alone counts the process's own seconds, which a busy neighbour does not stretch, but no wait for a disk.
--check runs a small search, writes nothing and ends with 1 where a limit does not hold.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.pipeline.trials import run_trials
from autoprune.run.folder import FRONT, STATUS, STUDY
from benchmarks.scale.simulated import UNITS, SimulatedPool, open_simulated

RESULTS = Path(__file__).parents[1] / "results" / "scale.json"
PACKAGES = ("autoprune", "numpy", "optuna", "scipy", "sqlalchemy")

LIMITS = {"ask": 0.1, "tell": 0.02, "report": 10.0}
"""Seconds that are allowed: of an ask and a tell in the mean over the last tenth, and of the report."""
BUSY, MEMORY_BYTES, EXPONENT, OVERHEAD = 0.98, 2e9, 1.1, 0.02
"""Least share of time that workers have work; most memory, power of growth, and share of a 10-second trial
that the driver takes."""
CHECKED = (100, 600)
"""Workers and trials of the check."""


@dataclass
class Timed:
    """Seconds of each call of a part of the driver."""

    calls: dict[str, list[float]] = field(default_factory=dict)

    def watch(self, owner: object, method: str, name: str) -> None:
        """Time a method of an object from now on."""
        inner: Callable[..., Any] = getattr(owner, method)
        seconds = self.calls.setdefault(name, [])

        def timed(*positional: object, **named: object) -> object:
            begun = time.perf_counter()
            try:
                return inner(*positional, **named)
            finally:
                seconds.append(time.perf_counter() - begun)

        object.__setattr__(owner, method, timed)

    def summary(self) -> dict[str, dict[str, float]]:
        """Of each part: calls, milliseconds in the mean over all and over the last tenth, power of growth."""
        return {name: _summary(np.array(seconds)) for name, seconds in self.calls.items() if seconds}


def _summary(seconds: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    last = seconds[-max(1, len(seconds) // 10) :]
    return {
        "calls": len(seconds),
        "mean_ms": round(1e3 * float(seconds.mean()), 3),
        "last_tenth_ms": round(1e3 * float(last.mean()), 3),
        "p99_ms": round(1e3 * float(np.quantile(seconds, 0.99)), 3),
        "exponent": round(exponent(seconds), 3),
    }


def exponent(seconds: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """The power of the number of calls with which their total grows, over the last decade; 1 is linear."""
    total, count = np.cumsum(seconds), np.arange(1, len(seconds) + 1)
    places = np.unique(np.geomspace(max(1, len(seconds) / 10), len(seconds), 20).astype(int)) - 1
    if len(places) < 2:
        return 1.0
    return float(np.polyfit(np.log(count[places]), np.log(total[places]), 1)[0])


def measure(folder: Path, *, workers: int, trials: int, seconds: float) -> dict[str, Any]:
    """Run a search and time its driver."""
    search, pool = open_simulated(folder, workers=workers, trials=trials, seconds=seconds)
    timed, memory = Timed(), list[tuple[int, int]]()
    timed.watch(search.study, "ask", "ask")
    timed.watch(search.study, "tell", "tell")
    timed.watch(search.ledger, "sum_up", "sum up")
    timed.watch(search.ledger, "keep", "keep model")
    _watch_turns(pool, timed, memory)
    begun = time.perf_counter()
    run_trials(search)
    driver = time.perf_counter() - begun
    after = time.perf_counter()
    search.ledger.sum_up(state="finished")
    ending = time.perf_counter() - after
    files = {name: (search.run.path / name).stat().st_size for name in (FRONT, STATUS, STUDY, "report.html")}
    rows = len(search.study.trials())
    search.study.close()
    turns = np.array(timed.calls["turn"])
    return {
        "workers": workers,
        "candidates": trials,
        "trials": rows,
        "units": UNITS,
        "trial_seconds": seconds,
        "busy_share": round(pool.busy_share(), 4),
        "trials_a_second": round(len(turns) / float(turns.sum()), 1),
        "share_of_a_ten_second_trial": round(float(turns[len(turns) // 10 :].mean()) / 10.0, 5),
        "wall_seconds": round(driver, 1),
        "parts": timed.summary(),
        "end_seconds": round(ending, 2),
        "report_seconds": round(report_seconds(search.run.path), 2),
        "resume_seconds": round(resume_seconds(search), 2),
        "file_bytes": files,
        "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "memory_at": memory,
        "models_sent": pool.sent_models,
    }


def _watch_turns(pool: SimulatedPool, timed: Timed, memory: list[tuple[int, int]]) -> None:
    """Time what the driver does between two outcomes, and its memory now and then."""
    turns, inner, since = timed.calls.setdefault("turn", []), pool.next, [0.0]

    def timed_next(timeout: float | None = None) -> object:
        now = time.perf_counter()
        if since[0]:
            turns.append(now - since[0])
            if len(turns) % 2500 == 0:
                memory.append((len(turns), _resident()))
        outcome = inner(timeout)
        since[0] = time.perf_counter()
        return outcome

    object.__setattr__(pool, "next", timed_next)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def report_seconds(run: Path) -> float:
    """Seconds that `autoprune report` takes in this process."""
    from autoprune.core.collection import held_collector
    from autoprune.report import write_csv, write_report
    from autoprune.run.safe_front import safe
    from autoprune.run.status import read_front_file

    begun = time.perf_counter()
    with held_collector():
        front = safe(read_front_file(run))
        write_report(front, run / "report.html")
        write_csv(front, run / "front.csv")
    return time.perf_counter() - begun


def resume_seconds(search: Any) -> float:
    """Seconds that the study takes to be opened again."""
    from autoprune.strategy.study import Study

    begun = time.perf_counter()
    study = Study(
        search.run.path / STUDY, search.prepared.inputs.space, proposer=search.study.proposer,
        storage=search.config.search.storage, name=search.run.study_name(),
    )  # fmt: skip
    study.close()
    return time.perf_counter() - begun


def broken(result: dict[str, Any], *, growth: bool = True) -> list[str]:
    """Which of the limits do not hold."""
    parts = result["parts"]
    checks = {
        f"ask {parts['ask']['last_tenth_ms']} ms": parts["ask"]["last_tenth_ms"] <= 1e3 * LIMITS["ask"],
        f"tell {parts['tell']['last_tenth_ms']} ms": parts["tell"]["last_tenth_ms"] <= 1e3 * LIMITS["tell"],
        f"report {result['report_seconds']} s": result["report_seconds"] <= LIMITS["report"],
        f"memory {result['memory_bytes'] / 1e9:.2f} GB": result["memory_bytes"] <= MEMORY_BYTES,
        f"overhead {result['share_of_a_ten_second_trial']}":
            result["share_of_a_ten_second_trial"] <= OVERHEAD,
        f"workers busy {result['busy_share']}": result["busy_share"] >= BUSY,
    }  # fmt: skip
    if growth:
        checks |= {f"{name} grows by {p['exponent']}": p["exponent"] <= EXPONENT for name, p in parts.items()}
    return [name for name, holds in checks.items() if not holds]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=35_000, help="candidates; trained again they are more")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a trial")
    parser.add_argument("--alone", action="store_true", help="count the process's own seconds")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the run is left to be looked at")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if asked.alone:
        time.perf_counter = time.process_time
    workers, trials = CHECKED if asked.check else (asked.workers, asked.trials)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary) / "run"
        result = measure(folder, workers=workers, trials=trials, seconds=asked.seconds)
    result["seconds_are"] = "of the process" if asked.alone else "of the clock"
    result["versions"] = {name: metadata.version(name) for name in PACKAGES}
    result["machine"] = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    result["broken"] = broken(result)
    print(json.dumps(result, indent=1))
    if asked.check:
        sys.exit(1 if result["broken"] else 0)
    asked.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
