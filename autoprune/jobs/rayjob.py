"""A search as a RayJob of KubeRay: a cluster of its own in Kubernetes, for as long as it takes."""

from __future__ import annotations

import importlib.metadata
import shlex
from typing import Any

from autoprune.jobs.render_plan import GB_A_WORKER, RUNS, Plan


def rayjob(plan: Plan) -> tuple[dict[str, Any], str]:
    """The RayJob, and what is said above it.

    HTTPMode: in the others the words would pass a shell more, and Kubernetes's own $(VARIABLE).
    """
    workers = _group(plan, "workers", plan.nodes, plan.cpus, plan.gpus, plan.memory_gb)
    groups = [workers]
    if plan.label is not None:
        groups.append(_group(plan, "latency", 1, 1, 0, GB_A_WORKER) | {"labels": dict([plan.label])})
    head = _pod(plan, "ray-head", cpus=2, gpus=0, memory_gb=2 * GB_A_WORKER, is_driver=True)
    return (
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "metadata": {"name": plan.name},
            "spec": {
                "submissionMode": "HTTPMode",
                "entrypoint": shlex.join(plan.command),
                "backoffLimit": 3,
                "shutdownAfterJobFinishes": True,
                "ttlSecondsAfterFinished": 600,
                "rayClusterSpec": {
                    "rayVersion": importlib.metadata.version("ray"),
                    "authOptions": {"mode": "token"},
                    "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": head},
                    "workerGroupSpecs": groups,
                },
            },
        },
        "A RayJob of the KubeRay operator, of a version that knows authOptions: kubectl apply -f FILE.\n"
        "It needs a volume claim `autoprune-runs`, where the run folder lies and a retry goes on,\n"
        "and takes a secret `autoprune`: hf-token for private models"
        + (", storage for the study's database." if plan.has_password else "."),
    )


def _group(plan: Plan, name: str, replicas: int, cpus: int, gpus: int, memory_gb: int) -> dict[str, Any]:
    pod = _pod(plan, f"ray-{name}", cpus=cpus, gpus=gpus, memory_gb=memory_gb, is_driver=False)
    counts = dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), replicas)
    return {"groupName": name, **counts, "rayStartParams": {}, "template": pod}


def _pod(plan: Plan, name: str, *, cpus: int, gpus: int, memory_gb: int, is_driver: bool) -> dict[str, Any]:
    """A pod whose requests are its limits: no neighbour has its CPUs while latency is timed."""
    room: dict[str, Any] = {"cpu": str(cpus), "memory": f"{memory_gb}Gi"}
    if gpus:
        room["nvidia.com/gpu"] = str(gpus)
    mounts = [{"name": "cache", "mountPath": "/cache"}, {"name": "shared", "mountPath": "/dev/shm"}]  # nosec B108 # of a pod
    volumes: list[dict[str, Any]] = [
        {"name": "cache", "emptyDir": {}},
        {"name": "shared", "emptyDir": {"medium": "Memory", "sizeLimit": f"{memory_gb // 2}Gi"}},
    ]
    variables = [{"name": "AUTOPRUNE_CACHE", "value": "/cache"}]
    if is_driver:
        mounts.append({"name": "runs", "mountPath": RUNS})
        volumes.append({"name": "runs", "persistentVolumeClaim": {"claimName": "autoprune-runs"}})
        variables += [_secret("HF_TOKEN", "hf-token", is_optional=True)]
        variables += [_secret(variable, "storage", is_optional=False) for variable in plan.variables]
    container = {
        "name": name,
        "image": plan.image,
        "env": variables,
        "resources": {"requests": room, "limits": dict(room)},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }
    user = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000}
    return {"spec": {"securityContext": user, "containers": [container], "volumes": volumes}}


def _secret(variable: str, key: str, *, is_optional: bool) -> dict[str, Any]:
    reference = {"name": "autoprune", "key": key, "optional": is_optional}
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}
