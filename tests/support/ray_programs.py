"""Programs that tests start with Python, which run a Ray until they are told to end."""

CLUSTER = """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
print(cluster.address, flush=True)
input()
cluster.shutdown()
"""
