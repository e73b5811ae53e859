"""What is lost when drivers, workers, nodes, disks and databases fail, again and again?

    python -m benchmarks.faults [SCENARIO...] [--seeds 20] [--minutes 5] [--check] [-o FILE.json]
    python -m benchmarks.faults --real [SCENARIO...] [--real-trials 6]

Searches of toy trials with the real study, run folder, schedule, pool and ending
(`tests/support/toy_driver`) whose faults are really caused (`tests/support/fault_scenarios`): processes are
killed, nodes of a Ray cluster on this machine are ended and added, a small disk is filled, a PostgreSQL is
cut off, files are damaged. About 40 minutes on two cores. Disks of its own need root. `--real` causes three
of them to the demo's search (`benchmarks/harness/real_search`). The file keeps other scenarios.
`--check` exits 1 where a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.harness.claim import Claim
from benchmarks.harness.real_search import real_scenarios
from tests.support import damage_scenarios as damage
from tests.support import fault_scenarios as faults

RESULTS = Path(__file__).parent / "results" / "faults.json"
EVERY_S = 20.0

Figures = dict[str, Any]


def scenarios(folder: Path, seeds: int, seconds: float) -> dict[str, Callable[[], Figures]]:
    """Each fault, by its name."""
    stops = (signal.SIGINT, signal.SIGTERM)
    return {
        "driver killed": lambda: faults.ended_again_and_again(
            folder / "killed", seeds, (signal.SIGKILL,)
        ).as_json(),
        "driver stopped": lambda: faults.ended_again_and_again(folder / "stopped", seeds, stops).as_json(),
        "head lost": lambda: faults.cluster_lost(folder / "head", "head"),
        "driver's node lost": lambda: faults.cluster_lost(folder / "raylet", "raylet"),
        "latency node lost": lambda: faults.latency_node_lost(folder / "edge", away=20, wait=180),
        "latency node lost for good": lambda: faults.latency_node_lost(folder / "gone", away=None, wait=10),
        "database away": lambda: faults.database_away(folder / "database", 60),
        "disk full": lambda: faults.disk_filled(folder),
        "folder read-only": lambda: damage.made_read_only(folder / "read-only"),
        "study damaged": lambda: damage.studies_damaged(folder, seeds),
        "files damaged": lambda: damage.files_damaged(folder, seeds),
        "second driver": lambda: faults.second_driver(folder / "two"),
        "trials fail": lambda: faults.faulty_trials(folder / "serial", "--faults", "nan,,raise,"),
        "trials fail on workers": lambda: faults.faulty_trials(
            folder / "ray", "--workers", 2, "--faults", "nan,,raise,,exit,"
        ),
        "trials hang": lambda: faults.trials_hang(folder / "hang", "loop,,lock,,hold,", trials=seeds),
        "memory used up": lambda: faults.memory_used_up(folder / "bomb"),
        "memory leaked": lambda: faults.memory_leaked(folder / "leak", 60),
        "worker killed": lambda: faults.workers_killed(folder / "workers", seconds=seconds, every=EVERY_S),
        "node killed": lambda: faults.nodes_killed(folder / "nodes", seconds=seconds, every=EVERY_S),
    }


def claims(all_figures: dict[str, Figures]) -> list[Claim]:
    """What is said of each fault, and whether it was so."""
    out: list[Claim] = []
    for name, figures in all_figures.items():
        wrong = [
            f"{figures.get(key, 0)} {word}"
            for key, word in (("lost", "finished trials lost"), ("running", "left RUNNING"))
            if figures.get(key, 0)
        ]
        wrong += [
            text for key, test, text in _LIMITS.get(name, ()) if key in figures and not test(figures[key])
        ]
        wrong += figures.get("wrong", [])
        if figures.get("attempts_lost", 0) > figures.get("kills", 0):
            wrong.append("more attempts lost than kills")
        told = json.dumps({key: value for key, value in figures.items() if key != "said"})
        out.append(
            Claim(f"{name}: {_SAID[name]}", told + ("; " + "; ".join(wrong) if wrong else ""), not wrong)
        )
    return out


_STOPS = [("code", lambda x: x == 75, "not 75"), ("resumed_code", lambda x: x == 0, "not resumed")]
_LIMITS: dict[str, list[tuple[str, Callable[[Any], bool], str]]] = {
    "driver killed": [("most_resume_s", lambda x: x <= 30, "resumed late")],
    "driver stopped": [
        ("most_resume_s", lambda x: x <= 30, "resumed late"),
        ("most_end_s", lambda x: x <= 10, "ended late"),
    ],
    "head lost": [*_STOPS, ("seconds", lambda x: x <= 60, "ended late")],
    "driver's node lost": [*_STOPS, ("seconds", lambda x: x <= 60, "ended late")],
    "latency node lost": [
        ("code", lambda x: x == 143, "did not go on"),
        ("failed", lambda x: x == 0, "trials recorded as failed"),
    ],
    "latency node lost for good": [
        ("code", lambda x: x == 75, "not 75"),
        ("failed", lambda x: x == 0, "trials recorded as failed"),
    ],
    "database away": [*_STOPS, ("code_while_away", lambda x: x == 75, "not 75 while it was away")],
    "disk full": _STOPS,
    "folder read-only": [
        *_STOPS,
        ("refused_code", lambda x: x == 2, "a new one was not refused"),
        ("refused", lambda x: "cannot be written" in x, "the cause was not named"),
    ],
    "second driver": [("code", lambda x: x == 2, "not refused"), ("is_named", bool, "holder not named")],
    "trials fail": [("causes", lambda x: "ValueError" in x and len(x) == 2, "causes not told")],
    "trials fail on workers": [("causes", lambda x: {*x} > {"ValueError", "WorkerDied"}, "causes not told")],
    "trials hang": [
        ("code", lambda x: x == 0, "did not go on"),
        ("causes", lambda x: x == ["TimedOut"], "cause not told"),
        ("dead", lambda x: x == 0, "workers died"),
    ],
    "memory used up": [
        ("causes", lambda x: x == ["OutOfMemory"], "cause not told"),
        ("tries", lambda x: x == ["heavy", "light"], "not tried with half the memory"),
    ],
    "memory leaked": [("replaced", lambda x: x >= 1, "not replaced"), ("dead", lambda x: x == 0, "died")],
    "worker killed": [("code", lambda x: x == 143, "did not go on")],
    "node killed": [("code", lambda x: x == 143, "did not go on")],
    "real driver killed": [
        ("resumed_code", lambda x: x == 0, "not resumed"),
        ("code", lambda x: x == -9, "not killed"),
    ],
    "real driver stopped": [
        ("code", lambda x: x == 143, "not 143"),
        ("end_s", lambda x: x <= 10, "ended late"),
        ("resumed_code", lambda x: x == 0, "not resumed"),
    ],
    "real worker killed": [
        ("code", lambda x: x == 0, "did not go on"),
        ("failed", lambda x: x == 0, "a trial failed of it"),
        ("is_told", bool, "not told"),
    ],
}
_SAID = {
    "driver killed": "no finished trial is lost, none is left RUNNING, and a resume takes 30 s at most",
    "driver stopped": "SIGINT and SIGTERM end it within 10 s with 130 and 143, saved",
    "head lost": "the driver ends within 60 s with 75 and goes on elsewhere",
    "driver's node lost": "the driver ends within 60 s with 75 and goes on elsewhere",
    "latency node lost": "trials wait for it, none fails, and they go on once it is back",
    "latency node lost for good": "no trial fails of it, and the search stops with 75 after a while",
    "database away": "the driver ends with 75, so does a new one, and one goes on once it is back",
    "disk full": "the driver ends with 75 and goes on once there is room",
    "folder read-only": "the driver ends with 75, a new one is refused, one goes on once it can write",
    "study damaged": "each end names it, all told trials are in the front, and a copy is gone on with",
    "files damaged": "a library is made again; a kept model is named, and made again once it is moved away",
    "second driver": "it is refused and told who works on the run",
    "trials fail": "each fails with its cause, and the search goes on",
    "trials fail on workers": "each fails with its cause, and the search goes on",
    "trials hang": "each fails with that cause, its worker is replaced, and the search goes on",
    "memory used up": "tried once more with half the memory, then failed with that cause",
    "memory leaked": "the worker is replaced before it dies",
    "worker killed": "the search goes on, and a kill costs one attempt at most",
    "real driver killed": "no finished trial is lost, and the search is gone on with to its end",
    "real driver stopped": "SIGTERM ends it within 10 s, and the search is gone on with to its end",
    "real worker killed": "the search goes on to its end, and no trial fails of it",
    "node killed": "the search goes on, also on nodes that join, and a kill costs one attempt at most",
}


def write(path: Path, figures: dict[str, Figures]) -> None:
    """Write the figures of the scenarios that were caused beside those of others that the file has."""
    before = json.loads(path.read_text(encoding="utf-8"))["scenarios"] if path.exists() else {}
    record = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "versions": {package: metadata.version(package) for package in ("autoprune", "ray", "optuna")},
        "scenarios": before | figures,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scenario", nargs="*")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--real", action="store_true", help="searches of the built-in model instead")
    parser.add_argument("--real-trials", type=int, default=6)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("-o", type=Path, default=RESULTS)
    asked = parser.parse_args()
    figures: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="autoprune-faults-") as name:
        toys = scenarios(Path(name), asked.seeds, 60 * asked.minutes)
        causes = real_scenarios(Path(name), asked.real_trials, seed=0) if asked.real else toys
        for scenario, cause in causes.items():
            if asked.scenario and scenario not in asked.scenario:
                continue
            begun = time.monotonic()
            try:
                figures[scenario] = cause()
            except AssertionError as error:
                figures[scenario] = {"wrong": [str(error)[-500:]]}
            print(f"{time.monotonic() - begun:.0f} s", *claims({scenario: figures[scenario]}), flush=True)
            figures[scenario]["made"] = datetime.now(UTC).isoformat(timespec="seconds")
            write(asked.o, figures)
    if asked.check and not all(claim.holds for claim in claims(figures)):
        sys.exit(1)


if __name__ == "__main__":
    main()
