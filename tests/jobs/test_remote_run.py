"""A run as its storage root tells it, where no cluster answers; and a job's search whose driver is gone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoprune.cli.places import answered
from autoprune.core.errors import AutopruneError
from autoprune.jobs.cluster import Cluster, ClusterError, Job
from autoprune.jobs.lease import Driver, Lease, Sent
from autoprune.jobs.mirror import RUNS, Mirror
from autoprune.jobs.remote_run import RemoteRun
from autoprune.jobs.storage_root import StorageRoot
from tests.support.paths import ROOT

NAME, PLACE = "one", f"{RUNS}/one"


@pytest.fixture
def root(tmp_path: Path) -> StorageRoot:
    return StorageRoot(str(tmp_path / "root"))


def end_driver(root: StorageRoot, folder: Path, exit_code: int, last: str = "") -> None:
    lease = Lease(root, PLACE)
    lease.take(folder, watch_seconds=0)
    lease.end(exit_code, last)


@pytest.mark.parametrize(("code", "goes_on"), [(2, False), (3, False), (75, True), (143, True), (1, True)])
def test_what_is_refused_again_is_not_to_be_submitted_again(
    root: StorageRoot, tmp_path: Path, code: int, goes_on: bool
) -> None:
    end_driver(root, tmp_path / "jobs", code, "autoprune: why")
    now = RemoteRun(NAME, None, root).status()
    assert (now["state"], now["reason"], now["exit_code"]) == ("stopped", "autoprune: why", code)
    assert bool(now["next"]) is goes_on


def test_a_job_that_was_sent_and_never_began_is_told(root: StorageRoot, tmp_path: Path) -> None:
    Sent.note(root, PLACE, "one")
    assert Sent.read(root, PLACE) == Sent("one", 0)
    end_driver(root, tmp_path / "jobs", 143)
    assert RemoteRun(NAME, None, root).status()["state"] == "stopped"
    Sent.note(root, PLACE, "one.2")
    now = RemoteRun(NAME, None, root).status()
    assert (now["state"], now["reason"]) == ("gone", "job one.2 was sent and never began")
    assert now["next"]
    end_driver(root, tmp_path / "jobs", 143)  # it has begun after all
    assert RemoteRun(NAME, None, root).status()["state"] == "stopped"


def test_a_run_that_has_not_begun_is_not_fetched(root: StorageRoot, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("autoprune: no budget\n")
    end_driver(root, tmp_path / "jobs", 2)
    Mirror(root, NAME, tmp_path / "nowhere", log).copy()
    with pytest.raises(AutopruneError, match="run one has not begun"):
        RemoteRun(NAME, None, root).fetch(tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_a_cluster_that_fails_hands_over_to_the_root(
    root: StorageRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(cluster: Cluster | None) -> str:
        if cluster is not None:
            raise ClusterError("the cluster at X refused (500)")
        return "of the root"

    cluster = object.__new__(Cluster)
    assert answered(ask, cluster, root) == "of the root"
    assert "refused (500); what follows is of the storage root" in capsys.readouterr().err
    with pytest.raises(ClusterError):
        answered(ask, cluster, None)


def test_rays_words_are_told_without_its_log() -> None:
    text = "Job entrypoint command failed with exit code 137, last available logs (truncated to 20 chars):\nx"
    job = Job("a", "a", None, "FAILED", text, None, 137)
    assert job.reason == "Job entrypoint command failed with exit code 137"
    assert Job("a", "a", None, "FAILED", "", None, None).reason == ""


def test_a_record_that_is_damaged_is_named(root: StorageRoot) -> None:
    root.write_json(f"{PLACE}/.job/sent.json", {"job": "one"})
    with pytest.raises(AutopruneError, match=r"sent.json is damaged"):
        Sent.read(root, PLACE)
    assert Driver.read(root, PLACE) is None


CHILD = (
    "from autoprune.jobs.with_driver import end_with_parent; end_with_parent(); import time; time.sleep(60)"
)
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_search_ends_when_its_driver_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = Path("/proc") / parent.stdout.readline().strip()
    time.sleep(1.0)
    assert child.exists()
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while child.exists() and (child / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.1)
