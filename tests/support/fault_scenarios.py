"""Faults that are really caused to a search of toy trials (`toy_driver`), and what is left of it: figures.

`benchmarks.faults` causes them in volume, `tests/faults` a few times each.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autoprune.core.memory import available_bytes
from autoprune.run.folder import STATUS, STUDY
from autoprune.run.status import read_status
from tests.support.database_server import ENCODED, PASSWORD, postgresql
from tests.support.paths import ROOT
from tests.support.toy_cluster import toy_cluster

PATIENCE_S = 240.0
"""How long is waited for anything that must happen."""


@dataclass
class Driver:
    """One process of a toy search."""

    run: Path
    process: subprocess.Popen[str]
    begun: float

    @classmethod
    def start(
        cls,
        run: Path,
        *more: object,
        environment: dict[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> Driver:
        """Start one. before: a command that runs it."""
        command = [*before, sys.executable, "-m", "tests.support.toy_driver", str(run), *map(str, more)]
        log = open(f"{run}.log", "a", encoding="utf-8")  # noqa: SIM115 (the child's)
        begun = time.monotonic()
        variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})}
        process = subprocess.Popen(
            command, env={**os.environ, **variables}, cwd=ROOT, text=True, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        log.close()
        return cls(run, process, begun)

    def wait_for_trials(self, count: int) -> float:
        """Wait until so many trials are told in all; seconds since the start."""
        until = time.monotonic() + PATIENCE_S
        while len(told(self.run)) < count:
            assert time.monotonic() < until, said(self.run)
            assert self.process.poll() is None, said(self.run)
            time.sleep(0.01)
        return time.monotonic() - self.begun

    def kill(self) -> None:
        """As by a power cut: the driver, and with it a Ray of its own."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self, limit: float = PATIENCE_S) -> int:
        """Wait until it ends; its exit code."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the driver did not end in {limit} s: {said(self.run)}") from None


def told(run: Path) -> list[int]:
    """Numbers of the trials that the driver was told the study has; a line that was cut off is none."""
    path = Path(f"{run}.told")
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [int(line.split()[0]) for line in lines]


def tried(run: Path) -> list[str]:
    """A line for each time that a worker began a trial."""
    path = Path(f"{run}.tried")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def said(run: Path) -> str:
    """The end of what the drivers wrote."""
    path = Path(f"{run}.log")
    return path.read_text(encoding="utf-8", errors="replace")[-3000:] if path.exists() else ""


def status_of(run: Path) -> dict[str, Any]:
    """`status.json` as it stands there."""
    status: dict[str, Any] = json.loads((run / STATUS).read_text(encoding="utf-8"))
    return status


def states(run: Path) -> dict[str, int]:
    """Trials of `study.db` by state, as Optuna wrote them. A killed writer's half transaction is undone."""
    with contextlib.closing(sqlite3.connect(f"file:{run / STUDY}?mode=rw", uri=True)) as database:
        rows = database.execute("SELECT state, COUNT(*) FROM trials GROUP BY state").fetchall()
    return {str(state): int(count) for state, count in rows}


@dataclass
class Ends:
    """What became of a search that was ended again and again. lost: trials told and not in the study."""

    ends: int = 0
    told: int = 0
    in_study: int = 0
    lost: int = 0
    running: int = 0
    resume_seconds: list[float] = field(default_factory=list)
    end_seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        most = {"most_resume_s": self.resume_seconds, "most_end_s": self.end_seconds}
        rest = {k: v for k, v in asdict(self).items() if k not in ("resume_seconds", "end_seconds")}
        return rest | {name: round(max(values, default=0.0), 2) for name, values in most.items()}


