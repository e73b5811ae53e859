"""A Ray cluster of small nodes on this machine, in a process that is told what to do line by line.

`add` [LABEL] starts a node of one worker, `kill N` ends the N-th node as by a power cut, `head` ends the
head's own process (GCS), `raylet` that of the head's node. Each answers with a line once it is done.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

STORE_BYTES = 80_000_000
"""Of a node's objects, at least 78 MB."""


@dataclass(frozen=True)
class ToyCluster:
    """A cluster that runs. address: HOST:PORT of its head, which has no worker."""

    address: str
    process: subprocess.Popen[str]

    def do(self, words: str) -> str:
        """Have a line done; what is answered."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextmanager
def toy_cluster(nodes: int, *, head_cpus: int = 0) -> Iterator[ToyCluster]:
    """A cluster with a head and so many nodes of one worker each."""
    command = [sys.executable, "-m", "tests.support.toy_cluster", str(nodes), str(head_cpus)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout
        address = process.stdout.readline().strip()
        assert address, "the cluster did not start"
        yield ToyCluster(address, process)
    finally:
        assert process.stdin
        process.stdin.close()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


def patiently(start: Callable[[], Any]) -> Any:
    """What is started; a busy machine may take longer than the 30 s that Ray gives a node."""
    for _ in range(5):
        try:
            return start()
        except Exception as error:
            print(error, file=sys.stderr)
    return start()


def main(nodes: int, head_cpus: int) -> None:
    from ray.cluster_utils import Cluster

    from tests.support.ray_programs import bare_nodes

    bare_nodes()
    store = {"object_store_memory": STORE_BYTES}
    head = {"num_cpus": head_cpus, "include_dashboard": False, **store}
    cluster: Any = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
    added = [patiently(lambda: cluster.add_node(num_cpus=1, **store)) for _ in range(nodes)]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        verb, *rest = line.split()
        if verb == "add":
            labels = {"labels": {"latency-node": rest[0]}} if rest else {}
            added.append(patiently(lambda chosen=labels: cluster.add_node(num_cpus=1, **store, **chosen)))
            print(len(added) - 1, flush=True)
        elif verb == "kill":
            cluster.remove_node(added[int(rest[0])], allow_graceful=False)
            print("killed", flush=True)
        elif verb == "head":
            cluster.head_node.kill_gcs_server(check_alive=False)
            print("killed", flush=True)
        elif verb == "raylet":
            cluster.head_node.kill_raylet(check_alive=False)
            print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
