"""Nodes that join, nodes where no worker can start, workers whose memory grows, and what is told of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster

from autoprune.core.errors import AutopruneError, BudgetError, StoppedError
from autoprune.workers import RayPool
from autoprune.workers.census import workers_line
from tests.support.ray_programs import bare_nodes

cloudpickle.register_pickle_by_value(sys.modules[__name__])

STORE = {"object_store_memory": 80_000_000}


def make(context: Mapping[str, Any]) -> Callable[[object], object]:
    """A worker that says where it is; on nodes in "bad" it cannot start."""
    node, kept = ray.get_runtime_context().get_node_id(), list[bytes]()
    if node in context.get("bad", ()) or context.get("bad") == "all":
        raise BudgetError("no disk here")

    def work(job: object) -> object:
        if job == "grow":
            kept.append(os.urandom(60_000_000))
        if job == "variables":
            return {name: value for name, value in os.environ.items() if name.startswith("AUTOPRUNE_")}
        time.sleep(0.05)
        return node

    return work


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without processors and two nodes of one."""
    assert not ray.is_initialized()
    bare_nodes()
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **STORE}
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1, **STORE)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def nodes_with_room() -> list[str]:
    return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def used(pool: RayPool, seconds: float = 15.0, *, until: int) -> set[str]:
    """The nodes that jobs were done on, until there are so many."""
    nodes, end = set[str](), time.monotonic() + seconds
    while len(nodes) < until and time.monotonic() < end:
        for key in range(pool.free):
            pool.submit(key, "where")
        while (outcome := pool.next()) is not None:
            assert outcome.failure is None
            nodes.add(str(outcome.result))
    return nodes


def test_a_node_where_no_worker_can_start_is_named_and_avoided(cluster: Cluster) -> None:
    bad, good = nodes_with_room()
    heard: list[str] = []
    with RayPool(make, {"bad": [bad]}, workers=2, address=cluster.address, tell=heard.append) as pool:
        assert used(pool, 3, until=2) == {good}
        census = pool.census().as_json()
    (why,) = census["avoided_nodes"].values()
    assert "BudgetError: no disk here" in why
    assert any("is avoided: BudgetError: no disk here" in text for text in heard)
    assert "avoided " in workers_line(census)


def test_what_fails_on_all_nodes_ends_it_and_names_one(cluster: Cluster) -> None:
    with pytest.raises(BudgetError, match="no disk here") as caught:
        RayPool(make, {"bad": "all"}, workers=2, address=cluster.address)
    assert caught.value.__notes__[0].startswith("on node ")


def test_workers_are_as_many_as_have_room_and_a_node_that_joins_is_used(cluster: Cluster) -> None:
    heard: list[str] = []
    with RayPool(make, {}, workers=None, address=cluster.address, tell=heard.append) as pool:
        assert len(used(pool, until=2)) == 2
        assert pool.size == 2
        cluster.add_node(num_cpus=1, **STORE)
        assert len(used(pool, 20, until=3)) == 3
        assert pool.size == 3
    assert any(text.endswith("has joined") for text in heard)


def test_a_worker_whose_memory_grows_is_replaced_and_its_memory_is_told(cluster: Cluster) -> None:
    heard: list[str] = []
    limits = {"tell": heard.append, "memory_limit_bytes": 200_000_000}
    with RayPool(make, {}, workers=1, address=cluster.address, **limits) as pool:  # type: ignore[arg-type]
        for key in range(4):
            pool.submit(key, "grow")
            outcome = pool.next()
            assert outcome is not None
            assert outcome.failure is None
        census = pool.census()
    assert (census.replaced, census.dead) == (1, 0)
    assert any("is replaced: it held" in text for text in heard)


def test_settings_reach_the_workers_and_a_password_does_not(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPRUNE_LIBRARY_LIMIT", "3GB")
    monkeypatch.setenv("AUTOPRUNE_STORAGE", "postgresql://me:secret@host/db")
    with RayPool(make, {}, workers=1, address=cluster.address) as pool:
        pool.submit(0, "variables")
        outcome = pool.next()
    assert outcome is not None
    assert outcome.result["AUTOPRUNE_LIBRARY_LIMIT"] == "3GB"
    assert "AUTOPRUNE_STORAGE" not in outcome.result


def test_no_room_now_is_resumable_and_no_room_ever_is_wrong_input(cluster: Cluster) -> None:
    with RayPool(make, {}, workers=len(nodes_with_room()), address=cluster.address) as full:
        used(full, until=len(nodes_with_room()))
        with pytest.raises(StoppedError, match=r"none found room in 1 s.*--wait"):
            RayPool(make, {}, workers=1, address=cluster.address, patience=1)
        with pytest.raises(AutopruneError, match="none found room") as caught:
            RayPool(make, {}, workers=1, cpus_per_worker=99, address=cluster.address, patience=1)
    assert caught.value.exit_code == AutopruneError.exit_code
