"""Workers in processes of Ray, on this machine or a cluster: jobs go out to them, and answers come in.

A worker that dies is replaced (`ray_staff`) and its job tried again, `TRIES` times in all.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.core.processors import usable_processors
from autoprune.workers.carried_errors import received
from autoprune.workers.census import Census
from autoprune.workers.cluster_nodes import ClusterNodes, Share
from autoprune.workers.job_limits import JobLimits, Overdue
from autoprune.workers.latency_node import AWAY_SECONDS, TimerWatch, check_label, hire_timer
from autoprune.workers.pool import Factory, Job, Outcome, Pool, Queued, Report, describe, outcome_of, traced
from autoprune.workers.ray_cluster import Pulse, connect, nothing
from autoprune.workers.ray_staff import TRIES, Staff
from autoprune.workers.ray_worker import MEMORY_CURE, Death, Slot, death_of, lighter_of

MEMORY_TRIES = 2  # of a job whose worker's node runs low on memory
ROOM_SECONDS = 60.0  # without room for any worker
_LOOK_SECONDS = 1.0  # at most between two looks at whether any worker has found room
_JOIN_SECONDS = 2.0  # that the first worker's start waits for others to find room
_FETCH_SECONDS = 120.0  # for a result that is ready to arrive

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
    context they get has it under "elsewhere", to do a job there and give its result.

    `workers` are the most; None are as many as have room, also on nodes that join later. `gpus_per_worker`
    None is 1 where the cluster has any. `tell` hears in a line of workers that die or find no room, and of
    nodes that are lost. `patience` is for how many seconds no worker may have room, from the beginning on,
    `away_limit` for how many the latency node may be away. A worker that holds more than `memory_limit_bytes`
    after a job is replaced; None: one whose memory grows. So is one whose job works for longer than its
    `limit_s`, and the job fails.

    Raises, here and from `next`: AutopruneError when Ray cannot be reached, no worker can have room, or
    workers die while they start wherever they are; StoppedError when Ray is lost, none has room any more, or
    the latency node is away; what the factory raised, as it is, where it fails on all nodes.
    """

    def __init__(
        self,
        factory: Factory,
        context: Mapping[str, object] | None = None,
        *,
        workers: int | None,
        cpus_per_worker: float = 1,
        gpus_per_worker: float | None = 0,
        address: str | None = None,
        timer: tuple[str, str] | None = None,
        tell: Callable[[str], None] | None = None,
        patience: float = ROOM_SECONDS,
        away_limit: float = AWAY_SECONDS,
        memory_limit_bytes: int | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise AutopruneError(f"{workers} workers: a RayPool needs at least 1")
        is_local, told = address is None, tell or _unheard
        if is_local and workers is None:
            workers = usable_processors()
        self._factory, self._patience, self._away_limit, self._tell = factory, patience, away_limit, told
        self._memory_limit = memory_limit_bytes
        self._label, self._timer = timer, None
        self._watch: TimerWatch | None = None
        self._context: Any = None
        self._queue: deque[Queued] = deque()
        self._done: deque[Outcome[Any]] = deque()
        self._staff: Staff | None = None
        self._nodes: ClusterNodes | None = None
        self._ray, self._disconnect = connect(address, math.ceil((workers or 1) * cpus_per_worker))
        self._pulse, self._limits = Pulse(self._ray, address), JobLimits(self._ray)
        try:
            if timer is not None:
                check_label(self._ray, timer)
            nodes = self._nodes = ClusterNodes(self._ray, timer, told)
            if gpus_per_worker is None:
                gpus_per_worker = 1.0 if nodes.gpus() >= 1 else 0.0
            self._staff = Staff(
                self._ray, factory, nodes, Share(cpus_per_worker, gpus_per_worker),
                most=workers, is_local=is_local, tell=told, patience=patience,
            )  # fmt: skip
            self._staff.fill()
            if context is not None:
                self.start(context)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:  # type: ignore[override]
        return 1 if self._staff is None else self._staff.size

    @property
    def _slots(self) -> list[Slot]:
        return [] if self._staff is None else self._staff.slots

    def wait_for_room(self) -> None:
        while all(slot.stage == "hired" for slot in self._slots):
            self._step(_LOOK_SECONDS)

    def start(self, context: Mapping[str, object]) -> None:
        self.wait_for_room()
        with self._pulse.felt():
            self._context = self._ray.put(dict(context))
            if self._label is not None:
                options = self._open_staff.options(label_selector=dict([self._label]))
                self._timer = hire_timer(self._ray, options, self._factory, self._context, self._patience)
                self._watch = TimerWatch(self._ray, self._timer, self._label, self._away_limit, self._tell)
            for slot in self._slots:
                if slot.stage == "imported":
                    self._load(slot)
        until = time.monotonic() + _JOIN_SECONDS
        while not any(slot.stage == "idle" for slot in self._slots) or (
            time.monotonic() < until and any(slot.stage == "hired" for slot in self._slots)
        ):
            self._step(_LOOK_SECONDS)

    @property
    def free(self) -> int:
        return max(0, self.size - self._outstanding())

    def census(self) -> Census:
        trouble = "" if self._watch is None else self._watch.trouble
        return self._open_staff.census(f"the latency node is away ({trouble})" if trouble else "")

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
        self._context = self._watch = None
        if self._timer is not None:
            with suppress(Exception):
                self._ray.kill(self._timer)
            self._timer = None
        while self._slots:
            self._open_staff.dismiss(self._slots[-1])
        if self._nodes is not None:
            self._nodes.close()
        self._disconnect()
        self._disconnect = nothing  # a second close must not end the Ray of a later pool

    @property
    def _open_staff(self) -> Staff:
        assert self._staff is not None
        return self._staff

    def _outstanding(self) -> int:
        busy = sum(slot.task is not None for slot in self._slots)
        return len(self._queue) + busy + len(self._done)

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
            ready, _ = self._ray.wait(list(slots), timeout=timeout) if slots else ([], [])
            if ready:  # the rest too: the first of the list must not always go first
                ready, _ = self._ray.wait(list(slots), num_returns=len(slots), timeout=0)
        for answer in ready:
            if slots[answer] in self._slots:  # not dismissed meanwhile
                self._hear(slots[answer])
        with self._pulse.felt():
            for overdue in self._limits.overdue(self._slots):
                self._give_up(overdue)
            self._open_staff.fill()
            self._assign()
            if self._watch is not None:
                self._watch.look()

    def _hear(self, slot: Slot) -> None:
        try:
            with self._pulse.felt():
                answer = self._ray.get(slot.asked, timeout=_FETCH_SECONDS)
        except self._ray.exceptions.RayTaskError as error:
            # No job can raise here: what it was given, or returned, could not be pickled.
            cause, seconds = traced(error.cause, str(error)), time.monotonic() - slot.since
            self._take(slot, Report(None, describe(cause), str(error), seconds, cause))
        except self._ray.exceptions.RayError as error:
            death, task = death_of(error), slot.task
            self._open_staff.bury(slot, death)
            if task is not None:
                self._try_again(slot, task, death, str(error))
        else:
            if slot.stage == "hired":
                slot.name, slot.host, slot.node = answer
                slot.stage, slot.asked = "importing", slot.actor.fetch.remote(self._factory)
            elif slot.stage == "importing":
                slot.stage, slot.asked = "imported", None
                if self._context is not None:
                    self._load(slot)
            else:
                if slot.task is not None:
                    slot.note_memory(answer.memory_bytes, answer.free_bytes)
                self._take(slot, received(answer.message))

    def _load(self, slot: Slot) -> None:
        """Have a worker load what the context is."""
        slot.stage, slot.asked = "loading", slot.actor.start.remote(self._factory, self._context, self._timer)

    def _take(self, slot: Slot, report: Report) -> None:
        """What a worker says of its job, or of its start."""
        staff = self._open_staff
        if slot.task is None and report.error is not None:
            staff.dismiss(slot)
            staff.cannot_start(slot.node, report.error)
            return
        if slot.task is not None:
            self._done.append(outcome_of(slot.task, slot.name, report))
        staff.note_ready(slot)
        slot.stage, slot.asked, slot.task = "idle", None, None
        if slot.holds_too_much(self._memory_limit):
            staff.replace_leaking(slot)

    def _give_up(self, overdue: Overdue) -> None:
        """End a worker whose job does not end; the job fails."""
        slot, seconds = overdue.slot, time.monotonic() - overdue.slot.since
        assert slot.task is not None
        report = Report(None, f"TimedOut: {overdue.reason}", overdue.trace, seconds)
        self._done.append(outcome_of(slot.task, slot.name, report))
        self._open_staff.replace_overdue(slot, overdue.reason)

    def _try_again(self, slot: Slot, task: Queued, death: Death, trace: str) -> None:
        """Queue a job again whose worker died, unless that happened too often."""
        if death.kind in ("node", "preemption"):
            task.tries -= 1
            task.lost_nodes += death.kind == "node"
        most = MEMORY_TRIES if death.kind == "memory" else TRIES
        if task.tries < most and task.lost_nodes < 2 * TRIES:
            if task.tries == most - 1:
                task.job = lighter_of(task.job)
            self._queue.appendleft(task)
            return
        if death.kind == "memory":
            failure = f"OutOfMemory: tried {task.tries} times, {death.reason}: {MEMORY_CURE}"
        else:
            times = max(task.tries, task.lost_nodes)
            failure = f"WorkerDied: {times} workers died on this job, the last because {death.reason}"
        seconds = time.monotonic() - slot.since
        self._done.append(outcome_of(task, slot.name, Report(None, failure, trace, seconds)))


def _unheard(text: str) -> None:
    log.debug("%s", text)