def ended_again_and_again(
    run: Path, seeds: int, signals: tuple[int, ...], *more: object, most_s: float = 1.5
) -> Ends:
    """A search whose driver is ended `seeds` times at random moments after it told a trial, then finished."""
    out = Ends()
    for seed in range(seeds):
        rng, before = random.Random(seed), len(told(run))
        driver = Driver.start(run, "--trials", 1_000_000, *more)
        out.resume_seconds.append(driver.wait_for_trials(before + 1))
        time.sleep(rng.uniform(0.0, most_s))
        number = rng.choice(signals)
        _end(driver, number, out)
        out.ends += 1
        check_study(run, out)
    driver = Driver.start(run, "--trials", len(told(run)) + 5, *more)
    if driver.end() != 0:
        out.wrong.append(f"the last driver ended with {driver.process.returncode}")
    check_study(run, out)
    return out


def _end(driver: Driver, number: int, out: Ends) -> None:
    """End a driver, and see what its status says."""
    begun = time.monotonic()
    if number == signal.SIGKILL:
        driver.kill()
        state = read_status(driver.run)["state"]
        if state != "gone":
            out.wrong.append(f"state {state} after a kill")
        return
    driver.process.send_signal(number)
    code = driver.end()
    out.end_seconds.append(time.monotonic() - begun)
    now = status_of(driver.run)
    if (code, now["state"], now["exit_code"]) != (128 + number, "stopped", 128 + number):
        out.wrong.append(f"code {code}, state {now['state']} after signal {number}")


def check_study(run: Path, out: Ends) -> None:
    """Count what the study of a run has and lacks."""
    found = states(run)
    out.told, out.in_study = len(told(run)), found.get("COMPLETE", 0) + found.get("FAIL", 0)
    out.lost += len(set(told(run)) - set(range(out.in_study)))
    out.running += found.get("RUNNING", 0) + found.get("WAITING", 0)


def workers_killed(run: Path, *, seconds: float, every: float, workers: int = 2) -> dict[str, Any]:
    """A search on a Ray of its own, one of whose workers is killed every so often."""
    driver, rng, kills = Driver.start(run, "--workers", workers, "--seconds", 0.5), random.Random(0), 0
    driver.wait_for_trials(3)
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        time.sleep(every)
        busy = [worker for worker in status_of(run)["workers"]["each"] if worker["state"] == "training"]
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(int(rng.choice(busy)["name"].rpartition(":")[2]), signal.SIGKILL)
            kills += 1
        assert driver.process.poll() is None, said(run)
    driver.wait_for_trials(len(told(run)) + 2 * workers)
    driver.process.send_signal(signal.SIGTERM)
    code, dead = driver.end(), status_of(run)["workers"]["dead"]
    out = Ends(kills)
    check_study(run, out)
    lost = len(tried(run)) - len(told(run)) - workers  # those in flight at the end are no loss
    counts = {"kills": kills, "attempts": len(tried(run)), "attempts_lost": max(0, lost)}
    return out.as_json() | counts | {"dead": dead, "code": code}


def nodes_killed(run: Path, *, seconds: float, every: float) -> dict[str, Any]:
    """A search on a cluster of three nodes, one of which is lost every so often, and another joins."""
    with toy_cluster(3) as cluster:
        alive, rng, kills = [0, 1, 2], random.Random(0), 0
        driver = Driver.start(run, "--any-workers", "--address", cluster.address, "--seconds", 0.5)
        driver.wait_for_trials(3)
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            time.sleep(every)
            cluster.do(f"kill {alive.pop(rng.randrange(len(alive)))}")
            kills += 1
            alive.append(int(cluster.do("add")))
            assert driver.process.poll() is None, said(run)
        driver.wait_for_trials(len(told(run)) + 6)
        driver.process.send_signal(signal.SIGTERM)
        code, now = driver.end(), status_of(run)["workers"]
    out = Ends(kills)
    check_study(run, out)
    lost = len(tried(run)) - len(told(run)) - 3
    return out.as_json() | {
        "kills": kills, "attempts": len(tried(run)), "attempts_lost": max(0, lost),
        "lost_nodes": len(now["lost_nodes"]), "code": code,
    }  # fmt: skip


