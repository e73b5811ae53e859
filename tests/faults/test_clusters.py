"""Workers, nodes and heads of a Ray that are lost, memory that is used up: the search goes on or says why.

`python -m benchmarks.faults` does the same in volume.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import fault_scenarios as faults

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.parametrize("what", ["head", "raylet"])
def test_a_driver_whose_cluster_is_lost_ends_and_goes_on_on_another(tmp_path: Path, what: str) -> None:
    figures = faults.cluster_lost(tmp_path / "run", what, "--grace", 2)
    assert (figures["code"], figures["state"], figures["resumed_code"]) == (75, "stopped", 0), figures
    assert (figures["lost"], figures["running"]) == (0, 0)
    assert figures["seconds"] <= 60
    assert "is lost" in figures["said"]
    assert figures["next"].startswith("autoprune resume ")


def test_trials_wait_for_a_latency_node_that_is_away_and_go_on_once_it_is_back(tmp_path: Path) -> None:
    figures = faults.latency_node_lost(tmp_path / "run", wait=120, away=1)
    assert (figures["code"], figures["failed"]) == (143, 0), figures
    assert (figures["lost"], figures["running"]) == (0, 0)


def test_a_latency_node_that_stays_away_costs_no_trial_and_ends_the_search(tmp_path: Path) -> None:
    figures = faults.latency_node_lost(tmp_path / "run", wait=15, away=None)
    assert (figures["code"], figures["state"], figures["failed"]) == (75, "stopped", 0), figures
    assert (figures["lost"], figures["running"]) == (0, 0)
    assert "the latency node (latency-node=edge) was away for" in figures["said"]
    assert "ray start --address HOST:PORT --labels latency-node=edge" in figures["said"]


def test_a_node_that_is_lost_costs_one_attempt_and_one_that_joins_is_used(tmp_path: Path) -> None:
    figures = faults.nodes_killed(tmp_path / "run", seconds=1, every=1)
    assert (figures["kills"], figures["code"], figures["lost"], figures["running"]) == (1, 143, 0, 0), figures
    assert figures["attempts_lost"] <= 1


def test_a_worker_that_is_killed_costs_one_attempt(tmp_path: Path) -> None:
    figures = faults.workers_killed(tmp_path / "run", seconds=1, every=1)
    assert (figures["dead"], figures["code"], figures["lost"], figures["running"]) == (1, 143, 0, 0), figures
    assert figures["attempts_lost"] <= 1


def test_trials_that_never_end_fail_with_that_cause_and_others_go_on(tmp_path: Path) -> None:
    figures = faults.trials_hang(tmp_path / "run", "loop,,lock,", trials=8)
    assert (figures["code"], figures["causes"]) == (0, ["TimedOut"]), figures
    assert (figures["states"], figures["failed"]) == ({"COMPLETE": 4, "FAIL": 4}, 4)
    assert (figures["overdue"], figures["dead"]) == (4, 0)


def test_memory_that_is_used_up_is_tried_with_half_and_then_told(tmp_path: Path) -> None:
    figures = faults.memory_used_up(tmp_path / "run")
    assert figures["code"] == 0, figures
    assert (figures["causes"], figures["tries"]) == (["OutOfMemory"], ["heavy", "light"])
