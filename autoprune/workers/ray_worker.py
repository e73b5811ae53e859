"""The process of one worker of a Ray, what a pool knows of it, and how one comes to its end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

from autoprune.core.memory import available_bytes
from autoprune.workers.carried_errors import CarriedError, sent
from autoprune.workers.census import State, WorkerState, own_memory_bytes
from autoprune.workers.latency_node import Elsewhere
from autoprune.workers.pool import Factory, Job, Queued, Report, attempt, describe
from autoprune.workers.work_clock import CLOCK, Worked

LEAK_BYTES = 10**9
"""A worker that holds so much more than after its first jobs, and twice as much, may leak."""

SHORT_OF = 2
"""One that may leak is replaced once its node has less memory free than so many times what it holds.

A fine-tune takes more than the jobs before it: where there is room, a new worker would cost its loading."""

FIRST_JOBS = 2
"""Jobs after which a worker has all loaded that it keeps."""

CLOCK_GROUP = "clock"
"""Ray answers what is asked in this group in a thread of its own, whatever the worker does."""

MEMORY_CURE = "ask for fewer workers on a node (a larger --cpus-per-trial) or for nodes with more memory"


class Greeting(NamedTuple):
    """Who a worker is. node: its id in Ray."""

    name: str
    host: str
    node: str


class Answer(NamedTuple):
    """What a worker says of a job, the memory that it held afterwards, and what its node had free then."""

    message: tuple[Report, CarriedError | None]
    memory_bytes: int
    free_bytes: int | None = None


class RayWorker:
    """The actor. `start` is not its constructor: slow loading must not look like a full cluster.

    Its constructor runs in the process's main thread, all else in one other thread, so that Ray can ask it
    how long it has worked.
    """

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group

    def hello(self) -> Greeting:
        import ray

        host = socket.gethostname()
        return Greeting(f"{host}:{os.getpid()}", host, ray.get_runtime_context().get_node_id())

    def fetch(self, factory: Factory) -> None:
        """Ray has imported the factory's module to call this."""

    def start(self, factory: Factory, context: Mapping[str, object], timer: Any) -> Answer:
        given = context if timer is None else {**context, "elsewhere": Elsewhere(timer)}
        report = attempt(lambda _: factory(given), None)
        if report.error is None:
            self._work = cast(Callable[[object], object], report.result)
        return Answer(sent(report._replace(result=None)), own_memory_bytes())

    def run(self, job: Job[Any]) -> Answer:
        with CLOCK.job():
            message = sent(attempt(self._work, job))
        return Answer(message, own_memory_bytes(), available_bytes())

    def worked(self) -> Worked:
        """How long it has worked on its job; to be asked in `CLOCK_GROUP`."""
        return CLOCK.worked()


@dataclass(eq=False)
class Slot:
    """A worker's place; `asked` is the answer it owes, `since` when it was last given work.

    first_bytes: the most memory that it held after one of its first jobs.
    """

    actor: Any
    asked: Any
    since: float
    stage: Literal["hired", "importing", "imported", "loading", "idle", "busy"] = "hired"
    task: Queued | None = None
    name: str = ""
    host: str = ""
    node: str = ""
    jobs: int = 0
    memory_bytes: int = 0
    first_bytes: int = 0
    free_bytes: int | None = None

    def state(self) -> WorkerState:
        words: dict[str, State] = {"hired": "waiting", "idle": "idle", "busy": "training"}
        return WorkerState(self.name, self.host, words.get(self.stage, "loading"), self.memory_bytes)

    def note_memory(self, held: int, free: int | None) -> None:
        """Note the memory that is held after a job, and what the node has free."""
        self.jobs += 1
        self.memory_bytes, self.free_bytes = held, free
        if self.jobs <= FIRST_JOBS:
            self.first_bytes = max(self.first_bytes, held)

    def holds_too_much(self, limit_bytes: int | None) -> bool:
        """Whether the memory that it held after its last job is more than it needs, or than the limit."""
        if self.jobs <= FIRST_JOBS:
            return False
        if limit_bytes is not None:
            return self.memory_bytes > limit_bytes
        may_leak = self.memory_bytes > self.first_bytes + max(LEAK_BYTES, self.first_bytes)
        return may_leak and (self.free_bytes is None or self.free_bytes < SHORT_OF * self.memory_bytes)


class Death(NamedTuple):
    """How a worker died. node: with its node. memory: of its node's lack of memory. reason: in words."""

    kind: Literal["process", "node", "preemption", "memory", "never started"]
    reason: str


def death_of(error: Exception) -> Death:
    """How a worker died, by Ray's account, without Ray's advice on possible causes."""
    text = str(error)
    if getattr(error, "preempted", False):
        return Death("preemption", "its node was preempted")
    if "low on memory" in text:
        return Death("memory", "its node ran low on memory, so that Ray's memory monitor ended it")
    if "node has died" in text or "node is dead" in text:
        return Death("node", "its node was lost")
    if "creation task" in text:  # a traceback: autoprune could not be imported there
        return Death("never started", text.strip().splitlines()[-1])
    reason = describe(error).partition(" Some common causes")[0]
    return Death("process", reason.rpartition("The actor is dead because ")[2])


def lighter_of(job: Job[Any]) -> Job[Any]:
    """The job for half the memory; itself where it has no such way."""
    lighter: Callable[[], Job[Any] | None] | None = getattr(job, "lighter", None)
    return (lighter() if lighter is not None else None) or job
