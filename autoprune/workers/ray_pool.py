"""Workers in processes of Ray, on this machine or a cluster.

A worker that dies is replaced and its job tried again, `TRIES` times in all.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from autoprune.core.errors import AutopruneError
from autoprune.workers.carried_errors import CarriedError, received, sent
from autoprune.workers.latency_node import Elsewhere, check_label, hire_timer
from autoprune.workers.pool import (
    Factory,
    Job,
    Outcome,
    Pool,
    Queued,
    Report,
    attempt,
    describe,
    outcome_of,
    traced,
)
from autoprune.workers.ray_cluster import Pulse, connect, nothing

TRIES = 3  # of a job whose worker dies, and of a worker that dies while it starts
_LOOK_SECONDS = 1.0  # at most between two looks at whether any worker has found room
_FIRST_WORD_SECONDS, _NEXT_WORD_SECONDS = 5.0, 10.0  # when on_wait hears that none has

_Message = tuple[Report, CarriedError | None]
log = logging.getLogger(__name__)


class RayPool(Pool):
    """Workers in processes of Ray, each with its share of cores and GPUs.

    `start`, or the constructor where it is given the context, returns when the first worker is ready;
    the others join while `next` waits. Until then they import what the factory needs. The
    context is stored once, and every worker sees the same memory: **its numpy arrays are read-only,
    but `torch.from_numpy` makes a tensor that can be written to, and a write changes the data of
    all workers. A worker copies what it trains.** `cpus_per_worker` is also the number of OpenMP
    threads; a worker with 0 GPUs sees none. `address` is "auto", "ray://host:port" or "host:port"
    of a running cluster that has autoprune installed; None starts a Ray that listens on 127.0.0.1
    only. A Ray that this process already runs is used as it is. `timer` (a label's name and value) asks
    for one more worker, on a node of the cluster with that label, which the others keep away from: the
    context they get has it under "elsewhere", to do a job there and give its result. While no worker
    finds room, `on_wait` hears of it, and `patience` is the limit in seconds; a factory takes what it needs.

    Raises, here and from `next`: AutopruneError when Ray cannot be reached, no worker found room, or a
    worker died 3 times while it started; StoppedError when Ray is lost; what the factory raised, as it is.
    """

    def __init__(
        self,
        factory: Factory,
        context: Mapping[str, object] | None = None,
        *,
        workers: int,
        cpus_per_worker: float = 1,
        gpus_per_worker: float = 0,
        address: str | None = None,
        timer: tuple[str, str] | None = None,
        on_wait: Callable[[str], None] | None = None,
        patience: float = 60,
    ) -> None:
        if workers < 1:
            raise AutopruneError(f"{workers} workers: a RayPool needs at least 1")
        self.size = workers
        self._factory, self._patience = factory, patience
        self._cpus, self._gpus = cpus_per_worker, gpus_per_worker
        self._on_wait, self._told = on_wait, -math.inf
        self._label, self._timer = timer, None
        self._queue: deque[Queued] = deque()
        self._done: deque[Outcome[Any]] = deque()
        self._slots: list[_Slot] = []
        self._local = address is None
        self._ray, self._disconnect = connect(address, math.ceil(workers * cpus_per_worker))
        self._pulse = Pulse(self._ray, address)
        try:
            if timer is not None:
                check_label(self._ray, timer)
            self._slots = [self._hire() for _ in range(workers)]
            for slot in self._slots:  # imports what the factory needs while the driver prepares
                slot.actor.fetch.remote(self._factory)
            if context is not None:
                self.start(context)
        except BaseException:
            self.close()
            raise

    def start(self, context: Mapping[str, object]) -> None:
        with self._pulse.felt():
            self._context = self._ray.put(dict(context))
            if self._label is not None:
                options = self._options(label_selector=dict([self._label]))
                self._timer = hire_timer(self._ray, options, self._factory, self._context, self._patience)
        for slot in self._slots:  # until now nobody listened for room
            slot.since = time.monotonic()
        while not any(slot.stage == "idle" for slot in self._slots):
            self._step(_LOOK_SECONDS)

    @property
    def free(self) -> int:
        return max(0, self.size - self._outstanding())

    def submit(self, key: int, job: Job[Any]) -> None:
        if not self._slots:
            raise RuntimeError("the pool is closed")
        self._queue.append(Queued(key, job))
        with self._pulse.felt():
            self._assign()

    def next(self, timeout: float | None = None) -> Outcome[Any] | None:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self._done and self._outstanding():
            self._step(min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
            if time.monotonic() >= deadline:
                break
        return self._done.popleft() if self._done else None

    def close(self) -> None:
        self._queue.clear()
        self._done.clear()
        self._context = None
        if self._timer is not None:
            with suppress(Exception):
                self._ray.kill(self._timer)
            self._timer = None
        while self._slots:
            with suppress(Exception):  # the cluster may be gone already
                self._ray.kill(self._slots[-1].actor)
            self._slots.pop()
        self._disconnect()
        self._disconnect = nothing  # a second close must not end the Ray of a later pool

    def _outstanding(self) -> int:
        busy = sum(slot.task is not None for slot in self._slots)
        return len(self._queue) + busy + len(self._done)

    def _hire(self, losses: int = 0) -> _Slot:
        away = {} if self._label is None else {"label_selector": {self._label[0]: f"!{self._label[1]}"}}
        # No max_restarts: this pool replaces a worker, it knows what the worker was doing.
        actor = self._ray.remote(_Worker).options(**self._options(**away)).remote()
        return _Slot(actor, actor.hello.remote(), losses, since=time.monotonic())

    def _options(self, **more: object) -> dict[str, Any]:
        """What a worker's process asks of Ray."""
        threads = str(max(1, int(self._cpus)))
        variables = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"}
        if self._local:  # Ray hands on the working directory, but not all of sys.path
            paths = (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", ""))
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        if self._gpus == 0:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        share = {"num_cpus": self._cpus, "num_gpus": self._gpus}
        return {**share, "runtime_env": {"env_vars": variables}, **more}

    def _assign(self) -> None:
        idle = [slot for slot in self._slots if slot.stage == "idle"]
        while idle and self._queue:
            slot, task = idle[-1], self._queue.popleft()
            try:
                slot.asked = slot.actor.run.remote(task.job)
            except TypeError as error:  # Ray's word for what it cannot pickle
                self._done.append(outcome_of(task, "", Report(None, describe(error), "", 0.0, error)))
                continue
            slot.stage, slot.task, slot.since = "busy", task, time.monotonic()
            task.tries += 1
            idle.pop()

    def _step(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for an answer, and deal with all that have come."""
        slots = {slot.asked: slot for slot in self._slots if slot.asked is not None}
        with self._pulse.felt():
            ready, _ = self._ray.wait(list(slots), timeout=timeout)
            if ready:  # the rest too: the first of the list must not always go first
                ready, _ = self._ray.wait(list(slots), num_returns=len(slots), timeout=0)
        for answer in ready:
            self._hear(slots[answer])
        with self._pulse.felt():
            self._assign()
            self._check_patience()

    def _hear(self, slot: _Slot) -> None:
        try:
            with self._pulse.felt():
                answer = self._ray.get(slot.asked)
        except self._ray.exceptions.RayTaskError as error:
            # No job can raise here: what it returned could not be pickled.
            cause, seconds = traced(error.cause, str(error)), time.monotonic() - slot.since
            report = Report(None, describe(cause), str(error), seconds, cause)
        except self._ray.exceptions.RayError as error:
            self._bury(slot, error)
            return
        else:
            if slot.stage == "hired":
                slot.name, slot.stage = answer, "loading"
                slot.asked = slot.actor.start.remote(self._factory, self._context, self._timer)
                return
            report = received(answer)
        if slot.task is not None:
            self._done.append(outcome_of(slot.task, slot.name, report))
        elif report.error is not None:
            raise report.error
        slot.stage, slot.asked, slot.task, slot.losses = "idle", None, None, 0

    def _bury(self, slot: _Slot, error: Exception) -> None:
        """Replace a worker that died; its job goes to the head of the queue or is given up."""
        with suppress(Exception):  # "unavailable" may mean alive but out of reach
            self._ray.kill(slot.actor)
        counts = 0 if getattr(error, "preempted", False) else 1
        losses = 0 if slot.task else slot.losses + counts
        self._slots[self._slots.index(slot)] = self._hire(losses)
        reason = _reason(error)
        log.debug("worker %s died: %s", slot.name, reason)
        if losses >= TRIES:
            raise AutopruneError(f"a worker died {losses} times while it started: {reason}")
        if slot.task:
            slot.task.tries -= 1 - counts
            if slot.task.tries < TRIES:
                self._queue.appendleft(slot.task)
                return
            failure = f"WorkerDied: {TRIES} workers died on this job, the last because {reason}"
            seconds = time.monotonic() - slot.since
            self._done.append(outcome_of(slot.task, slot.name, Report(None, failure, str(error), seconds)))

    def _check_patience(self) -> None:
        if any(slot.stage != "hired" for slot in self._slots):
            return
        now = time.monotonic()
        waited = now - max(slot.since for slot in self._slots)
        silent = waited < _FIRST_WORD_SECONDS or now - self._told < _NEXT_WORD_SECONDS
        if waited < self._patience and silent:
            return
        self._told = now
        has, free = self._ray.cluster_resources(), self._ray.available_resources()
        text = (
            f"{self.size} workers ask for {self._cpus:g} CPU and {self._gpus:g} GPU each, and none "
            f"found room in {waited:.0f} s. The cluster has {has.get('CPU', 0):g} CPU and "
            f"{has.get('GPU', 0):g} GPU, of which {free.get('CPU', 0):g} and "
            f"{free.get('GPU', 0):g} are free."
        )
        if waited >= self._patience:
            raise AutopruneError(f"{text} Ask for less for each worker, or add a node.")
        if self._on_wait is not None:
            self._on_wait(text)


class _Worker:
    """The actor. `start` is not its constructor: slow loading must not look like a full cluster."""

    def hello(self) -> str:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group
        return f"{socket.gethostname()}:{os.getpid()}"

    def fetch(self, factory: Factory) -> None:
        """Ray has imported the factory's module to call this."""

    def start(self, factory: Factory, context: Mapping[str, object], timer: Any) -> _Message:
        given = context if timer is None else {**context, "elsewhere": Elsewhere(timer)}
        report = attempt(lambda _: factory(given), None)
        if report.error is None:
            self._work = cast(Callable[[object], object], report.result)
        return sent(report._replace(result=None))

    def run(self, job: Job[Any]) -> _Message:
        return sent(attempt(self._work, job))


@dataclass(eq=False)
class _Slot:
    """A worker's place; `asked` is the answer it owes, `since` when it was last given work."""

    actor: Any
    asked: Any
    losses: int  # workers that died here in a row before they were ready
    since: float
    stage: Literal["hired", "loading", "idle", "busy"] = "hired"
    task: Queued | None = None
    name: str = ""


def _reason(error: Exception) -> str:
    """Ray's account of a death, without its advice on possible causes."""
    if "creation task" in str(error):  # a traceback: autoprune could not be imported there
        return str(error).strip().splitlines()[-1]
    text = describe(error).partition(" Some common causes")[0]
    return text.rpartition("The actor is dead because ")[2]
