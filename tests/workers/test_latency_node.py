"""Latency on a node of its own: who goes there, who keeps away, and what happens when it dies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster

from autoprune.core.errors import AutopruneError, BudgetError
from autoprune.workers import RayPool, open_pool
from autoprune.workers.latency_node import parse_label
from autoprune.workers.pool import Job, run_all
from tests.support.ray_programs import bare_nodes

cloudpickle.register_pickle_by_value(sys.modules[__name__])

EDGE = ("latency-node", "edge")


@dataclass(frozen=True)
class Limited(Job[object]):
    """A job that may work for so long."""

    limit_s: float


def make(context: Mapping[str, Any]) -> Callable[[object], object]:
    """A worker that says where it is and, asked to time, has it said by whoever times.

    With "only" in the context the one that times cannot start.
    """
    if "only" in context and "elsewhere" not in context:
        raise BudgetError(str(context["only"]))

    def work(job: object) -> object:
        if job == "time":
            return context["elsewhere"]("where")
        if isinstance(job, Limited):
            return context["elsewhere"]("slowly")
        if job == "slowly":
            time.sleep(5)
        if job == "time and fail":
            return context["elsewhere"]("fail")
        if job == "fail":
            raise BudgetError("no such kernel")
        return ray.get_runtime_context().get_node_id(), os.getpid(), "elsewhere" in context

    return work


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two nodes on this machine, the second with the label; its id."""
    assert not ray.is_initialized()
    bare_nodes()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=1, labels=dict([EDGE]))
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        yield next(node["NodeID"] for node in ray.nodes() if node["Labels"].get(EDGE[0]) == EDGE[1])
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def pool(cluster: str) -> Iterator[RayPool]:
    with RayPool(make, {}, workers=2, timer=EDGE) as made:
        yield made


def asked(pool: RayPool, *jobs: object) -> list[Any]:
    for key, job in enumerate(jobs):
        pool.submit(key, job)
    return [pool.next() for _ in jobs]


def test_a_label_is_a_value_or_a_name_and_a_value() -> None:
    for text in ("", "=", "=edge", "device="):
        with pytest.raises(AutopruneError, match="--latency-node"):
            parse_label(text)


def test_timing_goes_to_the_labelled_node_and_workers_keep_away(cluster: str, pool: RayPool) -> None:
    places = [answer.result for answer in asked(pool, "where", "where", "where", "where")]
    assert cluster not in {node for node, _, _ in places}
    assert all(has_timer for _, _, has_timer in places)
    timed = [answer.result for answer in asked(pool, "time", "time", "time")]
    assert {node for node, _, _ in timed} == {cluster}
    assert len({pid for _, pid, _ in timed}) == 1
    assert not any(has_timer for _, _, has_timer in timed)


def test_what_a_trial_waits_for_the_node_is_no_work_of_its_own(pool: RayPool) -> None:
    before = pool.census().overdue
    (outcome,) = asked(pool, Limited(limit_s=1.0))
    assert outcome.failure is None
    assert outcome.seconds > 4
    assert pool.census().overdue == before


def test_a_job_that_fails_there_fails_with_its_cause(pool: RayPool) -> None:
    (outcome,) = asked(pool, "time and fail")
    assert outcome.failure == "BudgetError: no such kernel (on the latency node)"


def test_an_error_there_keeps_its_class_where_all_jobs_must_succeed(pool: RayPool) -> None:
    with pytest.raises(BudgetError, match="no such kernel") as caught:
        run_all(pool, ["time and fail"], lambda *_: None)
    assert caught.value.__notes__ == ["on the latency node"]


def test_an_error_of_its_making_keeps_its_class(cluster: str) -> None:
    with pytest.raises(BudgetError, match="no such device") as caught:
        RayPool(make, {"only": "no such device"}, workers=1, cpus_per_worker=0, timer=EDGE)
    assert caught.value.__notes__ == ["on the latency node"]


def test_one_that_dies_is_started_again(cluster: str, pool: RayPool) -> None:
    (before,) = asked(pool, "time")
    os.kill(before.result[1], 9)
    time.sleep(0.5)
    (after,) = asked(pool, "time")
    assert after.failure is None
    assert after.result[0] == cluster
    assert after.result[1] != before.result[1]


def test_a_label_that_no_node_has_is_said_at_once(cluster: str) -> None:
    with pytest.raises(
        AutopruneError, match=r"none of the cluster's 2 nodes has the label latency-node=pi"
    ) as e:
        RayPool(make, {}, workers=1, timer=("latency-node", "pi"))
    assert "there is latency-node=edge" in str(e.value)


def test_without_workers_there_is_no_node_to_choose() -> None:
    with pytest.raises(AutopruneError, match="--workers 1 or more"):
        open_pool(make, {}, workers=0, timer=EDGE)
