"""Before anything is sent: whether a cluster has what a search needs, a line for each, with its cure."""

from __future__ import annotations

import json
import platform
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.jobs.cluster import Cluster, Job
from autoprune.jobs.probe import MARK, MOST_NODES, NODE_SECONDS, PROBES, own_version
from autoprune.jobs.storage_root import StorageRoot
from autoprune.run.config import WorkerSettings

_PROBE_SECONDS = 180.0
_SILENT = "no answer"


@dataclass(frozen=True)
class Check:
    """A line of the preflight. cure: what to do where it fails; "" where it does not."""

    name: str
    told: str
    cure: str = ""

    def line(self) -> str:
        """As it is printed.

        >>> Check("Ray", "2.50.0 there, 2.60.0 here").line()
        'Ray       2.50.0 there, 2.60.0 here'
        """
        return f"{self.name:<10}{self.told}" + (f": {self.cure}" if self.cure else "")


def preflight(
    cluster: Cluster,
    root: StorageRoot,
    workers: WorkerSettings,
    label: tuple[str, str] | None,
    *,
    asked: bool,
) -> list[Check]:
    """What the cluster says of itself, by a job that takes some seconds.

    Args:
        label: of the latency node, where one is asked for.
        asked: whether the user said how many workers there shall be.
    """
    nonce = uuid.uuid4().hex[:12]
    root.write(f"{PROBES}/{nonce}", b"written by whoever submits\n")
    try:
        job = _probed(cluster, root, nonce)
        text = cluster.log(job.id)
    finally:
        root.remove(f"{PROBES}/{nonce}")
    answer = next((line for line in text.splitlines() if line.startswith(MARK)), None)
    if answer is None:
        return [_no_answer(job, text)]
    told = json.loads(answer.removeprefix(MARK))
    checks = [*versions(told), _room(told["nodes"], workers, asked=asked), _storage(told, root)]
    if label is not None:
        checks.append(_label(told["nodes"], label))
    return checks


def _probed(cluster: Cluster, root: StorageRoot, nonce: str) -> Job:
    import shlex

    words = ["python", "-m", "autoprune.jobs.probe", "--root", root.address, "--nonce", nonce]
    id = f"autoprune-probe-{nonce}"
    cluster.submit(id, shlex.join(words), {}, {})
    job = cluster.wait(id, _PROBE_SECONDS)
    if not job.is_over:
        cluster.stop(id)
        raise AutopruneError(
            f"the cluster at {cluster.address} started no job in {_PROBE_SECONDS:.0f} s ({job.message}): see "
            "whether its head is well (ray status), or leave this look out with --no-preflight"
        )
    return job


def _no_answer(job: Job, text: str) -> Check:
    lines = [line for line in text.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else job.message[:300]
    if "No module named" in text or "not found" in text:
        cure = (
            f"start Ray on its head from an environment whose `python` has autoprune {own_version()} "
            "(pip install 'autoprune[cluster]')"
        )
    else:
        cure = "see what Ray says of the job, or leave this look out with --no-preflight"
    return Check("Head", f"the probe ended with {job.exit_code} ({last})", cure)


def versions(told: Mapping[str, Any]) -> list[Check]:
    """Lines on the versions that the head and the nodes tell (`probe`)."""
    import importlib.metadata

    here = importlib.metadata.version("ray")
    checks = [
        Check("Ray", f"{told['ray']} there, {here} here"),
        Check("Python", f"{told['head']['python']} there, {platform.python_version()} here"),
    ]
    found: dict[str, list[str]] = {}
    for node in told["nodes"][:MOST_NODES]:
        version = node.get("autoprune") or f"none ({node.get('error', _SILENT)})"
        found.setdefault(_SILENT if node.get("silent") else version, []).append(node["name"])
    text = "; ".join(f"{version} on {', '.join(names)}" for version, names in found.items())
    silent = found.pop(_SILENT, [])
    wrong = [name for version, names in found.items() if version != own_version() for name in names]
    cures = [f"install autoprune {own_version()}, which is here, on {', '.join(wrong)}"] if wrong else []
    if silent:
        cures.append(
            f"try again when {', '.join(silent)} can start a process within {NODE_SECONDS:.0f} s, or leave "
            "this out with --no-preflight"
        )
    return [*checks, Check("autoprune", text, "; ".join(cures))]


def _room(nodes: list[Mapping[str, Any]], workers: WorkerSettings, *, asked: bool) -> Check:
    cpus, gpus = workers.cpus_per_trial, workers.gpus_per_trial or 0.0
    places = sum(_fit(node, cpus, gpus) for node in nodes)
    has = (
        f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}, {sum(node['cpus'] for node in nodes):g} CPU and "
        f"{sum(node['gpus'] for node in nodes):g} GPU"
    )
    each = f"{cpus:g} CPU and {gpus:g} GPU"
    if not places:
        cure = (
            "ask for less for each worker, or add a node; --no-preflight where nodes are added by themselves"
        )
        return Check("Room", f"{has}: none for a worker of {each}", cure)
    most = workers.count if asked else None
    wanted = "" if most is None else f" of {most} asked for"
    waits = "" if most is None or places >= most else "; the others wait for nodes that join"
    return Check("Room", f"{has}: {places} workers of {each}{wanted}{waits}")


def _fit(node: Mapping[str, Any], cpus: float, gpus: float) -> int:
    """Workers that a node has room for, when nothing else runs."""
    counts = [int(node[name] // share) for name, share in (("cpus", cpus), ("gpus", gpus)) if share]
    return min(counts) if counts else 1


def _storage(told: Mapping[str, Any], root: StorageRoot) -> Check:
    problem = told["head"].get("root")
    if problem:
        kind = (
            "a folder that this machine and the head share, s3:// or gs://"
            if root.is_folder
            else "its rights"
        )
        return Check("Storage", f"{root.address} cannot be used on the head ({problem})", f"give {kind}")
    others = {node["name"]: node.get("root") for node in told["nodes"][:MOST_NODES] if node.get("autoprune")}
    able = [name for name, reason in others.items() if reason == ""]
    unable = [name for name, reason in others.items() if reason]
    note = f"; not on {', '.join(unable)}, whose workers do without" if unable else ""
    return Check(
        "Storage", f"{root.address}, written from here and from {', '.join(able) or 'the head'}{note}"
    )


def _label(nodes: list[Mapping[str, Any]], label: tuple[str, str]) -> Check:
    name, value = label
    names = [node["name"] for node in nodes if node["labels"].get(name) == value]
    if names:
        return Check("Latency", f"timed on {', '.join(names)}, which has the label {name}={value}")
    cure = f"start it with: ray start --address HOST:PORT --labels {name}={value}"
    return Check("Latency", f"no node has the label {name}={value}", cure)
