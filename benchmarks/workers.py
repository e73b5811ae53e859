"""How many more trials an hour do two workers give than one? The demo's real search, in turn.

    python -m benchmarks.workers [--trials 12] [--rounds 2] [--check] [-o FILE.json]

Each search is the command of a user, with one worker and with two on the same machine, in turn. What is
timed is the span from the moment its trials begin until so many have ended, so that what both prepare alike
does not count.
Workers compute with one thread each. `--check` exits 1 where two workers are less than 1.9 times one.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import statistics
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.harness.real_search import Search

RESULTS = Path(__file__).parent / "results" / "workers.json"
WANTED = 1.9
PACKAGES = ("autoprune", "optuna", "ray", "torch")


def seconds_of_trials(run: Path, workers: int, trials: int) -> float:
    """Seconds from the first trial's beginning until `trials` of them have ended, with so many workers."""
    words = ("--budget", "20MB", "--workers", workers, "--trials", trials + 2 * workers)
    search = Search.start("search", *words, "-o", run, run=run)
    begun = search.wait_until(lambda now: now["state"] == "running")
    ended = search.wait_until(lambda now: now["trials"] >= trials)
    search.process.send_signal(signal.SIGTERM)
    search.end()
    return ended - begun


def measure(folder: Path, trials: int, rounds: int) -> dict[str, Any]:
    """Trials an hour of one worker and of two, a round each in turn."""
    seconds_of_trials(folder / "before", 1, 1)  # prepares what all others find in the cache
    hourly: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            seconds = seconds_of_trials(folder / f"{number}-{workers}", workers, trials)
            hourly[workers].append(round(3600 * trials / seconds, 1))
            print(f"round {number + 1}: {workers} workers, {trials} trials in {seconds:.1f} s", flush=True)
    ratios = [round(two / one, 3) for one, two in zip(hourly[1], hourly[2], strict=True)]
    return {"trials": trials, "trials_an_hour": hourly, "ratios": ratios, "ratio": statistics.median(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(Path(temporary), given.trials, given.rounds)
    result["versions"] = {name: metadata.version(name) for name in PACKAGES}
    result["machine"] = platform.processor() or platform.machine()
    given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"two workers give {result['ratio']:.2f} times the trials an hour of one")
    sys.exit(given.check and result["ratio"] < WANTED)


if __name__ == "__main__":
    main()
