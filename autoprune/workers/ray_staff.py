"""The workers of a pool in a Ray: hired where there is room, dismissed, kept away from nodes that are bad."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError, StoppedError
from autoprune.workers.census import Census
from autoprune.workers.cluster_nodes import ClusterNodes, Share
from autoprune.workers.pool import Factory, describe
from autoprune.workers.ray_worker import CLOCK_GROUP, MEMORY_CURE, Death, RayWorker, Slot

TRIES = 3  # of a job whose worker dies, and of a worker that dies while it starts
BAD_NODES = 3  # that cannot start a worker, where none can: the fault is not the nodes'
_FIRST_WORD_SECONDS, _NEXT_WORD_SECONDS = 15.0, 15.0  # when `tell` hears that no worker has found room
GPU_SHARE = "AUTOPRUNE_GPU_SHARE"
"""The variable that tells a worker which part of a GPU is its own."""

_NOT_SENT = ("AUTOPRUNE_STORAGE",)  # a password may be in it, and Ray shows variables to who looks


class Staff:
    """The workers, their places, and what became of those before.

    most: workers at most; None for as many as the nodes have room for. is_local: whether the Ray is this
    process's own. tell: hears what happens in lines. patience: seconds that no worker may have room.
    """

    def __init__(
        self,
        ray: Any,
        factory: Factory,
        nodes: ClusterNodes,
        share: Share,
        *,
        most: int | None,
        is_local: bool,
        tell: Callable[[str], None],
        patience: float,
    ) -> None:
        self._ray, self._factory, self._nodes, self._share = ray, factory, nodes, share
        self._most, self._is_local, self._tell, self._patience = most, is_local, tell, patience
        # once: a head that is lost would be waited for
        self._class = ray.remote(concurrency_groups={CLOCK_GROUP: 1})(RayWorker)
        self.slots: list[Slot] = []
        self._dead = self._replaced = self._overdue = 0
        self._is_proven = False  # whether any worker was ever ready
        self._losses: Counter[str] = Counter()  # of workers in a row, by node
        self._had_room, self._told = (
            time.monotonic(),
            -math.inf,
        )  # when a worker last had room, and a word was said

    @property
    def size(self) -> int:
        """Workers that have room, at least one."""
        return max(1, sum(slot.stage != "hired" for slot in self.slots))

    def census(self, latency_node: str) -> Census:
        """What the workers do; latency_node: what is wrong with it."""
        states = tuple(slot.state() for slot in self.slots)
        lost = tuple(self._nodes.lost.values())
        avoided = {self._nodes.name(node): why for node, why in self._nodes.avoided.items()}
        return Census(states, self._dead, self._replaced, self._overdue, lost, avoided, latency_node)

    # ---- workers come ----------------------------------------------------------------------------

    def fill(self) -> None:
        """Have as many workers as are wanted; those too many go, if they have no room yet.

        Raises:
            AutopruneError, StoppedError: when none has had room for too long.
        """
        self._nodes.look()
        wanted = max(1, self._nodes.room(self._share)) if self._most is None else self._most
        while len(self.slots) < wanted:
            self.slots.append(self._hire())
        waiting = [slot for slot in self.slots if slot.stage == "hired"]
        for slot in waiting[: len(self.slots) - wanted]:
            self.dismiss(slot)
        if len(waiting) < len(self.slots):
            self._had_room = time.monotonic()
        else:
            self._check_patience()

    def _hire(self) -> Slot:
        away = self._nodes.selector()
        # No max_restarts: the pool replaces a worker, it knows what the worker was doing.
        options = self.options(**({"label_selector": away} if away else {}))
        actor = self._class.options(**options).remote()
        return Slot(actor, actor.hello.remote(), since=time.monotonic())

    def options(self, **more: object) -> dict[str, Any]:
        """What a worker's process asks of Ray."""
        threads = str(max(1, int(self._share.cpus)))
        ours = {k: v for k, v in os.environ.items() if k.startswith("AUTOPRUNE_") and k not in _NOT_SENT}
        variables = {**ours, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"}
        if self._is_local:  # Ray hands on the working directory, but not all of sys.path
            paths = (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", ""))
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        if self._share.gpus == 0:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        variables[GPU_SHARE] = str(min(1.0, self._share.gpus) or 1.0)
        share = {"num_cpus": self._share.cpus, "num_gpus": self._share.gpus}
        return {**share, "runtime_env": {"env_vars": variables}, **more}

    def note_ready(self, slot: Slot) -> None:
        """A worker has loaded what it needs, or has done a job."""
        self._is_proven = True
        self._losses[slot.node] = 0

    # ---- workers go ------------------------------------------------------------------------------

    def dismiss(self, slot: Slot) -> None:
        """End a worker; another takes its place at the next `fill`."""
        with suppress(Exception):  # "unavailable" may mean alive but out of reach, and the Ray may be lost
            self._ray.kill(slot.actor)
        self.slots.remove(slot)

    def replace_leaking(self, slot: Slot) -> None:
        """End a worker that holds too much memory."""
        grown = f"{slot.memory_bytes / 1e9:.1f} GB, {slot.first_bytes / 1e9:.1f} after its first jobs"
        self._tell(f"worker {slot.name} is replaced: it held {grown}")
        self._replaced += 1
        self.dismiss(slot)

    def replace_overdue(self, slot: Slot, reason: str) -> None:
        """End a worker whose job does not end."""
        self._tell(f"worker {slot.name} is replaced: {reason}")
        self._overdue += 1
        self.dismiss(slot)

    def bury(self, slot: Slot, death: Death) -> None:
        """Let a worker go that died, and avoid its node where workers die again and again.

        Raises:
            AutopruneError: when workers die while they start, and there is no other node to start them on.
        """
        self._dead += 1
        node = slot.node or self._nodes.of_actor(slot.actor)
        self.dismiss(slot)
        name = f"worker {slot.name}" if slot.name else f"a worker on node {self._nodes.name(node)}"
        self._tell(f"{name} died: {death.reason}")
        if death.kind in ("node", "preemption"):
            return
        self._losses[node] += 1
        if slot.task is not None:
            if self._losses[node] > TRIES and len(self._nodes.usable()) > 1:
                self._nodes.avoid(node, f"{self._losses[node]} workers in a row died: {death.reason}")
        elif death.kind == "never started":
            self.cannot_start(node, AutopruneError(f"a worker could not start: {death.reason}"))
        elif self._losses[node] >= TRIES:
            text = f"a worker died {TRIES} times while it started: {death.reason}"
            is_full = death.kind == "memory"
            error = StoppedError(f"{text}: {MEMORY_CURE}") if is_full else AutopruneError(text)
            self.cannot_start(node, error)

    def cannot_start(self, node: str, error: Exception) -> None:
        """Avoid a node where a worker cannot start; raise its error where none can anywhere."""
        self._nodes.avoid(node, describe(error)[:300])
        if not self._is_local:
            error.add_note(f"on node {self._nodes.name(node)}")
        is_common = not self._is_proven and len(self._nodes.avoided) >= BAD_NODES
        if not node or is_common or not self._nodes.has_large_enough(self._share):
            raise error
        for slot in [slot for slot in self.slots if slot.stage == "hired"]:
            self.dismiss(slot)  # it might be put there

    def _check_patience(self) -> None:
        now = time.monotonic()
        waited = now - self._had_room
        is_silent = waited < _FIRST_WORD_SECONDS or now - self._told < _NEXT_WORD_SECONDS
        if waited < self._patience and is_silent:
            return
        self._told = now
        text = (
            f"{len(self.slots)} workers ask for {self._share.cpus:g} CPU and {self._share.gpus:g} GPU each, "
            f"and none found room in {waited:.0f} s. {self._nodes.resources()}"
        )
        if waited >= self._patience:
            kind = StoppedError if self._nodes.has_large_enough(self._share) else AutopruneError
            raise kind(f"{text} Ask for less for each worker, or add a node, or wait for longer (--wait).")
        self._tell(text)
