"""A search whose trials take milliseconds, as a process to be killed.

    python -m tests.support.toy_driver RUN [--trials N] [--workers N] [--address A] [--storage URL] ...

Run folder, study, schedule, pool and ending are the real ones; a trial sleeps, and what it gives is made up.
RUN is gone on with where it is there. `RUN.told` has a line for each trial once the study has it, `RUN.tried`
one for each time that a worker began one.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoprune.api.ending import ending_recorded
from autoprune.cli.signals import reported
from autoprune.core.files import write_json
from autoprune.pipeline.places import check_taken_up, expected_study
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, RUN, STUDY, RunFolder
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial, failed_trials, tried_trials
from autoprune.strategy import stored_trials
from autoprune.strategy.samplers import make_proposer
from autoprune.strategy.schedule import Plan, Schedule
from autoprune.strategy.study import Study
from autoprune.workers import Outcome, Pool, open_pool, ray_cluster
from autoprune.workers.pool import Job
from tests.support.toy_search import Toy

FAULTS = ("nan", "raise", "exit", "bomb", "leak", "time", "loop", "lock", "hold")


@dataclass(frozen=True)
class ToyJob(Job[int]):
    """A trial. fault: what goes wrong in it, one of `FAULTS`. is_light: whether it takes half the memory."""

    seconds: float
    fault: str = ""
    is_light: bool = False
    limit_s: float | None = None

    def lighter(self) -> ToyJob | None:
        return None if self.is_light else replace(self, is_light=True)


def make_toy(context: Mapping[str, object]) -> Callable[[object], object]:
    kept: list[bytes] = []

    def work(job: object) -> object:
        assert isinstance(job, ToyJob)
        with open(str(context["tried"]), "a", encoding="utf-8") as log:
            log.write(f"{os.getpid()} {job.fault} {'light' if job.is_light else 'heavy'}\n")
        time.sleep(job.seconds)
        if job.fault == "raise":
            raise ValueError("a bug of the user's")
        if job.fault == "exit":
            os._exit(1)
        if job.fault == "leak":
            kept.append(os.urandom(40_000_000))
        while job.fault == "loop":
            pass
        if job.fault == "lock":  # as threads that wait for each other
            lock = threading.Lock()
            for _ in range(2):
                lock.acquire()
        if job.fault == "hold":  # as a library that never gives Python its turn back
            ctypes.PyDLL(None).pause()
        if job.fault == "time":
            return context["elsewhere"](ToyJob(0.0))  # type: ignore[operator]
        while job.fault == "bomb":
            kept.append(b"x" * 50_000_000)
            time.sleep(0.05)
        return os.getpid()

    return work


def told_trial(toy: Toy, candidate: Candidate, rung: int, outcome: Outcome[int], fault: str) -> Trial:
    """What an outcome says of a candidate."""
    trial = replace(toy.trial(candidate, -1), rung=rung, worker=outcome.worker, seconds=outcome.seconds)
    if outcome.failure is not None:
        return replace(trial, measurement=None, failure=outcome.failure)
    if fault == "nan" and trial.measurement is not None:
        return replace(trial, measurement=replace(trial.measurement, accuracy=float("nan")))
    return trial


def drive(folder: RunFolder, pool: Pool, asked: argparse.Namespace) -> None:
    """Ask, evaluate and tell until there are enough, as `pipeline/trials` does."""
    folder.workers = lambda: pool.census().as_json()
    folder.status("preparing")
    pool.wait_for_room()
    pool.start({"tried": f"{folder.path}.tried"})
    toy = Toy.of(6)
    aim = toy.aim()
    proposer = make_proposer("random", space=toy.space, seed=os.getpid(), repair=lambda one, *_: one)
    study = Study(
        folder.path / STUDY, toy.space, proposer=proposer, storage=folder.storage,
        name=folder.study_name(), expect=expected_study(folder),
    )  # fmt: skip
    plan = Plan(Budget(), asked.trials, steps=0, answers=1000, byte_range=aim.scale.byte_range)
    schedule, faults = Schedule(study, plan, []), dict[int, str]()
    kinds, looked = asked.faults.split(",") if asked.faults else [], time.monotonic()
    try:
        sum_up(folder, study, asked.trials, state="running")
        while True:
            while pool.free and (work := schedule.next()) is not None:
                faults[work.token] = kinds[work.token % len(kinds)] if kinds else ""
                pool.submit(
                    work.token, ToyJob(asked.seconds, faults[work.token], limit_s=asked.trial_timeout)
                )
            if not study.history.in_flight:
                break
            outcome = pool.next(timeout=1.0)
            if outcome is None:
                if time.monotonic() - looked > 2:
                    folder.status_again()
                    looked = time.monotonic()
                continue
            work = study.history.in_flight[outcome.key]
            fault = faults.pop(work.token)
            trial = study.tell(work.token, told_trial(toy, work.candidate, work.rung, outcome, fault))
            with open(f"{folder.path}.told", "a", encoding="utf-8") as log:
                log.write(f"{trial.number} {time.time()} {outcome.worker} {trial.failure or ''}\n")
            sum_up(folder, study, asked.trials, state="running")
        sum_up(folder, study, asked.trials, state="finished")
    finally:
        study.close()


def sum_up(folder: RunFolder, study: Study, planned: int, *, state: str) -> None:
    trials = study.history.finished
    write_json(folder.path / FRONT, {"run": {"state": state}, "trials": [trial.number for trial in trials]})
    flying, failed = len(study.history.in_flight), len(failed_trials(trials))
    folder.status(state, trials=len(tried_trials(trials)), planned=planned, in_flight=flying, failed=failed)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--any-workers", action="store_true")
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--address")
    parser.add_argument("--label")
    parser.add_argument("--storage")
    parser.add_argument("--wait", type=float)
    parser.add_argument("--trial-timeout", type=float)
    parser.add_argument("--faults", default="")
    parser.add_argument("--outage", type=float, help="seconds that a database is waited for")
    parser.add_argument("--grace", type=float, help="seconds that a cluster's head may be away")
    asked = parser.parse_args(arguments)
    if asked.grace is not None:
        ray_cluster.HEAD_GRACE_SECONDS = asked.grace
    if asked.outage is not None:
        stored_trials.OUTAGE_SECONDS = asked.outage

    def tell(text: str) -> None:
        print(f"{time.time():.1f} {text}", file=sys.stderr, flush=True)

    with reported():
        if (asked.run / RUN).exists():
            folder = RunFolder.open(asked.run, asked.storage)
            try:
                check_taken_up(folder)
            except BaseException:
                folder.close()
                raise
        else:
            config = Config.of(trials=asked.trials, storage=asked.storage)
            folder = RunFolder.create(asked.run, config, "toy")
        try:
            with ending_recorded(asked.run):
                with open_pool(
                    make_toy, workers=None if asked.any_workers else asked.workers, address=asked.address,
                    timer=None if asked.label is None else ("latency-node", asked.label),
                    tell=tell, wait=asked.wait,
                ) as pool:  # fmt: skip
                    drive(folder, pool, asked)
        finally:
            folder.close()


if __name__ == "__main__":
    main(sys.argv[1:])
