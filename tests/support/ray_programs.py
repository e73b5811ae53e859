"""Programs that tests start with Python, which run a Ray until they are told to end, and bare nodes."""

from typing import Any

CLUSTER = """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
print(cluster.address, flush=True)
input()
cluster.shutdown()
"""


def bare_nodes() -> None:
    """From now on nodes that this process starts have no autoscaler, reader of logs or server of pages.

    No test of such a cluster asks them anything, and they are a third of the time that a node's start takes.
    """
    from ray._private import node

    made: Any = node.Node
    for name in ("start_monitor", "start_log_monitor", "start_api_server"):
        setattr(made, name, lambda *_, **__: None)
