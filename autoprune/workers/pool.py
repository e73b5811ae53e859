"""What a pool of workers promises, and the pool that is this process.

A worker is made once, by `factory(context)`, and then called with one job at a time. A job that
raises costs a failed Outcome.
"""

from __future__ import annotations

import logging
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar, cast

from autoprune.workers.census import Census, State, WorkerState, own_memory_bytes

Result = TypeVar("Result")
Factory = Callable[[Mapping[str, object]], Callable[[object], object]]

log = logging.getLogger(__name__)


class Job(Generic[Result]):
    """A message to a worker, typed by what the worker answers; plain data that can be pickled.

    limit_s: seconds that it may work, what it waits for other processes not counted; None for as long as it
    takes. A pool in this process knows no limit.
    """

    limit_s: float | None = None

    def lighter(self) -> Job[Result] | None:
        """The same for about half the memory, to be tried once where memory ran out; None: there is none."""
        return None


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What came of one job: `failure` is None exactly when it returned, with `result`.

    Else it is "ClassName: message" on one line, "WorkerDied: ..." after the last try, "TimedOut: ..." of a
    job that worked for longer than its limit. `seconds` is the time of the job itself or, if its worker died
    or was ended, since the last try was handed out. `error` is what the job raised, of its own class, with
    the worker's traceback as its cause.
    """

    key: int
    result: Result | None
    failure: str | None
    worker: str
    seconds: float
    error: Exception | None = field(default=None, compare=False, repr=False)


class Pool(Protocol):
    """Jobs go in with a key, Outcomes come out in the order they finish."""

    size: int  # how many workers there are now; those that wait for room are none

    @property
    def free(self) -> int:
        """How many more jobs can be submitted before one waits for another to end."""

    def start(self, context: Mapping[str, object]) -> None:
        """Give the workers what they need; for a pool that was made without. Before any job."""

    def wait_for_room(self) -> None:
        """Wait until a worker has found room, or raise AutopruneError: before anything heavy is begun."""
        return

    def census(self) -> Census:
        """What the workers do now; empty where a pool does not tell."""
        return Census()

    def submit(self, key: int, job: Job[Any]) -> None:
        """Hand in a job; it waits its turn when all workers are busy."""

    def next(self, timeout: float | None = None) -> Outcome[Any] | None:
        """The next job that ended; None when none is left, or after `timeout` seconds."""

    def close(self) -> None:
        """End the workers and forget the jobs; may be called twice, or while being interrupted."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SerialPool(Pool):
    """One worker, this process: a job runs inside `next`, and no timeout cuts it short."""

    size = 1

    def __init__(self, factory: Factory, context: Mapping[str, object] | None = None) -> None:
        self._factory = factory
        self._queue: deque[Queued] = deque()
        self._has_begun = False
        if context is not None:
            self.start(context)

    def start(self, context: Mapping[str, object]) -> None:
        self._work = self._factory(context)

    @property
    def free(self) -> int:
        return max(0, 1 - len(self._queue))

    def census(self) -> Census:
        # A status is written between two jobs, when the next one is about to begin.
        state: State = "training" if self._has_begun else "idle"
        return Census((WorkerState("serial", socket.gethostname(), state, own_memory_bytes()),))

    def submit(self, key: int, job: Job[Any]) -> None:
        self._queue.append(Queued(key, job))
        self._has_begun = True

    def next(self, timeout: float | None = None) -> Outcome[Any] | None:
        if not self._queue:
            return None
        report = attempt(self._work, self._queue[0].job)
        # Taken off only now, so that a job cut by Ctrl-C is not lost.
        return outcome_of(self._queue.popleft(), "serial", report)

    def close(self) -> None:
        self._queue.clear()
        self._has_begun = False


@dataclass
class Queued:
    """A job to do. tries: how often it was handed out. lost_nodes: those that were lost with its worker."""

    key: int
    job: Job[Any]
    tries: int = 0
    lost_nodes: int = 0


def run_each(
    pool: Pool, jobs: Sequence[Job[Result]], bar: Callable[[int, str], None] | None = None
) -> Iterator[Outcome[Result]]:
    """Run jobs on an idle pool; their outcomes as they come, whose key is the job's place."""
    for key, job in enumerate(jobs):
        pool.submit(key, job)
    for count in range(1, len(jobs) + 1):
        outcome = pool.next()
        assert outcome is not None
        yield outcome
        if bar is not None:
            bar(count, "")


def run_all(
    pool: Pool,
    jobs: Sequence[Job[Result]],
    done: Callable[[int, Result], None],
    bar: Callable[[int, str], None] | None = None,
) -> None:
    """Run jobs that must all succeed; `done` gets each one's place and result.

    Raises what a job raised, as it is; RuntimeError where its workers died.
    """
    for outcome in run_each(pool, jobs, bar):
        if outcome.error is not None:
            raise outcome.error
        if outcome.failure is not None:
            raise RuntimeError(f"{type(jobs[outcome.key]).__name__} failed: {outcome.failure}")
        done(outcome.key, cast(Result, outcome.result))


def run_one(pool: Pool, job: Job[Result], bar: Callable[[int, str], None] | None = None) -> Result:
    """The result of a job that must succeed; raises as `run_all` does."""
    results: list[Result] = []
    run_all(pool, [job], lambda _, result: results.append(result), bar)
    return results[0]


class Report(NamedTuple):
    """What a worker says of a job; `failure`, `trace` and `error` are of what it raised."""

    result: Any
    failure: str | None
    trace: str
    seconds: float
    error: Exception | None = None


class WorkerTrace(Exception):  # noqa: N818  (no error of its own)
    """The traceback of an error in a worker, as text: the cause of that error where it is raised again."""


def attempt(work: Callable[[object], object], job: object) -> Report:
    begun = time.perf_counter()
    try:
        return Report(work(job), None, "", time.perf_counter() - begun)
    except (Exception, SystemExit) as error:  # a user's function may end the process
        failure, trace = describe(error), traceback.format_exc()
        kept = error if isinstance(error, Exception) else RuntimeError(failure)
        return Report(None, failure, trace, time.perf_counter() - begun, traced(kept, trace))


def traced(error: Exception, trace: str) -> Exception:
    """An error without its frames, which may hold a model, and with their text as its cause."""
    error.__traceback__ = error.__context__ = None
    error.__cause__ = WorkerTrace(f"\n{trace}") if trace else None
    return error


def outcome_of(task: Queued, worker: str, report: Report) -> Outcome[Any]:
    if report.failure is not None:
        log.debug("job %d on %s: %s\n%s", task.key, worker, report.failure, report.trace)
    return Outcome(task.key, report.result, report.failure, worker, report.seconds, report.error)


def describe(error: BaseException) -> str:
    """`ClassName: message` on one line, with its notes and the cause that it was raised from."""
    text = f"{type(error).__name__}: {error}"
    text += "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    if error.__cause__ is not None and not isinstance(error.__cause__, WorkerTrace):
        text += f" (from {type(error.__cause__).__name__}: {error.__cause__})"
    return " ".join(text.split())[:1000]
