"""The command line as a user calls it, in a process of its own, and what its run folder then says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json
from autoprune.tasks.metrics import Metric

ROOT = Path(__file__).parents[2]
PEAK = "AUTOPRUNE_BENCH_PEAK"
PROGRAM = f"""
import atexit, os, pathlib, resource
def note():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pathlib.Path(os.environ["{PEAK}"]).write_text(str(peak))
atexit.register(note)
from autoprune.cli.main import main
main()
"""
"""`autoprune`, which on leaving notes the most memory that its process has held."""


@dataclass(frozen=True)
class Run:
    """A finished run. peak_bytes: the most memory of the command's own process, not of its workers."""

    name: str
    path: Path
    record: dict[str, Any]
    peak_bytes: int

    @property
    def trials(self) -> list[dict[str, Any]]:
        trials: list[dict[str, Any]] = self.record["trials"]
        return trials

    @property
    def command(self) -> str:
        return str(self.record["run"]["command"])

    @property
    def baselines(self) -> dict[str, dict[str, Any]]:
        """By name: the original and uniform models, whether within the limit or not."""
        return {trial["name"]: trial for trial in self.trials if trial["name"] is not None}

    def baseline(self, name: str) -> dict[str, Any]:
        return self.baselines[name]

    @property
    def best(self) -> dict[str, Any]:
        """The trial to ship.

        Raises:
            AutopruneError: when none is within the limit.
        """
        number = self.record["best"]
        if number is None:
            raise AutopruneError(f"run {self.path} found nothing within its limit: {self.command}")
        return next(trial for trial in self.trials if trial["number"] == number)

    @property
    def limit_ms(self) -> float | None:
        limit = self.record["run"]["budget"]["latency_ms"]
        return None if limit is None else float(limit)

    @property
    def metric(self) -> Metric:
        return Metric.from_json(self.record["run"].get("metric"))

    def value(self, trial: dict[str, Any]) -> float:
        """The metric in its own numbers, on test where it was taken."""
        score = trial["accuracy"] if trial["test_accuracy"] is None else trial["test_accuracy"]
        return self.metric.shown(float(score))

    def figures(self) -> dict[str, Any]:
        """What is kept of it as a benchmark's result: the baselines, and the best with its levels."""
        keep = ("name", "size_bytes", "latency_ms", "accuracy", "test_accuracy", "kl")
        models = [{key: trial[key] for key in keep} for trial in (*self.baselines.values(), self.best)]
        models[-1]["levels"] = {
            unit: [level["ratio"], level["bits"]] for unit, level in self.best["levels"].items()
        }
        return {
            "run": self.name,
            "command": re.sub(r"/\S*/", "", self.command),  # whose folders they were is nobody's business
            "metric": self.metric.name,
            "seconds": self.record["run"].get("seconds"),
            "peak_bytes": self.peak_bytes,
            "trials": len(self.trials),
            "models": models,
        }


def shown(run: Run, trial: dict[str, Any]) -> str:
    """A trial's metric for people."""
    return " ".join(filter(None, (run.metric.name, f"{run.value(trial):.2f}", run.metric.unit)))


@dataclass(frozen=True)
class Bench:
    """Where runs and the zoo lie, and what all searches are told."""

    work: Path
    zoo: Path | None = None
    trials: int | None = None
    workers: int | None = None

    def search(self, name: str, *words: str, trials: int) -> Run:
        """`autoprune search WORDS`; a run that is there is gone on with, one that is done is read.

        Raises:
            AutopruneError: when the command fails, with the end of what it said.
        """
        path = self.work / name
        if not self._is_done(path):
            count = trials if trials == 1 else self.trials or trials
            workers = [] if self.workers is None else ["--workers", str(self.workers)]
            asked = ["search", *words, "--trials", str(count), "-o", str(path)]
            begun = (path / "front.json").is_file()
            self._call(
                name, ["resume", str(path)] if begun else asked, workers if "--workers" not in words else []
            )
        return Run(name, path, read_json(path / "front.json"), int(self._peak(name).read_text("utf-8")))

    def resumed(self, run: Run, limit_ms: float, *, more: int) -> Run:
        """`autoprune resume` with more trials under a limit of milliseconds; a run that has one is done."""
        if run.limit_ms is None:
            words = ["resume", str(run.path), "--budget", f"{limit_ms}ms", "--trials", f"+{more}"]
            self._call(run.name, words, [] if self.workers is None else ["--workers", str(self.workers)])
        return Run(run.name, run.path, read_json(run.path / "front.json"), run.peak_bytes)

    def export(self, run: Run, target: str, *words: str, name: str = "") -> Path:
        """`autoprune export`: the best model's folder, for a runtime alone. name: of the folder's end."""
        folder = self.work / f"{run.name}-{name or target}"
        if not folder.is_dir():
            self._call(
                folder.name, ["export", str(run.path), "--target", target, *words, "-o", str(folder)], []
            )
        return folder

    def _is_done(self, path: Path) -> bool:
        status = path / "status.json"
        return (
            status.is_file() and read_json(status)["state"] == "finished" and self._peak(path.name).is_file()
        )

    def _peak(self, name: str) -> Path:
        return self.work / f"{name}.peak"

    def _call(self, name: str, words: list[str], more: list[str]) -> None:
        command = [*words, *more, "-q"]
        print("autoprune", shlex.join(command), flush=True)
        self.work.mkdir(parents=True, exist_ok=True)
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *command],
            env=os.environ | {"PYTHONPATH": paths, PEAK: str(self._peak(name))},
            capture_output=True,
            text=True,
            check=False,
        )
        (self.work / f"{name}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        if done.returncode:
            raise AutopruneError(f"autoprune {shlex.join(command)} failed: {done.stderr.strip()[-800:]}")
