"""An S3 server of this machine's own, on a free port of 127.0.0.1: moto, whose objects are kept in memory.

Neither it nor s3fs is installed beside the tests: s3fs wants an older python-dateutil than the one that is
pinned. CONTRIBUTING.md says how both are got; `MOTO_SERVER` names the program where it is not on the path.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

BUCKET = "models"
KEY = "not-a-real-secret-key"
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class ObjectStore:
    """A server with an empty bucket. variables: by which s3fs finds it and its credentials."""

    root: str
    variables: dict[str, str]


@contextlib.contextmanager
def s3_server() -> Iterator[ObjectStore]:
    """The server; a test that asks for it is skipped where it, or s3fs, is not installed."""
    program = os.environ.get("MOTO_SERVER") or shutil.which("moto_server")
    if program is None or importlib.util.find_spec("s3fs") is None:
        pytest.skip("moto's server or s3fs is not installed (CONTRIBUTING.md)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _make_bucket(address, server)
        variables = {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        yield ObjectStore(f"s3://{BUCKET}/autoprune", variables)
    finally:
        server.kill()
        server.wait()


def _make_bucket(address: str, server: subprocess.Popen[bytes]) -> None:
    """Make the bucket, as soon as the server answers."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        assert server.poll() is None, "moto's server ended"
        try:
            urllib.request.urlopen(urllib.request.Request(f"{address}/{BUCKET}", method="PUT")).close()
            return
        except urllib.error.HTTPError:
            raise
        except OSError:
            assert time.monotonic() < deadline, "moto's server did not answer"
            time.sleep(0.2)
