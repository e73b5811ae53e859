"""The nodes of the Ray that was joined: which are there, which are lost, and how many workers have room."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

_LOOK_SECONDS = 3.0  # between two looks at the cluster's nodes

NODE_LABEL = "ray.io/node-id"
"""The label that Ray itself gives each node."""


class _Seen(NamedTuple):
    """What the head has answered."""

    nodes: Sequence[Any]
    free: Mapping[str, float]


@dataclass(frozen=True)
class Share:
    """What a worker asks for."""

    cpus: float
    gpus: float

    def room(self, resources: Mapping[str, float]) -> int:
        """How many workers fit.

        >>> Share(1, 0).room({"CPU": 4.0}), Share(2, 0.5).room({"CPU": 5.0, "GPU": 1.0}), Share(0, 1).room({})
        (4, 2, 0)
        """
        asked = {"CPU": self.cpus, "GPU": self.gpus}
        fits = [math.floor(resources.get(name, 0.0) / need + 1e-9) for name, need in asked.items() if need]
        return min(fits, default=1)


class ClusterNodes:
    """What is known of a cluster's nodes.

    The head is asked in a thread: who asks one that is lost waits for ever. label: of the node that workers
    keep away from. tell: hears of nodes that are lost or join.
    """

    def __init__(self, ray: Any, label: tuple[str, str] | None, tell: Callable[[str], None]) -> None:
        self._ray, self._label, self._tell = ray, label, tell
        self._alive: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._free: Mapping[str, float] = {}
        self.lost: dict[str, str] = {}
        self.avoided: dict[str, str] = {}
        self._is_closed = threading.Event()
        self._seen: _Seen | None = _Seen(ray.nodes(), ray.available_resources())
        self.look()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        while not self._is_closed.wait(_LOOK_SECONDS):
            with suppress(Exception):  # the Ray is lost, which its pulse tells
                self._seen = _Seen(self._ray.nodes(), self._ray.available_resources())

    def close(self) -> None:
        """Ask no more; before the Ray is left."""
        self._is_closed.set()
        self._thread.join(timeout=1.0)

    def look(self) -> None:
        """Take note of what the head has last answered."""
        seen, self._seen = self._seen, None
        if seen is None:
            return
        is_first, before = not self._names, self._alive
        self._alive = {node["NodeID"]: node for node in seen.nodes if node["Alive"]}
        self._names |= {node["NodeID"]: _name_of(node) for node in seen.nodes}
        self._free = seen.free
        for node in before.keys() - self._alive.keys():
            self.lost[node] = self._names[node]
            self._tell(f"node {self._names[node]} is lost; {len(self._alive)} of the cluster are left")
        for node in self._alive.keys() - before.keys() if not is_first else ():
            self._tell(f"node {self._names[node]} has joined")

    def resources(self) -> str:
        """What the cluster has, and what of that is free."""
        cpus, gpus = (
            sum(node["Resources"].get(name, 0.0) for node in self._alive.values()) for name in ("CPU", "GPU")
        )
        free = self._free
        return (
            f"The cluster has {cpus:g} CPU and {gpus:g} GPU, of which {free.get('CPU', 0):g} and "
            f"{free.get('GPU', 0):g} are free."
        )

    def name(self, node: str) -> str:
        """A node in words, by its id."""
        return self._names.get(node) or (f"{node[:12]}" if node else "that is not known")

    def is_alive(self, node: str) -> bool:
        return node in self._alive

    def avoid(self, node: str, why: str) -> None:
        """Start no more workers on a node."""
        if node and node not in self.avoided:
            self.avoided[node] = why
            self._tell(f"node {self.name(node)} is avoided: {why}")

    def usable(self) -> list[Any]:
        """The nodes that workers may be on."""
        return [n for node, n in self._alive.items() if node not in self.avoided and not self._times(n)]

    def room(self, share: Share) -> int:
        """How many workers of a share the nodes can have, if nobody else uses them."""
        return sum(share.room(node["Resources"]) for node in self.usable())

    def has_large_enough(self, share: Share) -> bool:
        """Whether one of the nodes is large enough for a worker."""
        return any(share.room(node["Resources"]) for node in self.usable())

    def gpus(self) -> float:
        """GPUs of the nodes that workers may be on."""
        return sum(float(node["Resources"].get("GPU", 0.0)) for node in self.usable())

    def selector(self) -> dict[str, str]:
        """The labels that say to Ray where no worker may go."""
        away = {} if self._label is None else {self._label[0]: f"!{self._label[1]}"}
        ids = sorted(node for node in self.avoided if node in self._alive)
        return away | ({NODE_LABEL: f"!in({','.join(ids)})"} if ids else {})

    def of_actor(self, actor: Any) -> str:
        """The id of the node where Ray has put an actor, alive or dead; "" where that is not known."""
        answers: list[str] = []

        def ask() -> None:
            with suppress(Exception):  # not with ray://
                from ray._private.state import state

                answers.append(state.actor_table(actor._actor_id.hex())["Address"]["NodeID"])

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(timeout=5.0)
        return answers[0] if answers and answers[0] in self._names else ""

    def _times(self, node: Mapping[str, Any]) -> bool:
        """Whether latency is timed there, and nothing else done."""
        return self._label is not None and node["Labels"].get(self._label[0]) == self._label[1]


def _name_of(node: Mapping[str, Any]) -> str:
    """The address of a node, with the name of its machine where that is another."""
    host, address = node.get("NodeManagerHostname", ""), node.get("NodeManagerAddress", "")
    return f"{address} ({host})" if host and host != address else str(address or host)
