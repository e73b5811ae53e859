"""A Ray cluster by its Jobs API: over HTTP, so that whoever submits may leave."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from autoprune.core.errors import AutopruneError
from autoprune.core.files import reason_of
from autoprune.core.redaction import redacted

RUN_KEY, ROOT_KEY = "autoprune_run", "autoprune_root"
"""Names of a job's metadata: the run that it drives, and the storage root that keeps it."""

_REPLY_SECONDS = 60.0
_OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Ray takes these instead of the address that its client is given."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A job of the cluster that drives a run. state: Ray's word for it. started: seconds since the epoch.

    exit_code: of its driver; None where it has not ended or Ray does not know.
    """

    id: str
    run: str
    root: str | None
    state: str
    message: str
    started: float | None
    exit_code: int | None

    @property
    def reason(self) -> str:
        """What Ray says of how it is, without the log that it adds."""
        first = (self.message.splitlines() or [""])[0]
        return first.partition(", last available logs")[0].rstrip(" :")

    @property
    def is_over(self) -> bool:
        """Whether its driver has ended."""
        return self.state in ("SUCCEEDED", "FAILED", "STOPPED")


class ClusterError(AutopruneError):
    """A cluster does not answer, or answers that it cannot: a storage root may know what it does not say."""


class Cluster:
    """The cluster at an address.

    Args:
        address: http://HOST:8265 of the head's dashboard, or ray://HOST:10001, which is warned about.

    Raises, here and below:
        AutopruneError: where it is none, nobody answers, or the token is not the cluster's.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        scheme = urlsplit(address).scheme
        if scheme == "ray":
            log.warning(
                "%s: Ray's maintainers advise against ray:// for long jobs; give http://HOST:8265, the "
                "address of the cluster's dashboard", redacted(address),
            )  # fmt: skip
        elif scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise AutopruneError(
                f"--cluster {redacted(address)!r}: give http://HOST:8265, the address of the dashboard on "
                "the cluster's head"
            )
        else:
            self._knock()
        with self._told():
            self._client = _client(self.address)

    @property
    def has_token(self) -> bool:
        """Whether what is said to the cluster has a token with it."""
        return bool(self._client._headers)

    def version(self) -> str:
        """The cluster's version of Ray."""
        return str(self._client._server_ray_version)

    def submit(
        self, id: str, entrypoint: str, metadata: Mapping[str, str], variables: Mapping[str, str]
    ) -> None:
        """Start a job; it runs `entrypoint` on the head, with environment variables that are no secrets."""
        with self._told():
            self._client.submit_job(
                entrypoint=entrypoint,
                submission_id=id,
                metadata=dict(metadata),
                runtime_env={"env_vars": dict(variables)},
            )

    def jobs(self, run: str | None = None) -> list[Job]:
        """The jobs that drive runs, or one run; the oldest first."""
        with self._told():
            rows = self._client.list_jobs()
        jobs = [_job(row) for row in rows if row.submission_id and RUN_KEY in (row.metadata or {})]
        return sorted(
            (job for job in jobs if run is None or job.run == run), key=lambda job: job.started or 0
        )

    def ids(self) -> set[str]:
        """The names of all jobs, which no new one may have."""
        with self._told():
            return {row.submission_id for row in self._client.list_jobs() if row.submission_id}

    def job(self, id: str) -> Job:
        """A job by its name."""
        with self._told():
            return _job(self._client.get_job_info(id))

    def stop(self, id: str) -> bool:
        """Ask a job's driver to end (SIGTERM); whether there was one."""
        with self._told():
            return bool(self._client.stop_job(id))

    def log(self, id: str) -> str:
        """All that a job has printed."""
        with self._told():
            return str(self._client.get_job_logs(id))

    def wait(self, id: str, seconds: float) -> Job:
        """A job when it has ended, or after so many seconds."""
        deadline = time.monotonic() + seconds
        while not (job := self.job(id)).is_over and time.monotonic() < deadline:
            time.sleep(0.5)
        return job

    def _knock(self) -> None:
        """Ray's client waits without a limit for a host that says nothing."""
        parts = urlsplit(self.address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((str(parts.hostname), port), timeout=10).close()
        except OSError as error:
            raise ClusterError(
                f"no Ray cluster answers at {self.address} ({reason_of(error)}): give http://HOST:8265 of "
                "the head's dashboard; it listens for others when started with --dashboard-host 0.0.0.0"
            ) from error

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What Ray's client raises, in a line."""
        try:
            yield
        except AutopruneError:
            raise
        except Exception as error:  # RuntimeError, ConnectionError and what requests raises
            if type(error).__name__ == "AuthenticationError":
                raise AutopruneError(
                    f"the cluster at {self.address} asks for its token: set RAY_AUTH_MODE=token and "
                    "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the one that it was started with"
                ) from error
            text = redacted(" ".join(str(error).split()))[:500]
            if "No available agent" in text:
                text += (
                    "; where another Ray runs on the head's machine, it may hold the agent's port: start the "
                    "head with --dashboard-agent-listen-port=PORT of another"
                )
            raise ClusterError(f"the cluster at {self.address} refused ({text})") from error


def job_id(run: str, taken: set[str]) -> str:
    """The name of a run's next job: the run's own, with a number where the cluster has had that one.

    Ray takes no name twice, not even of a job that has ended.

    >>> job_id("demo-20MB", set()), job_id("demo-20MB", {"demo-20MB", "demo-20MB.2"})
    ('demo-20MB', 'demo-20MB.3')
    """
    if run not in taken:
        return run
    number = 2
    while f"{run}.{number}" in taken:
        number += 1
    return f"{run}.{number}"


def running(jobs: Sequence[Job]) -> Job | None:
    """The job of a run whose driver has not ended."""
    return next((job for job in reversed(jobs) if not job.is_over), None)


def _job(row: Any) -> Job:
    told = row.metadata or {}
    state = row.status
    return Job(
        id=row.submission_id,
        run=told.get(RUN_KEY, row.submission_id),
        root=told.get(ROOT_KEY) or None,
        state=str(getattr(state, "value", state)),
        message=str(row.message or ""),
        started=None if row.start_time is None else row.start_time / 1000,
        exit_code=row.driver_exit_code,
    )


def _client(address: str) -> Any:
    """Ray's client of the Jobs API, for this address whatever the environment names."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        importlib.import_module("aiohttp")
        submission: Any = importlib.import_module("ray.job_submission")
    except ImportError as error:
        raise AutopruneError(
            f"jobs on a cluster need ray[default] ({error}): pip install 'autoprune[cluster]'"
        ) from error

    class Patient(submission.JobSubmissionClient):  # type: ignore[misc]
        """Ray's client, which gives up on a host that says nothing."""

        def _do_request(self, *args: Any, **kwargs: Any) -> Any:
            return super()._do_request(*args, **{"timeout": _REPLY_SECONDS, **kwargs})

    kept = {name: os.environ.pop(name) for name in _OVERRIDING if name in os.environ}
    try:
        return Patient(address)
    finally:
        os.environ.update(kept)
