"""Object stores of this machine's own, on a free port of 127.0.0.1, whose objects are kept in memory.

moto serves S3 and gcp-storage-emulator Google's store. Neither these nor fsspec's drivers for them are
installed beside the tests, since each driver wants other versions than are pinned: CONTRIBUTING.md says how
they are got.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.ports import free_ports

BUCKET = "models"
KEY = "not-a-real-secret-key"
_PATIENCE_S = 60.0
_DRIVERS = {"s3": "s3fs", "gs": "gcsfs"}
_PROGRAMS = {"s3": "moto_server", "gs": "gcp-storage-emulator"}


@dataclass(frozen=True)
class ObjectStore:
    """A server with an empty bucket. variables: by which its driver finds it and its credentials."""

    root: str
    variables: dict[str, str]


@contextlib.contextmanager
def object_store(scheme: str) -> Iterator[ObjectStore]:
    """A server for `s3://` or `gs://`; a test is skipped where it, or its driver, is not installed."""
    name = _PROGRAMS[scheme]
    program = os.environ.get("AUTOPRUNE_TEST_STORE") or shutil.which(name)
    if program is None or not program.endswith(name) or importlib.util.find_spec(_DRIVERS[scheme]) is None:
        pytest.skip(f"{name} or {_DRIVERS[scheme]} is not installed (CONTRIBUTING.md)")
    [port] = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    words = {
        "s3": ["-H", "127.0.0.1", "-p", str(port)],
        "gs": [
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--in-memory",
            "--default-bucket",
            BUCKET,
        ],
    }
    variables = {
        "s3": {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        },
        "gs": {"STORAGE_EMULATOR_HOST": address},
    }  # fmt: skip
    server = subprocess.Popen([program, *words[scheme]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(address, server, make_bucket=scheme == "s3")
        yield ObjectStore(f"{scheme}://{BUCKET}/autoprune", variables[scheme])
    finally:
        server.kill()
        server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes], *, make_bucket: bool) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + _PATIENCE_S
    asked = urllib.request.Request(f"{address}/{BUCKET}", method="PUT") if make_bucket else address
    while True:
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(asked).close()
            return
        except urllib.error.HTTPError:
            if make_bucket:
                raise
            return
        except OSError:
            assert time.monotonic() < deadline, "the server did not answer"
            time.sleep(0.2)
