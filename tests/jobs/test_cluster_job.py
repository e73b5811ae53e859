"""A search as a job of a real Ray head: submitted, followed, stopped, gone on with, fetched."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoprune.core.files import read_json
from tests.support.paths import ROOT
from tests.support.ray_head import Head, ray_head, start_head
from tests.support.tiny_search import OPTIONS, autoprune, command, environment, write_inputs

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SEARCH = ["submit", "search", "model", "--dataset", "my_rows:rows", *OPTIONS, "--workers", 1]
MODULE = """
import csv
from pathlib import Path
import my_words

def rows():
    with (Path.home().parent / "laptop" / my_words.TABLE).open() as file:
        return {"train": list(csv.DictReader(file))}
"""


class Laptop:
    """A machine that submits: a folder with the inputs and a home of its own."""

    def __init__(self, folder: Path, head: Head) -> None:
        self.folder, self.head = folder, head
        self.variables = {
            **environment(folder.parent / "laptop-cache"),
            "AUTOPRUNE_STORAGE_ROOT": str(folder.parent / "root"),
            "AUTOPRUNE_CLUSTER": head.address, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled",
        }  # fmt: skip

    def run(self, *words: object, code: int = 0) -> str:
        """What a command prints on stdout."""
        return self.done(*words, code=code).stdout

    def done(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return autoprune(words, cwd=self.folder, env=self.variables, code=code)


class Follower:
    """`logs RUN -f` in a process of its own: its lines as they come."""

    def __init__(self, laptop: Laptop, run: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command("logs", run, "-f"), cwd=laptop.folder, env=laptop.variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines += (line.rstrip() for line in self.process.stdout)

    def wait_for(self, start: str, seconds: float = 300) -> None:
        """Until a line begins so."""
        deadline = time.monotonic() + seconds
        while not any(line.startswith(start) for line in self.lines):
            assert self.reader.is_alive(), "\n".join(self.lines)
            assert time.monotonic() < deadline, "\n".join(self.lines)
            time.sleep(0.1)

    def end(self) -> int:
        """The exit code, when it has ended."""
        self.process.wait(400)
        self.reader.join()
        return self.process.returncode


def head_variables(folder: Path, home: str = "head-home") -> dict[str, str]:
    """Of the processes of Ray: another home than the laptop's."""
    return {**environment(folder / home), "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A laptop with a tiny model, beside a head of one CPU."""
    base = tmp_path_factory.mktemp("jobs")
    folder = base / "laptop"
    write_inputs(folder)
    (folder / "my_rows.py").write_text(MODULE)
    (folder / "my_words.py").write_text('TABLE = "rows.csv"\n')
    (base / "head-home").mkdir()
    with ray_head(head_variables(base), labels="latency-node=edge") as head:
        yield Laptop(folder, head)


def status(laptop: Laptop, run: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(laptop.run("status", run, "--json"))
    return told


def test_a_plan_is_printed_and_nothing_is_sent(laptop: Laptop) -> None:
    done = laptop.done(*SEARCH, "--latency-node", "edge", "--dry-run")
    assert done.stdout.startswith(
        f"ray job submit --no-wait --address {laptop.head.address} --submission-id model-300kB "
    )
    for line in (
        "Ray       2.",
        "autoprune ",
        "Room      1 node, 1 CPU",
        "Storage   ",
        "Latency   timed on ",
    ):
        assert line in done.stderr
    assert "Send      code (my_rows.py, my_words.py)  0.0 MB in 2 files" in done.stderr
    assert "used without a token" in done.stderr
    root = Path(laptop.variables["AUTOPRUNE_STORAGE_ROOT"])
    assert [path for path in root.rglob("*") if path.is_file()] == []
    assert laptop.run("jobs") == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cpus-per-trial", 2, "--latency-node", "pi"],
         ["none for a worker of 2 CPU", "no node has the label latency-node=pi: start it with: ray start"]),
    ],
)  # fmt: skip
def test_what_the_cluster_lacks_is_told_before_anything_is_sent(
    laptop: Laptop, words: list[object], told: list[str]
) -> None:
    message = laptop.done(*SEARCH, *words, "--name", "lacking", code=2).stderr.splitlines()[-1]
    for text in ("nothing was sent", *told):
        assert text in message
    assert "knows no run 'lacking'" in laptop.done("status", "lacking", code=2).stderr


def test_a_run_is_stopped_gone_on_with_and_fetched_after_its_head_died(laptop: Laptop) -> None:
    """With code of the user, which imports a module beside it, and an export from what was fetched."""
    submit = [*SEARCH, "--trials", 12, "--no-preflight"]
    assert laptop.run(*submit) == "model-300kB\n"
    follower = Follower(laptop, "model-300kB")
    assert "is under way as job model-300kB; nothing was sent" in laptop.done(*submit).stderr
    follower.wait_for("[1/12]")
    assert laptop.run("stop", "model-300kB").startswith(
        "model-300kB: stopped (signal SIGTERM, exit code 143)"
    )
    assert follower.end() == 143
    before = status(laptop, "model-300kB")
    assert (before["state"], before["exit_code"], before["in_flight"]) == ("stopped", 143, 0)
    assert 1 <= before["trials"] < 12
    assert before["next"] == "the same autoprune submit"

    assert laptop.run(*submit) == "model-300kB\n"
    follower = Follower(laptop, "model-300kB")
    follower.wait_for(f"[{before['trials'] + 1}/12]")
    assert follower.end() == 0
    assert sum(line.startswith("[1/12]") for line in follower.lines) == 1  # no trial was run again
    assert status(laptop, "model-300kB")["state"] == "finished"
    assert laptop.run("jobs").startswith("model-300kB: finished; 12 of 12 trials")
    assert (
        "begun with other settings: --seed not given then, 1 now"
        in laptop.done(*submit, "--seed", 1, code=2).stderr
    )

    laptop.head.kill()
    assert laptop.run("status", "model-300kB").startswith("model-300kB: finished; 12 of 12")
    shutil.rmtree(laptop.folder.parent / "head-home")
    del laptop.variables["AUTOPRUNE_CLUSTER"]
    assert laptop.run("fetch", "model-300kB") == "runs/model-300kB\n"
    fetched = laptop.folder / "runs" / "model-300kB"
    assert read_json(fetched / "status.json")["trials"] == 12
    assert (fetched / "logs" / "job.log").read_text().count("$ autoprune ") == 2
    assert laptop.run("report", fetched) == f"{fetched / 'report.html'}\n"
    assert "Checked in a fresh process" in laptop.run("export", fetched, "-o", "out")


def test_a_run_whose_head_died_goes_on_at_another(laptop: Laptop) -> None:
    """Another machine, which has nothing of the run: all of it comes from the storage root."""
    base = laptop.folder.parent
    (base / "other-home").mkdir()
    laptop.head.kill()
    other = start_head(head_variables(base, "other-home"), laptop.head.folder)
    laptop.variables["AUTOPRUNE_CLUSTER"] = other.address
    smaller = ["1kB" if word == "300kB" else word for word in SEARCH]
    laptop.run(*smaller, "--no-preflight", "--name", "small")
    follower = Follower(laptop, "small")
    assert follower.end() == 3, "\n".join(follower.lines)
    assert any("cannot be met" in line for line in follower.lines)
    assert status(laptop, "small")["exit_code"] == 3
    laptop.run(*SEARCH, "--trials", 13, "--no-preflight")
    follower = Follower(laptop, "model-300kB")
    assert follower.end() == 0
    assert any(line.startswith("[13/13]") for line in follower.lines)
    assert sum(line.startswith("[1/") for line in follower.lines) == 1