def cluster_lost(run: Path, what: str, *more: object) -> dict[str, Any]:
    """A search whose cluster's head ("head") or driver's node ("raylet") is lost, gone on with on another."""
    with toy_cluster(1, head_cpus=1) as cluster:
        driver = Driver.start(run, "--any-workers", "--address", cluster.address, "--seconds", 0.3, *more)
        driver.wait_for_trials(4)
        cluster.do(what)
        begun = time.monotonic()
        code = driver.end()
        seconds, now, line = time.monotonic() - begun, status_of(run), said(run).strip().splitlines()[-1]
    before = len(told(run))
    with toy_cluster(1) as cluster:
        wanted = before + 4
        driver = Driver.start(run, "--any-workers", "--address", cluster.address, "--trials", wanted)
        resumed = driver.end()
    out = Ends(1)
    check_study(run, out)
    return out.as_json() | {
        "code": code, "seconds": round(seconds, 1), "state": now["state"], "next": now["next"],
        "resumed_code": resumed, "said": line,
    }  # fmt: skip


def second_driver(run: Path) -> dict[str, Any]:
    """A second driver on a run that one works on: how soon it is refused, and what it is told."""
    first = Driver.start(run)
    try:
        first.wait_for_trials(1)
        second = Driver.start(run)
        code = second.end()
        seconds = time.monotonic() - second.begun
        line = said(run).strip().splitlines()[-1]
        is_named = str(first.process.pid) in line
        return {"code": code, "seconds": round(seconds, 1), "is_named": is_named, "said": line}
    finally:
        first.kill()


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A disk of its own on a folder, as root may have."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def disk_filled(folder: Path) -> dict[str, Any]:
    """A search on a small disk that another fills, then with room again."""
    disk = folder / "disk"
    with small_disk(disk, 4):
        run, ballast = disk / "run", disk / "ballast"
        driver = Driver.start(run)
        driver.wait_for_trials(5)
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"x" * 65536)
                file.flush()
        code = driver.end()
        ballast.unlink()
        found, before = states(run), status_of(run)
        driver = Driver.start(run, "--trials", found.get("COMPLETE", 0) + 5)
        resumed = driver.end()
        out = Ends(1)
        check_study(run, out)
    return out.as_json() | {
        "code": code, "state": before["state"], "resumed_code": resumed, "said": before["reason"],
    }  # fmt: skip


def faulty_trials(run: Path, *more: object, trials: int = 12) -> dict[str, Any]:
    """A search of whose trials some give NaN, some raise and some end their worker."""
    driver = Driver.start(run, "--trials", trials, *more)
    code = driver.end()
    causes = [line.split(" ", 3)[3] for line in Path(f"{run}.told").read_text().splitlines()]
    found = states(run)
    return {
        "code": code,
        "states": found,
        "causes": sorted({cause.split(":")[0] for cause in causes if cause}),
    }


def latency_node_lost(run: Path, *, wait: float, away: float | None) -> dict[str, Any]:
    """A search whose latency node is lost, and comes back after `away` seconds, or never for None.

    wait: seconds that the search waits for it.
    """
    with toy_cluster(2) as cluster:
        edge = cluster.do("add edge")
        more = ("--label", "edge", "--faults", "time", "--seconds", 0.3, "--any-workers", "--wait", wait)
        driver = Driver.start(run, "--address", cluster.address, *more)
        driver.wait_for_trials(4)
        cluster.do(f"kill {edge}")
        begun = time.monotonic()
        if away is not None:
            time.sleep(away)
            before = len(told(run))
            cluster.do("add edge")
            driver.wait_for_trials(before + 4)
            driver.process.send_signal(signal.SIGTERM)
        code, now = driver.end(wait + PATIENCE_S), status_of(run)
        seconds = time.monotonic() - begun
    out = Ends(1)
    check_study(run, out)
    return out.as_json() | {
        "code": code, "state": now["state"], "failed": now["failed"], "seconds": round(seconds, 1),
        "said": now["reason"],
    }  # fmt: skip


