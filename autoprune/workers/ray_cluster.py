"""A Ray to run on: started here for this process alone, or a running cluster that is joined."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.workers.pool import describe

log = logging.getLogger(__name__)


def _load_ray(*, local: bool) -> Any:
    # Read by Ray when it is imported; what the user has set stays.
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # its notice; _hire hides the GPUs itself
        "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # log_to_driver=False still prints each worker's death
    }
    if local:
        # Else under `uv run` every worker builds an environment of its own.
        settings["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise AutopruneError("Ray is not installed: install it, or ask for 0 workers") from error


def _knock(address: str) -> None:
    """Ray would try an address where nobody listens for minutes, and write of each try."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise AutopruneError(
            f"no Ray cluster answers at {address!r} ({error}): "
            "give auto, HOST:PORT or ray://HOST:PORT of one that runs"
        ) from error


def nothing() -> None:
    pass


def connect(address: str | None, num_cpus: int) -> tuple[Any, Callable[[], None]]:
    """The ray module, connected, and what undoes that."""
    ray = _load_ray(local=address is None)
    if ray.is_initialized():
        return ray, nothing
    home = ""
    options: dict[str, Any] = {"address": address}
    if address is None:
        # Not TMPDIR, which may be long: a path of a socket ends at 107 characters.
        short = "/tmp" if os.access("/tmp", os.W_OK) else None
        home = tempfile.mkdtemp(prefix="autoprune-ray-", dir=short)
        cpus = max(os.cpu_count() or 1, num_cpus)
        options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        options |= {"_node_ip_address": "127.0.0.1", "_temp_dir": home}
    elif address != "auto":
        _knock(address)
        if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
            log.warning("%s is used without a token: who reaches it can run code on it", address)

    def disconnect() -> None:
        with suppress(Exception):
            ray.shutdown()
        if home:
            shutil.rmtree(home, ignore_errors=True)

    before = signal.getsignal(signal.SIGTERM)  # Ray puts its own handler there
    constants: Any = importlib.import_module("ray._private.ray_constants")
    spread = constants.ENABLE_RAY_CLUSTER
    # While it is true Ray takes 127.0.0.1 for a slip, and listens on every interface. Its variable
    # RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER would come too late where Ray was imported before.
    constants.ENABLE_RAY_CLUSTER = spread and not home
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        disconnect()
        name = "a local Ray" if address is None else f"the Ray cluster at {address}"
        raise AutopruneError(f"{name} cannot be used: {describe(error)}") from error
    except BaseException:
        disconnect()
        raise
    finally:
        constants.ENABLE_RAY_CLUSTER = spread
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    if home and (host := ray.util.get_node_ip_address()) != "127.0.0.1":
        log.warning("Ray listens on %s, not on 127.0.0.1 alone", host)
    return ray, disconnect
