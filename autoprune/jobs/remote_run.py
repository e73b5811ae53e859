"""A run of a cluster, seen from elsewhere: by its storage root, and by the cluster where that lives."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.core.files import write_json, written_whole
from autoprune.core.redaction import redacted
from autoprune.jobs.cluster import Cluster, Job, running
from autoprune.jobs.lease import ENDED, Driver, Sent
from autoprune.jobs.mirror import LOG, RUNS, bring_run
from autoprune.jobs.request import REQUEST, Request
from autoprune.jobs.storage_root import StorageRoot
from autoprune.run.folder import FRONT, RUN, STATUS, check_new_run, read_record
from autoprune.run.status import BUSY, resume_command

SAME_SUBMIT = "the same autoprune submit"

_REFUSED = (2, 3)
"""Exit codes of what is refused again: wrong input, and a budget that nothing meets."""

KILLED = 137
"""Exit code of a driver that ended without a word."""

_POLL_SECONDS = 1.0


class RemoteRun:
    """A run by its name, at a cluster, in a storage root, or both.

    Raises, here: AutopruneError where neither has it.
    """

    def __init__(self, name: str, cluster: Cluster | None, root: StorageRoot | None) -> None:
        self.name, self.cluster = name, cluster
        jobs = cluster.jobs(name) if cluster is not None else []
        if root is None and jobs and jobs[-1].root:
            root = StorageRoot(jobs[-1].root)
        self.root = root
        self._place = f"{RUNS}/{name}"
        if not jobs and self.driver() is None and self._request() is None:
            places = [f"the cluster at {cluster.address}"] if cluster is not None else []
            places += [f"the storage root {root.address}"] if root is not None else []
            raise AutopruneError(
                f"{' and '.join(places)} knows no run {name!r}: list those there are with autoprune jobs"
            )

    def job(self) -> Job | None:
        """The last job that drove it, where the cluster knows one."""
        jobs = self.cluster.jobs(self.name) if self.cluster is not None else []
        return running(jobs) or (jobs[-1] if jobs else None)

    def driver(self) -> Driver | None:
        """What its driver last said of itself."""
        return None if self.root is None else Driver.read(self.root, self._place)

    def status(self) -> dict[str, Any]:
        """As `read_status` gives it of a local run; "job" is the job's name and Ray's word for its state."""
        from autoprune.core.record import checked  # takes long: pydantic
        from autoprune.run.run_record import StatusRecord

        job, driver = self.job(), self.driver()
        where = f"{self._place}/{STATUS}"
        noted = None if self.root is None else self.root.read_json(where)
        now: dict[str, Any] = {"state": "submitted", "trials": 0, "planned": None}
        if noted is not None and self.root is not None:
            now = checked(StatusRecord, noted, self.root.full(where)).as_json()
        if job is not None:
            now["job"] = {"id": job.id, "state": job.state}
        if noted is None and job is not None and job.state == "PENDING":
            now["reason"] = job.message
        is_over = job.is_over if job is not None else driver is not None and driver.state == ENDED
        sent = self._sent_since(driver) if job is None else None
        if sent is not None:
            now |= {"state": "gone", "reason": f"job {sent} was sent and never began", "next": SAME_SUBMIT}
        elif is_over:
            self._end(now, job, driver)
        elif job is not None and now["state"] not in (*BUSY, "submitted", "finished"):
            now |= {"state": "submitted", "reason": job.message if job.state == "PENDING" else ""}
            now |= {"next": "", "exit_code": None}  # those of the driver before
        elif job is None and now["state"] in (*BUSY, "submitted"):
            now["driver"] = "unknown"
        return now

    def front(self) -> dict[str, Any] | None:
        """`front.json` as the driver last copied it to the storage root; None where there is none."""
        return None if self.root is None else self.root.read_json(f"{self._place}/{FRONT}")

    def _end(self, now: dict[str, Any], job: Job | None, driver: Driver | None) -> None:
        """Say how a run ended whose driver is no more."""
        code = self._code(job, driver)
        if driver is None or driver.state != ENDED:
            now["state"] = "gone"
            now["reason"] = job.reason if job is not None else ""
        elif now["state"] in (*BUSY, "submitted"):
            now |= {"state": "stopped" if code else "finished", "reason": driver.last}
        now["exit_code"] = code
        can_go_on = now["state"] != "finished" and code not in _REFUSED
        now["next"] = SAME_SUBMIT if can_go_on else ""

    def _sent_since(self, driver: Driver | None) -> str | None:
        """The last job that was sent, where no driver has begun since."""
        sent = None if self.root is None else Sent.read(self.root, self._place)
        is_behind = sent is not None and (0 if driver is None else driver.attempt) <= sent.after
        return sent.job if sent is not None and is_behind else None

    def exit_code(self) -> int:
        """What its last driver ended with."""
        return self._code(self.job(), self.driver())

    def _code(self, job: Job | None, driver: Driver | None) -> int:
        if job is not None and job.state == "SUCCEEDED":
            return 0
        if driver is not None and driver.state == ENDED and driver.exit_code is not None:
            return driver.exit_code
        if job is not None and job.exit_code is not None:
            return job.exit_code if job.exit_code >= 0 else 128 - job.exit_code
        return KILLED

    def log(self, *, follow: bool = False) -> Iterator[str]:
        """What its drivers printed; with `follow` until the last one ends, across broken connections."""
        printed, said, lost_since = 0, "", 0.0
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            is_over, waiting = True, ""
            try:
                if follow:
                    is_over, waiting = self._progress()
                data = b"" if self.root is None else self.root.read(f"{self._place}/{LOG}", printed) or b""
                lost_since = 0.0
            except AutopruneError as error:
                lost_since = lost_since or time.monotonic()
                if not follow or time.monotonic() - lost_since > 120:
                    raise
                data, is_over, waiting = b"", False, f"(no answer: {redacted(str(error))})\n"
            printed += len(data)
            if data:
                yield decoder.decode(data)
            elif waiting and waiting != said:
                said = waiting
                yield waiting
            if is_over:
                break
            time.sleep(_POLL_SECONDS)
        if not printed and self.cluster is not None and (job := self.job()) is not None:
            yield self.cluster.log(job.id) or f"{job.message}\n"

    def _progress(self) -> tuple[bool, str]:
        """Whether its driver has ended, and what is waited for."""
        job, driver = self.job(), self.driver()
        if job is None:
            return driver is None or driver.state == ENDED, ""
        waiting = f"(job {job.id}: {job.message})\n" if job.state == "PENDING" else ""
        return job.is_over, waiting

    def stop(self, *, seconds: float) -> Job | None:
        """End its driver, and wait until it has; None where none runs.

        Raises:
            AutopruneError: where there is no cluster to ask.
        """
        if self.cluster is None:
            raise AutopruneError(
                f"run {self.name} is stopped by its cluster: give --cluster http://HOST:8265"
            )
        job = self.job()
        if job is None or job.is_over:
            return None
        self.cluster.stop(job.id)
        return self.cluster.wait(job.id, seconds)

    def fetch(self, target: Path) -> int:
        """Copy the run into a new folder, with what it was made from; the number of its files.

        Raises:
            AutopruneError: where the folder is there, or the root has no files of the run.
        """
        check_new_run(target)
        if self.root is None:
            raise AutopruneError(f"run {self.name} names no storage root: give --storage-root ROOT")
        with written_whole(target) as temporary:
            temporary.mkdir()
            count = bring_run(self.root, self.name, temporary)
            if not (temporary / RUN).is_file():
                raise AutopruneError(
                    f"run {self.name} has not begun, so there is nothing to fetch; what its driver said: "
                    f"autoprune logs {self.name}"
                )
            status = read_record(temporary / STATUS) if (temporary / STATUS).is_file() else {}
            if status.get("next"):
                write_json(temporary / STATUS, status | {"next": resume_command(target)})
            request = self._request()
            if request is not None:
                write_json(temporary / "job.json", request.as_json())
                for place in {*request.sources, *filter(None, [request.code])}:
                    self.root.bring(place, temporary)
        return count

    def _request(self) -> Request | None:
        if self.root is None:
            return None
        where = f"{self._place}/{REQUEST}"
        data = self.root.read_json(where)
        return None if data is None else Request.from_json(data, where=self.root.full(where))
