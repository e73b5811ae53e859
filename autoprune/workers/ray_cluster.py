"""A Ray to run on: started here for this process alone, or a running cluster that is joined."""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from autoprune.core.errors import AutopruneError, StoppedError
from autoprune.core.files import reason_of
from autoprune.core.processors import usable_processors
from autoprune.core.redaction import shown_command
from autoprune.workers.pool import describe
from autoprune.workers.ray_address import AUTO, HOME_PREFIX, found_cluster

HEAD_GRACE_SECONDS = 20.0
"""A cluster's head may be away for so long: it can be started again."""

log = logging.getLogger(__name__)


def _load_ray(*, local: bool) -> Any:
    # Read by Ray when it is imported; what the user has set stays.
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # its notice; _hire hides the GPUs itself
        "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # log_to_driver=False still prints each worker's death
        # Without its head Ray ends this process after 60 s, in C++; `Pulse` is sooner and raises.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
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
        source = ", which RAY_ADDRESS names" if os.environ.get("RAY_ADDRESS") == address else ""
        raise AutopruneError(
            f"no Ray cluster answers at {address!r}{source} ({_why(error)}): give --address auto, "
            "HOST:PORT or ray://HOST:PORT of one that runs, or local for a Ray of this search alone"
        ) from error


def _why(error: Exception) -> str:
    return "no port in it" if isinstance(error, ValueError) else str(reason_of(error))


def _own_token() -> dict[str, str]:
    """A variable with a token for a Ray of one's own; none where the user has said something of tokens.

    Ray would write one into the home folder, and whoever runs `ray start` later would be asked for it. It
    stays as long as this process: Ray remembers the first token it was given.
    """
    if any(os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return {}
    return {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _has_token() -> bool:
    """Whether what this process says to Ray has a token with it."""
    raylet: Any = importlib.import_module("ray._raylet")
    return bool(raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN)


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
        short = "/tmp" if os.access("/tmp", os.W_OK) else None  # nosec B108 # mkdtemp makes a folder of ours
        home = tempfile.mkdtemp(prefix=HOME_PREFIX, dir=short)
        cpus = max(usable_processors(), num_cpus)
        options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        options |= {"_node_ip_address": "127.0.0.1", "_temp_dir": home}
    elif address == AUTO:
        options["address"] = found_cluster()
        _knock(options["address"])
    else:
        _knock(address)
    if home:
        os.environ.update(_own_token())

    def disconnect() -> None:
        with suppress(Exception):
            ray.shutdown()
        if home:
            shutil.rmtree(home, ignore_errors=True)

    before = signal.getsignal(signal.SIGTERM)  # Ray puts its own handler there
    try:
        with _changed(_changes(own=bool(home))):
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        disconnect()
        name = "a local Ray" if address is None else f"the Ray cluster at {address}"
        raise AutopruneError(f"{name} cannot be used: {describe(error)}") from error
    except BaseException:
        disconnect()
        raise
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    if not home and not _has_token():
        log.warning("%s is used without a token: who reaches it can run code on it", options["address"])
    if home and (host := ray.util.get_node_ip_address()) != "127.0.0.1":
        log.warning("Ray listens on %s, not on 127.0.0.1 alone", host)
    return ray, disconnect


def _changes(*, own: bool) -> list[tuple[Any, str, object]]:
    """What of Ray is another way while it starts or is joined: an object, its attribute, and the value."""
    utils: Any = importlib.import_module("ray._private.utils")
    # Ray tells the cluster, and whoever looks at its dashboard, the driver's command line.
    changes: list[tuple[Any, str, object]] = [
        (utils, "get_entrypoint_name", lambda: shlex.join(shown_command(sys.orig_argv)))
    ]
    if own:
        constants: Any = importlib.import_module("ray._private.ray_constants")
        # While it is true Ray takes 127.0.0.1 for a slip, and listens on every interface. Its variable
        # RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER would come too late where Ray was imported before.
        changes.append((constants, "ENABLE_RAY_CLUSTER", False))
        node: Any = importlib.import_module("ray._private.node")
        # An autoscaler, a reader of logs and a server of pages: no search asks them anything, and they are
        # a third of the processor's time that a start of Ray takes.
        for name in ("start_monitor", "start_log_monitor", "start_api_server"):
            if hasattr(node.Node, name):
                changes.append((node.Node, name, lambda *_, **__: None))
    return changes


@contextmanager
def _changed(changes: list[tuple[Any, str, object]]) -> Iterator[None]:
    """Attributes with other values inside."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


class Pulse:
    """Whether the Ray that was joined is still there.

    Ray's C++ code ends a process whose raylet is dead at the next large object, without a word to
    Python: who uses Ray does so inside `felt`, which looks first. Of a cluster reached by ray:// no
    process is known here, and Ray's client raises ConnectionError.
    """

    def __init__(self, ray: Any, address: str | None) -> None:
        self._name = "the Ray of this machine" if address is None else f"the Ray cluster at {address}"
        self._grace = 0.0 if address is None else HEAD_GRACE_SECONDS
        self._looked = self._heard = time.monotonic()
        self._raylet = self._head = ""
        if not ray.util.client.ray.is_connected():
            worker: Any = importlib.import_module("ray._private.worker")
            self._raylet = worker._global_node.raylet_socket_name
            self._head = ray.get_runtime_context().gcs_address

    @contextmanager
    def felt(self) -> Iterator[None]:
        """Use Ray inside.

        Raises:
            StoppedError: when Ray is lost, before or meanwhile.
        """
        self._check()
        try:
            yield
        except ConnectionError as error:
            raise StoppedError(f"{self._name} is lost: {describe(error)}") from error
        except Exception:
            self._check(at_once=True)
            raise

    def _check(self, *, at_once: bool = False) -> None:
        if self._raylet and not _answers(self._raylet):
            raise StoppedError(f"{self._name} is lost: its process on this machine (raylet) has ended")
        now = time.monotonic()
        if not self._head or (now - self._looked < 1 and not at_once):
            return
        self._looked = now
        if _answers(self._head):
            self._heard = now
        elif (silent := now - self._heard) >= self._grace:
            raise StoppedError(
                f"{self._name} is lost: its head at {self._head} has not answered for {silent:.0f} s"
            )


def _answers(address: str) -> bool:
    """Whether somebody listens at HOST:PORT, or at the path of a socket."""
    try:
        if address.startswith("/"):
            with socket.socket(socket.AF_UNIX) as knock:
                knock.settimeout(2)
                knock.connect(address)
        else:
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True