class CutWire:
    """A port of this machine that leads to another until it is cut, and again once it is mended."""

    def __init__(self, host: str, port: int) -> None:
        self._to, self._is_cut, self._ends = (host, port), False, list[socket.socket]()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        threading.Thread(target=self._let_in, daemon=True).start()

    def cut(self) -> None:
        self._is_cut = True
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def mend(self) -> None:
        self._is_cut = False

    def _let_in(self) -> None:
        while True:
            near, _ = self._door.accept()
            if self._is_cut:
                near.close()
                continue
            far = socket.create_connection(self._to)
            self._ends += [near, far]
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, goal: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                goal.sendall(data)
        for end in (source, goal):
            with contextlib.suppress(OSError):
                end.close()


def database_away(run: Path, away: float, *outage: object) -> dict[str, Any]:
    """A search whose PostgreSQL is out of reach for so many seconds, and is gone on with afterwards.

    outage: words to the drivers, which say how long they wait for it.
    """
    with postgresql() as address:
        host, _, rest = address.partition(":")
        port, _, name = rest.partition("/")
        wire = CutWire(host, int(port))
        url = f"postgresql+psycopg://me:{ENCODED}@127.0.0.1:{wire.port}/{name}"
        driver = Driver.start(run, "--storage", url, *outage)
        driver.wait_for_trials(4)
        wire.cut()
        begun = time.monotonic()
        code = driver.end(away + PATIENCE_S)
        seconds, now = time.monotonic() - begun, status_of(run)
        meanwhile = Driver.start(run, "--storage", url, *outage).end(away + PATIENCE_S)
        time.sleep(max(0.0, away - (time.monotonic() - begun)))
        wire.mend()
        before = len(told(run))
        resumed = Driver.start(run, "--storage", url, *outage, "--trials", before + 4).end()
    numbers = told(run)
    return {
        "code": code, "state": now["state"], "seconds": round(seconds, 1), "code_while_away": meanwhile,
        "resumed_code": resumed, "told": len(numbers), "lost": len(set(range(before)) - set(numbers)),
        "said": now["reason"], "is_secret_kept": PASSWORD not in said(run) and ENCODED not in said(run),
    }  # fmt: skip


def trials_hang(run: Path, faults: str, *, trials: int) -> dict[str, Any]:
    """A search on a Ray of its own of whose trials some never end."""
    more = ("--workers", 2, "--trials", trials, "--faults", faults, "--trial-timeout", 2)
    figures = faulty_trials(run, *more, trials=trials)
    now = status_of(run)
    return figures | {
        "failed": now["failed"],
        "overdue": now["workers"]["overdue"],
        "dead": now["workers"]["dead"],
    }


def memory_used_up(run: Path) -> dict[str, Any]:
    """A search on a Ray of its own each of whose trials takes memory until Ray's monitor ends its worker."""
    whole, free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), available_bytes()
    assert free is not None
    share = (whole - free + min(2.5e9, free / 2)) / whole
    monitor = {"RAY_memory_usage_threshold": f"{share:.3f}", "RAY_memory_monitor_refresh_ms": "100"}
    more = ("--workers", 1, "--trials", 2, "--faults", "bomb,")
    code = Driver.start(run, *more, environment=monitor).end()
    causes = [line.split(" ", 3)[3] for line in Path(f"{run}.told").read_text().splitlines()]
    kinds = sorted({cause.split(":")[0] for cause in causes if cause})
    tries = [line.split()[-1] for line in tried(run) if "bomb" in line]
    return {"code": code, "states": states(run), "causes": kinds, "tries": tries}


def memory_leaked(run: Path, trials: int) -> dict[str, Any]:
    """A search on a Ray of its own whose trials keep what they take."""
    more = ("--workers", 1, "--trials", trials, "--faults", "leak", "--seconds", 0)
    code = Driver.start(run, *more).end()
    workers = status_of(run)["workers"]
    return {
        "code": code, "states": states(run), "replaced": workers["replaced"], "dead": workers["dead"],
        "most_memory_bytes": workers["most_memory_bytes"],
    }  # fmt: skip
