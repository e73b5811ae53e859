"""Workers: processes that evaluate candidates, behind one small contract (`pool.Pool`).

`SerialPool` runs jobs in this process, `RayPool` in processes of a local Ray or of a cluster, whose workers
`ray_staff` hires and replaces. `census` says what they do.
`machine_lock` lets one worker time alone while the others wait, `latency_node` times on another machine.
`work_clock` tells work from waiting, and `job_limits` which job has worked for too long.
The only package that touches Ray, and it imports Ray when a pool is opened. Imports `core`. Begin with
`pool`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autoprune.core.errors import AutopruneError
from autoprune.workers.latency_node import AWAY_SECONDS
from autoprune.workers.pool import Factory, Job, Outcome, Pool, SerialPool
from autoprune.workers.ray_address import cluster_asked_for
from autoprune.workers.ray_pool import ROOM_SECONDS, RayPool
from autoprune.workers.ray_staff import TRIES

__all__ = [
    "TRIES", "Factory", "Job", "Outcome", "Pool", "RayPool", "SerialPool", "cluster_asked_for", "open_pool",
]  # fmt: skip


def open_pool(
    factory: Factory,
    context: Mapping[str, object] | None = None,
    *,
    workers: int | None,
    gpus_per_worker: float | None = 0,
    cpus_per_worker: float = 1,
    address: str | None = None,
    timer: tuple[str, str] | None = None,
    tell: Callable[[str], None] | None = None,
    wait: float | None = None,
) -> Pool:
    """A SerialPool for `workers` 0, else a RayPool, which says what the arguments mean.

    wait: seconds to wait for room, and for a latency node that is away; None as a RayPool does.
    """
    if workers == 0:
        if timer is not None:
            raise AutopruneError("a latency node needs workers: give --workers 1 or more")
        return SerialPool(factory, context)
    return RayPool(
        factory,
        context,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        address=address,
        timer=timer,
        tell=tell,
        patience=ROOM_SECONDS if wait is None else wait,
        away_limit=AWAY_SECONDS if wait is None else wait,
    )
