"""What a status says of workers: counted, by host, with their memory, in one line."""

from __future__ import annotations

import json
from pathlib import Path

from autoprune.run.config import Config
from autoprune.run.folder import STATUS, RunFolder
from autoprune.run.status import read_status, status_line
from autoprune.workers import SerialPool
from autoprune.workers.census import LISTED, Census, WorkerState, own_memory_bytes, workers_line

CENSUS = Census(
    (
        WorkerState("a:1", "a", "training", 2_000_000_000),
        WorkerState("a:2", "a", "loading"),
        WorkerState("b:1", "b", "training", 500_000_000),
        WorkerState("", "", "waiting"),
    ),
    dead=2,
    overdue=3,
    lost_nodes=("10.0.0.3 (c)",),
    avoided_nodes={"10.0.0.4 (d)": "ModuleNotFoundError: No module named 'mine'"},
    latency_node="the latency node is away (its process does not answer)",
)


def test_workers_are_counted_by_state_and_host() -> None:
    told = CENSUS.as_json()
    counts = [
        told[name] for name in ("training", "idle", "loading", "waiting", "dead", "replaced", "overdue")
    ]
    assert counts == [2, 0, 1, 1, 2, 0, 3]
    assert told["hosts"]["a"] == {
        "training": 1, "idle": 0, "loading": 1, "waiting": 0, "memory_bytes": 2_000_000_000
    }  # fmt: skip
    assert (told["memory_bytes"], told["most_memory_bytes"]) == (2_500_000_000, 2_000_000_000)
    assert len(told["each"]) == 4


def test_of_a_thousand_workers_a_status_has_the_hosts_alone() -> None:
    many = Census(tuple(WorkerState(f"{k % 9}:{k}", f"host-{k % 9}", "training", k) for k in range(1000)))
    told = many.as_json()
    assert (told["each"], len(told["hosts"]), told["training"]) == ([], 9, 1000)
    assert LISTED < 1000
    assert "on 9 hosts" in workers_line(told)


def test_a_status_tells_what_the_workers_do_while_it_runs(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", Config(), "autoprune search")
    try:
        run.workers = CENSUS.as_json
        run.status("running", trials=3, planned=9)
        now = read_status(run.path)
        line = status_line(run.path, now)
        run.workers = Census((WorkerState("a:1", "a", "idle"),)).as_json
        run.status_again()
        again = json.loads((run.path / STATUS).read_text(encoding="utf-8"))
        run.status("finished", trials=9, planned=9)
        after = status_line(run.path, read_status(run.path))
    finally:
        run.close()
    assert now["workers"] == CENSUS.as_json()
    assert "; workers 2 training, 1 loading, 1 waiting for room, 2 died, 3 ended as their trial " in line
    assert " as their trial did not; on a, b; 2.0 GB at most; " in line
    for words in ("lost 10.0.0.3 (c)", "avoided 10.0.0.4 (d) (ModuleNotFoundError", "latency node is away"):
        assert words in line
    assert (again["trials"], again["workers"]["idle"], again["workers"]["training"]) == (3, 1, 0)
    assert "workers" not in after


def test_a_process_holds_some_memory() -> None:
    before, taken = own_memory_bytes(), bytearray(b"x" * 50_000_000)
    assert own_memory_bytes() - before > 40_000_000
    assert len(taken) == 50_000_000


def test_a_worker_in_this_process_trains_between_two_jobs_too() -> None:
    """A status is written when a job has ended: the next one follows at once."""
    with SerialPool(lambda context: lambda job: job, {}) as pool:
        assert pool.census().as_json()["idle"] == 1
        pool.submit(0, 1)
        assert pool.next() is not None
        assert pool.census().as_json()["training"] == 1
    assert pool.census().as_json()["idle"] == 1
