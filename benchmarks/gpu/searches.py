"""A search as a user starts it, in a process of its own, with some workers on one GPU: trials an hour.

It is asked to stop before its part's time is up, so that a search which takes too long gives figures too.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna

from autoprune.core.files import read_json
from benchmarks.gpu.demo import GROUP, MODEL, ROWS
from benchmarks.gpu.figures import Figures
from benchmarks.gpu.install import ROOT
from benchmarks.gpu.setup import Setup

PROGRAM = "from autoprune.cli.main import main; main()"
STOPPING = 12.0
"""Seconds before a part's end at which its search is interrupted, which writes its records then."""


def measure(
    setup: Setup, figures: Figures, *, name: str, target: str, workers: int, trials: int, limit: float
) -> None:
    """Run one search and note what its trials say.

    Raises:
        RuntimeError: when the search fails by itself, with the end of what it said.
    """
    run = Path(setup.work) / name
    shutil.rmtree(run, ignore_errors=True)  # of an earlier call
    begun = time.time()
    log = run.with_suffix(".log")
    with log.open("w", encoding="utf-8") as file:
        command = search_command(setup, run, target=target, workers=workers, trials=trials)
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT)
        with _watched_gpu(setup, figures):
            interrupted = _waited(process, limit)
    figures.note(
        target=target, workers=workers, gpus_per_trial=setup.gpus_per_trial(workers),
        exit_code=process.returncode, interrupted=interrupted, **summary(run, begun),
    )  # fmt: skip
    if process.returncode and not interrupted:
        raise RuntimeError(f"the search failed: {log.read_text(encoding='utf-8').strip()[-3000:]}")


def search_command(setup: Setup, run: Path, *, target: str, workers: int, trials: int) -> list[str]:
    """`autoprune search` of the carried model and rows."""
    words: list[object] = [
        f"{setup.demo}/{MODEL}", "--dataset", f"{setup.demo}/{ROWS}", "--group-by", GROUP,
        "--budget", setup.budget, "--target", target, "--workers", workers,
        "--gpus-per-trial", setup.gpus_per_trial(workers), "--trials", trials, "-o", run,
    ]  # fmt: skip
    for option, value in setup.settings.items():
        values = value if isinstance(value, list | tuple) else [value]
        words += [f"--{option.replace('_', '-')}", *values]
    return [sys.executable, "-c", PROGRAM, "search", *map(str, words)]


def summary(run: Path, begun: float) -> dict[str, Any]:
    """What a run's records say of its trials; `begun` is when its process was, in seconds since 1970.

    The rate is of the search's own trials, baselines not counted: finished ones over the time from the first
    one's start to the last one's end; `all_evaluations` has the same of all. `at_once` is their seconds
    together over that time. `share_in_training` counts the whole fine-tune, its guard rows too.
    """
    if not (run / "study.db").is_file():
        return {"trials": 0}
    study = optuna.load_study(study_name="autoprune", storage=f"sqlite:///{run / 'study.db'}")
    trials = study.get_trials()
    searched = [trial for trial in trials if trial.user_attrs.get("name") is None]
    good = [trial for trial in searched if trial.state == optuna.trial.TrialState.COMPLETE]
    figures: dict[str, Any] = {
        "baselines": len(trials) - len(searched),
        "trials": len(good),
        "trained": sum(trial.user_attrs.get("rung", 0) > 0 for trial in good),
        "failed": len(searched) - len(good),
        "failures": sorted({trial.user_attrs["failure"] for trial in trials if trial.values is None})[:3],
    }
    if trials:
        first = min(trial.datetime_start.timestamp() for trial in trials)
        figures["seconds_before_the_first_evaluation"] = first - begun
    if good:
        figures |= _rates(good)
    if complete := [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]:
        figures["all_evaluations"] = _rates(complete)
    about = read_json(run / "run.json")
    return figures | {name: about.get(name) for name in ("driver_share", "overhead_share", "original_ms")}


def _rates(trials: list[optuna.trial.FrozenTrial]) -> dict[str, Any]:
    """Trials an hour, how many ran at once, and the shares of their seconds by stage."""
    start = min(trial.datetime_start.timestamp() for trial in trials)
    span = max(trial.datetime_complete.timestamp() for trial in trials) - start
    seconds = sum(trial.user_attrs["seconds"] for trial in trials)
    parts: dict[str, float] = {}
    for trial in trials:
        for name, value in trial.user_attrs.get("parts", {}).items():
            parts[name] = parts.get(name, 0.0) + value
    trained = [trial for trial in trials if trial.user_attrs.get("rung", 0) > 0]
    training = sum(trial.user_attrs.get("parts", {}).get("finetune", 0.0) for trial in trained)
    return {
        "span_seconds": span,
        "trials_an_hour": 3600 * len(trials) / span,
        "at_once": seconds / span,
        "mean_seconds": seconds / len(trials),
        "share_of_time": {name: value / seconds for name, value in parts.items()},
        "share_in_training": parts.get("finetune", 0.0) / seconds,
        "share_in_training_of_trained": (
            training / sum(trial.user_attrs["seconds"] for trial in trained) if trained else None
        ),
    }


def _waited(process: subprocess.Popen[bytes], limit: float) -> bool:
    """Wait for a search; whether it had to be interrupted. It ends in any case."""
    try:
        process.wait(max(1.0, limit - STOPPING))
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOPPING - 4)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return True


@contextmanager
def _watched_gpu(setup: Setup, figures: Figures) -> Iterator[None]:
    """Meanwhile note how busy the GPU is and the most memory in use, as its driver says every 2 s."""
    seen: list[tuple[float, float]] = []
    done = threading.Event()
    command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]

    def watch() -> None:
        while not done.wait(2.0):
            answer = subprocess.run(command, capture_output=True, text=True, check=False)
            if answer.returncode:
                return
            busy, used = answer.stdout.splitlines()[0].split(",")
            seen.append((float(busy), float(used)))

    thread = threading.Thread(target=watch, daemon=True)
    if setup.cuda:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if setup.cuda:
            thread.join(10)
        if seen:
            figures.note(
                gpu_busy_percent=sum(busy for busy, _ in seen) / len(seen),
                gpu_memory_mib=max(used for _, used in seen),
            )


def environment(setup: Setup) -> dict[str, str]:
    """Of the processes of all parts: caches of their own, no network, threads that do not spin."""
    return {
        **os.environ,
        "AUTOPRUNE_CACHE": f"{setup.work}/cache",
        "TORCHINDUCTOR_CACHE_DIR": f"{setup.work}/inductor",
        "TORCHINDUCTOR_COMPILE_THREADS": "4",  # of each worker
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "PYTHONUNBUFFERED": "1",
    }
