"""A job that does not end: it fails with that cause, its worker goes, and what only waits is left alone."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import pytest
import ray
from ray import cloudpickle

from autoprune.core.errors import AutopruneError
from autoprune.core.progress import Progress
from autoprune.pipeline.start import open_workers
from autoprune.run.config import Config
from autoprune.workers import RayPool, job_limits
from autoprune.workers.machine_lock import Room
from autoprune.workers.pool import Job
from autoprune.workers.work_clock import WorkClock

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class Verb(Job[object]):
    """Something to do. place: a file that it needs."""

    name: str
    place: str = ""
    limit_s: float | None = None


def make(_: Mapping[str, object]) -> Callable[[object], object]:
    threads = {threading.get_ident()}

    def work(job: object) -> object:
        assert isinstance(job, Verb)
        threads.add(threading.get_ident())
        if job.name == "loop":
            while True:
                pass
        if job.name == "lock":
            lock = threading.Lock()
            for _ in range(2):
                lock.acquire()
        if job.name == "hold":  # as a library that never gives Python its turn back
            ctypes.PyDLL(None).pause()
        if job.name == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if job.name == "wait":
            with Room(Path(job.place)).busy():
                return os.getpid()
        if job.name == "nap":
            time.sleep(0.6)
        return os.getpid(), len(threads)

    return work


@pytest.fixture(scope="module")
def pool() -> Iterator[RayPool]:
    assert not ray.is_initialized()
    with RayPool(make, {}, workers=2, cpus_per_worker=0.1) as pool:
        yield pool


@pytest.mark.ray
@pytest.mark.parametrize(
    ("name", "told"),
    [("loop", "it was in .* line \\d+ \\(work\\)"), ("lock", "it was in .* line \\d+ \\(work\\)"),
     ("hold", "its worker answers nothing since"), ("stop", "its worker answers nothing since")],
)  # fmt: skip
def test_a_job_that_does_not_end_fails_and_its_worker_is_replaced(
    pool: RayPool, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.setattr(job_limits, "ANSWER_SECONDS", 2.0)
    before = pool.census()
    pool.submit(0, Verb(name, limit_s=1.0))
    pool.submit(1, Verb("plain", limit_s=1.0))
    begun, outcomes = time.monotonic(), {}
    for _ in range(2):
        outcome = pool.next(30)
        assert outcome is not None
        outcomes[outcome.key] = outcome
    assert outcomes[1].failure is None
    failure = str(outcomes[0].failure)
    assert failure.startswith("TimedOut: it "), failure
    assert "and a trial may for 1 s (--trial-timeout)" in failure
    assert re.search(told, failure), failure
    assert time.monotonic() - begun < 15
    pids, until = set[int](), time.monotonic() + 120
    while len(pids) < 2 and time.monotonic() < until:  # both places are manned again
        for key in range(2):
            pool.submit(key, Verb("nap"))
        pids |= {pool.next(60).result[0] for _ in range(2)}  # type: ignore[union-attr]
    assert len(pids) == 2
    after = pool.census()
    assert (after.overdue, after.dead) == (before.overdue + 1, before.dead)


@pytest.mark.ray
def test_a_job_that_waits_for_another_process_is_left_alone(pool: RayPool, tmp_path: Path) -> None:
    """The room is had alone by this process for longer than the job may work."""
    before = pool.census().overdue
    with Room(tmp_path / "room").alone():
        pool.submit(0, Verb("wait", str(tmp_path / "room"), limit_s=1.0))
        assert pool.next(4.0) is None
    outcome = pool.next(30)
    assert outcome is not None
    assert outcome.failure is None
    assert outcome.seconds > 3
    assert pool.census().overdue == before


@pytest.mark.ray
def test_all_jobs_of_a_worker_run_in_one_thread(pool: RayPool) -> None:
    """That which made it: a library may keep settings by thread."""
    for key in range(6):
        pool.submit(key, Verb("plain"))
    assert {pool.next(30).result[1] for _ in range(6)} == {1}  # type: ignore[union-attr]


def test_a_limit_without_workers_is_refused() -> None:
    config = Config.of(workers=0, trial_timeout_s=60.0)
    with pytest.raises(AutopruneError, match="--trial-timeout needs workers"):
        open_workers(config, Progress(quiet=True))


def test_the_limit_is_written_where_it_is_given() -> None:
    config = Config.of(trial_timeout_s=60.0)
    assert Config.from_json(config.as_json()) == config
    assert "trial_timeout_s" not in Config().as_json()
    assert replace(config.search, trial_timeout_s=None) == Config().search


class Time:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("autoprune.workers.work_clock.time.monotonic", lambda: self.now)


@hypothesis.given(spans=some.lists(some.tuples(some.booleans(), some.floats(0.0, 100.0)), max_size=12))
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_a_clock_counts_the_spans_of_work_alone(
    monkeypatch: pytest.MonkeyPatch, spans: list[tuple[bool, float]]
) -> None:
    with monkeypatch.context() as patch:
        time_, clock, worked = Time(patch), WorkClock(), 0.0
        with clock.job():
            for waits, seconds in spans:
                if waits:
                    with clock.waiting(), clock.waiting():
                        time_.now += seconds
                        assert clock.worked().seconds == pytest.approx(worked)
                else:
                    time_.now += seconds
                    worked += seconds
                assert clock.worked().seconds == pytest.approx(worked)
            assert "test_a_clock_counts" in clock.worked().trace
        assert clock.worked().seconds == 0.0
