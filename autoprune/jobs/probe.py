"""What a cluster is, told by itself: a small job that runs before anything is sent.

    python -m autoprune.jobs.probe [--root ROOT --nonce NAME]

Prints one line of JSON after `MARK`: versions on each node, what it has, and whether the storage root can be
read and written there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from typing import Any

MARK = "autoprune-probe: "
PROBES = ".probe"
"""Folder of a storage root, for files that try it out."""

MOST_NODES = 16
"""Nodes that are looked at in turn; of more the first are."""

NODE_SECONDS = 60.0
"""How long the nodes' answers are waited for."""


def own_version() -> str:
    """The version of autoprune that is imported here."""
    return str(importlib.import_module("autoprune").__version__)


def look(root: str | None, nonce: str) -> dict[str, Any]:
    """What the process that calls it has. root: "" in the answer where it can be read and written here."""
    told: dict[str, Any] = {"python": platform.python_version(), "autoprune": None, "root": None}
    try:
        told["autoprune"] = own_version()
        if root is not None:
            storage: Any = importlib.import_module("autoprune.jobs.storage_root")
            told["root"] = _tried(storage.StorageRoot(root), nonce)
    except Exception as error:
        told["root" if told["autoprune"] else "error"] = " ".join(str(error).split())[:300]
    return told


def _tried(root: Any, nonce: str) -> str:
    if root.read(f"{PROBES}/{nonce}") is None:
        return "what this machine wrote there is not seen: it is another folder"
    own = f"{PROBES}/{nonce}.{platform.node()}.{os.getpid()}"
    root.write(own, b"written by a node\n")
    root.remove(own)
    return ""


def main(arguments: list[str]) -> int:
    """Look at the head and at each node, and print what there is."""
    parser = argparse.ArgumentParser(prog="python -m autoprune.jobs.probe")
    parser.add_argument("--root")
    parser.add_argument("--nonce", default="")
    asked = parser.parse_args(arguments)
    ray: Any = importlib.import_module("ray")
    strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    alive = [node for node in ray.nodes() if node["Alive"]]
    task = ray.remote(look)
    answers = [
        task.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(asked.root, asked.nonce)
        for node in alive[:MOST_NODES]
    ]
    ray.wait(answers, num_returns=len(answers), timeout=NODE_SECONDS)
    nodes = []
    for node, answer in zip(alive, answers, strict=False):
        try:
            told = ray.get(answer, timeout=0.1)
        except ray.exceptions.GetTimeoutError:
            told = {"silent": True}
        except Exception as error:
            told = {"error": " ".join(str(error).split())[-300:]}
        nodes.append(_resources(node) | told)
    nodes += [_resources(node) for node in alive[MOST_NODES:]]
    own = look(asked.root, asked.nonce)
    print(MARK + json.dumps({"ray": ray.__version__, "head": own, "nodes": nodes}), flush=True)
    return 0


def _resources(node: dict[str, Any]) -> dict[str, Any]:
    has = node["Resources"]
    return {
        "name": node["NodeManagerHostname"],
        "address": node["NodeManagerAddress"],
        "cpus": has.get("CPU", 0),
        "gpus": has.get("GPU", 0),
        "labels": node.get("Labels", {}),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
