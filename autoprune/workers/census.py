"""A pool's workers at a moment: what each does, where, with how much memory, and which nodes are lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

State = Literal["waiting", "loading", "idle", "training"]
"""A worker without room, one that loads model and data, one without a job, one with a job."""

STATES: tuple[State, ...] = ("training", "idle", "loading", "waiting")

LISTED = 64
"""Workers that are listed one by one; of more there is a line a host."""


@dataclass(frozen=True)
class WorkerState:
    """One worker. memory_bytes: what its process alone held after its last job, 0 before."""

    name: str
    host: str
    state: State
    memory_bytes: int = 0


@dataclass(frozen=True)
class Census:
    """All workers of a pool.

    dead: workers that died since it was opened. replaced: those that held too much memory. overdue: those
    that were ended since their job did not end. lost_nodes: in words. avoided_nodes: why no worker is started
    on them, by node. latency_node: what is wrong with it.
    """

    workers: tuple[WorkerState, ...] = ()
    dead: int = 0
    replaced: int = 0
    overdue: int = 0
    lost_nodes: tuple[str, ...] = ()
    avoided_nodes: Mapping[str, str] = field(default_factory=dict)
    latency_node: str = ""

    def as_json(self) -> dict[str, Any]:
        """What `status.json` has under "workers"."""
        counted = Counter(worker.state for worker in self.workers)
        return {
            **{state: counted[state] for state in STATES},
            "dead": self.dead,
            "replaced": self.replaced,
            "overdue": self.overdue,
            "memory_bytes": sum(worker.memory_bytes for worker in self.workers),
            "most_memory_bytes": max((worker.memory_bytes for worker in self.workers), default=0),
            "hosts": _by_host(self.workers),
            "each": _each(self.workers) if len(self.workers) <= LISTED else [],
            "lost_nodes": list(self.lost_nodes),
            "avoided_nodes": dict(self.avoided_nodes),
            "latency_node": self.latency_node,
        }


def _each(workers: Sequence[WorkerState]) -> list[dict[str, Any]]:
    return [vars(worker) for worker in workers]


def _by_host(workers: Sequence[WorkerState]) -> dict[str, dict[str, int]]:
    """Workers by state, and their memory, of each host that is known."""
    hosts: dict[str, dict[str, int]] = {}
    for worker in workers:
        if worker.host:
            host = hosts.setdefault(worker.host, dict.fromkeys([*STATES, "memory_bytes"], 0))
            host[worker.state] += 1
            host["memory_bytes"] += worker.memory_bytes
    return hosts


def workers_line(told: Mapping[str, Any]) -> str:
    """The workers of a status in a line; `told` is of `Census.as_json`, {} of versions that wrote none.

    >>> workers_line({"training": 2, "waiting": 1, "dead": 3, "hosts": {"a": {}, "b": {}},
    ...               "most_memory_bytes": 2_100_000_000, "lost_nodes": ["10.0.0.3 (b)"]})
    'workers 2 training, 1 waiting for room, 3 died; on a, b; 2.1 GB at most; lost 10.0.0.3 (b)'
    """
    words = {
        "waiting": "waiting for room", "dead": "died", "replaced": "replaced for their memory",
        "overdue": "ended as their trial did not",
    }  # fmt: skip
    names = dict.fromkeys([*STATES, *words])
    counts = [f"{told[name]} {words.get(name, name)}" for name in names if told.get(name)]
    if not counts:
        return ""
    hosts = sorted(told.get("hosts", ()))
    where = ", ".join(hosts) if len(hosts) <= 4 else f"{len(hosts)} hosts"
    most = told.get("most_memory_bytes", 0)
    avoided = [f"{node} ({why})" for node, why in told.get("avoided_nodes", {}).items()]
    parts = [
        "workers " + ", ".join(counts),
        f"on {where}" if where else "",
        f"{most / 1e9:.1f} GB at most" if most else "",
        f"lost {', '.join(told['lost_nodes'])}" if told.get("lost_nodes") else "",
        f"avoided {', '.join(avoided)}" if avoided else "",
        str(told.get("latency_node", "")),
    ]
    return "; ".join(filter(None, parts))


def own_memory_bytes() -> int:
    """Memory that this process alone holds, without a Ray's object store, which it shares; 0 if unknown."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:"))) * 1024
    except (OSError, ValueError, IndexError):
        return 0
