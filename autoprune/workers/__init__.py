"""Workers: processes that evaluate candidates, behind one small contract (`pool.Pool`).

`SerialPool` runs jobs in this process, `RayPool` in processes of a local Ray or of a cluster.
`machine_lock` lets one worker time alone while the others wait, `latency_node` times on another machine.
The only package that touches Ray, and it imports Ray when a pool is opened. Imports `core`. Begin with
`pool`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autoprune.core.errors import AutopruneError
from autoprune.workers.pool import Factory, Job, Outcome, Pool, SerialPool
from autoprune.workers.ray_address import cluster_asked_for
from autoprune.workers.ray_pool import TRIES, RayPool

__all__ = [
    "TRIES", "Factory", "Job", "Outcome", "Pool", "RayPool", "SerialPool", "cluster_asked_for", "open_pool",
]  # fmt: skip


def open_pool(
    factory: Factory,
    context: Mapping[str, object] | None = None,
    *,
    workers: int,
    gpus_per_worker: float = 0,
    cpus_per_worker: float = 1,
    address: str | None = None,
    timer: tuple[str, str] | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Pool:
    """A SerialPool for `workers` 0, else a RayPool, which says what the arguments mean."""
    if workers == 0:
        if timer is not None:
            raise AutopruneError("a latency node needs workers: give --workers 1 or more")
        return SerialPool(factory, context)
    share = {"cpus_per_worker": cpus_per_worker, "gpus_per_worker": gpus_per_worker}
    return RayPool(factory, context, workers=workers, address=address, timer=timer, on_wait=on_wait, **share)
