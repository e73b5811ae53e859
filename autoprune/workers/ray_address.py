"""Which Ray cluster a search joins: the one asked for, that of RAY_ADDRESS, or one found on this machine."""

from __future__ import annotations

import importlib
import os
from typing import Any

from autoprune.core.errors import AutopruneError

LOCAL, AUTO = "local", "auto"

HOME_PREFIX = "autoprune-ray-"
"""What the folder of a Ray that a search has started for itself begins with."""


def cluster_asked_for(address: str | None) -> str | None:
    """The address of the cluster to join; None for a Ray of one's own.

    address: as a user gave it: `local` is a Ray of one's own, and without any the variable RAY_ADDRESS says,
    which Ray sets for a job's driver.
    """
    chosen = address or os.environ.get("RAY_ADDRESS") or LOCAL
    return None if chosen == LOCAL else chosen


def found_cluster() -> str:
    """HOST:PORT of the cluster that has a node on this machine, which `auto` stands for.

    A Ray that another search has started for itself is none: it ends with that search, and has no room.

    Raises:
        AutopruneError: where there is none, or there are several and none was started last by `ray start`.
    """
    services: Any = importlib.import_module("ray._private.services")
    found: set[str] = set()
    for process in services.psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(f"/{HOME_PREFIX}" in word for word in words):
            continue
        if words and os.path.basename(words[0]) == "raylet":
            found |= {word.partition("=")[2] for word in words if word.startswith("--gcs-address=")}
    latest = services.find_bootstrap_address(None)
    if latest in found:
        return str(latest)
    if len(found) == 1:
        return found.pop()
    if not found:
        raise AutopruneError(
            "--address auto: no Ray cluster has a node on this machine. Start one (ray start --head), or "
            "give HOST:PORT of one that runs elsewhere"
        )
    several = ", ".join(sorted(found))
    raise AutopruneError(
        f"--address auto: {len(found)} Ray clusters have a node on this machine ({several}). "
        "Give the address of one"
    )
