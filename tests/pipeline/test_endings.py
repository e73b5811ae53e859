"""However a command ends: the exit code, the one line, and what the run's status says afterwards."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autoprune.api.ending import ending_recorded, exit_code
from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError, BudgetError, StoppedError, ValidationError
from autoprune.core.files import full_disk, write_json, write_json_over
from autoprune.core.progress import Progress
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, STATUS, RunFolder
from autoprune.run.status import read_front_file, read_status, status_line
from tests.support.made_run import write_model, write_rows

ROOT = Path(__file__).parents[2]
PROGRAM = "from autoprune.cli.main import main; main()"
FULL = """
set -e
mount -t tmpfs -o size=2m none "$DISK"
set +e
"$@"
echo "exit $?" >&2
cat "$DISK/run/status.json"
mount -o remount,size=60m "$DISK"
"$PYTHON" -c "from autoprune.cli.main import main; main()" resume "$DISK/run" --quiet > "$DISK.log" 2>&1
echo "resumed $?" >&2
"""
"""A command on a disk of 2 MB that is this process's own, then with room."""
PATIENCE_S = 300
HOLD = """
import sys, time
from pathlib import Path
from autoprune.run.folder import RunFolder
run = RunFolder.open(Path(sys.argv[1]))
run.status(sys.argv[2], trials=3)
print("held", flush=True)
time.sleep(60)
"""


@dataclass(frozen=True)
class Small:
    """A model and data that are searched in seconds, and a cache that the searches share."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        cache = {"AUTOPRUNE_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1"}
        return {**os.environ, **cache, "PYTHONPATH": str(ROOT)}

    def search(self, run: Path, *more: object, program: str = PROGRAM) -> list[str]:
        """The command of a search."""
        words = [
            "search", self.folder / "model", "--dataset", self.folder / "rows.csv", "--target", "packed",
            "--budget", "1MB", "--finetune-steps", 1, "--max-length", 16, "--sequence", 16,
            "--calibration-rows", 32, "--workers", 0, "-o", run, *more,
        ]  # fmt: skip
        return [sys.executable, "-c", program, *map(str, words)]

    def called(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("small")
    (folder / "model").mkdir()
    write_model(folder / "model")
    write_rows(folder / "rows.csv", rows=200)
    return Small(folder)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    folder = RunFolder.create(tmp_path / "run", Config(), "autoprune search")
    folder.status("preparing")
    yield folder
    folder.close()


def status_of(run: Path) -> dict[str, Any]:
    status: dict[str, Any] = json.loads((run / STATUS).read_text(encoding="utf-8"))
    return status


# ---- a full disk --------------------------------------------------------------------------------


def test_a_search_on_a_full_disk_ends_with_75_and_is_resumed(small: Small, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a disk of his own")
    run = tmp_path / "run"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL, "sh", *small.search(run, "--trials", 1)],
        env=small.environment | {"DISK": str(tmp_path), "PYTHON": sys.executable},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    *_, told, ended, resumed = done.stderr.splitlines()
    assert (ended, resumed) == ("exit 75", "resumed 0"), done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert told.startswith("autoprune: the disk is full (")
    assert "No space left on device" in told
    assert f"{run}/" in told
    assert told.endswith(f"make room; go on with: autoprune resume {run}")
    status = json.loads(done.stdout)
    assert (status["state"], status["exit_code"]) == ("stopped", 75)
    assert status["reason"].startswith("the disk is full")


def test_the_last_word_fits_where_nothing_new_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / STATUS
    write_json(path, {"state": "running", "best": list(range(100))})
    refused = OSError(28, "No space left on device")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoprune.core.files.tempfile.mkdtemp", lambda **_: (_ for _ in ()).throw(refused))
        write_json_over(path, {"state": "stopped"})
        assert status_of(tmp_path) == {"state": "stopped"}
        with pytest.raises(OSError, match="No space left"):
            write_json_over(path, {"state": "x" * 10_000})
    assert status_of(tmp_path) == {"state": "stopped"}


def test_what_is_no_full_disk_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"exists|Not a directory"):
        write_json_over(tmp_path / "file" / STATUS, {})


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(122, "Disk quota exceeded"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (AutopruneError("study.db cannot be opened: database or disk is full"), True),
        (OSError(13, "Permission denied"), False),
        (ValueError("File too large for the hub"), False),
    ],
)
def test_a_full_disk_is_known_through_what_wraps_it(error: Exception, full: bool) -> None:
    outer = KeyError("the table")
    outer.__cause__ = error
    assert (full_disk(outer) is error) == full
    assert exit_code(outer) == (75 if full else 1)


# ---- whatever ends a driver ---------------------------------------------------------------------


def test_the_first_error_counts_and_not_that_its_status_cannot_be_written(run: RunFolder) -> None:
    (run.path / STATUS).unlink()
    (run.path / STATUS).mkdir()
    with pytest.raises(BudgetError, match="raise it"), ending_recorded(run.path):
        raise BudgetError("raise it")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (BudgetError("raise\nit"), 3, "raise it"),
        (StoppedError("the Ray cluster at x is lost"), 75, "the Ray cluster at x is lost"),
        (MemoryError("640 kB"), 75, "memory is used up (640 kB): "),
        (KeyError("x"), 1, "an error of ours: KeyError: 'x'"),
    ],
)
def test_an_error_is_in_the_status(run: RunFolder, error: Exception, code: int, reason: str) -> None:
    run.status("running", trials=4)
    with pytest.raises(Exception) as caught, ending_recorded(run.path):  # noqa: PT011
        raise error
    status = status_of(run.path)
    assert (status["state"], status["exit_code"], status["trials"]) == ("stopped", code, 4)
    assert status["reason"].startswith(reason)
    assert status["next"] == f"autoprune resume {run.path}"
    assert caught.value.__notes__ == [f"go on with: autoprune resume {run.path}"]


@pytest.mark.parametrize("kind", [AutopruneError, ValidationError])
def test_a_refusal_that_a_resume_would_meet_again_does_not_advise_one(
    run: RunFolder, kind: type[AutopruneError]
) -> None:
    """It had no trial. With trials the same error may be of a cluster that is mended meanwhile."""
    is_refusal = kind is AutopruneError
    again, resume = f"{run.path} holds no trials and can be removed", f"autoprune resume {run.path}"
    with pytest.raises(kind) as caught, ending_recorded(run.path):
        raise kind("no better than guessing")
    assert caught.value.__notes__ == [again if is_refusal else f"go on with: {resume}"]
    assert status_of(run.path)["next"] == ("" if is_refusal else resume)
    assert ("go on with" in status_line(run.path, read_status(run.path))) is not is_refusal
    write_json(run.path / FRONT, {"trials": []})
    with pytest.raises(kind) as caught, ending_recorded(run.path):
        raise kind("a worker died 3 times while it started")
    assert caught.value.__notes__ == [f"go on with: {resume}"]
    assert status_of(run.path)["next"] == resume


def test_a_finished_search_stays_finished_when_nothing_is_within_the_budget(run: RunFolder) -> None:
    run.status("finished")
    with pytest.raises(BudgetError), ending_recorded(run.path):
        raise BudgetError("no trial is within 1 MB")
    assert (status_of(run.path)["state"], status_of(run.path)["exit_code"]) == ("finished", 3)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_while_the_library_is_built_is_in_the_status(
    small: Small, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run = tmp_path / "run"
    environment = small.environment | {"AUTOPRUNE_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(small.search(run), env=environment, stderr=subprocess.PIPE, text=True) as driver:
        try:
            wait_for(lambda: (run / STATUS).is_file(), driver)
            driver.send_signal(number)
            _, told = driver.communicate(timeout=PATIENCE_S)
        finally:
            driver.kill()
    assert (driver.returncode, "Traceback" in told) == (code, False), told
    status = status_of(run)
    assert (status["state"], status["exit_code"]) == ("stopped", code)
    assert status["reason"] == f"signal {number.name}"


def wait_for(ready: Any, driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_reader_that_leaves_ends_it_as_sigpipe_does(run: RunFolder) -> None:
    command = f"{sys.executable} -c '{PROGRAM}' status {run.path}; echo $? >&2"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        ["sh", "-c", command], stdout=write, stderr=subprocess.PIPE, env=environment, text=True, check=True
    )
    os.close(write)
    assert done.stderr.strip() == "141"


class Refusing(io.StringIO):
    """A terminal that has gone."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_progress_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Refusing())
    progress = Progress()
    progress.live = True
    with progress.bar("Trials", 2) as bar:
        bar(1, "a note")
        progress.line("a line")


# ---- a driver that is gone ----------------------------------------------------------------------


@pytest.mark.parametrize("state", ["preparing", "running"])
def test_a_killed_driver_is_gone_and_the_run_resumable(run: RunFolder, state: str) -> None:
    run.close()
    write_json(run.path / FRONT, {"run": {"state": "running"}})
    command = [sys.executable, "-c", HOLD, str(run.path), state]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "held\n"
        alive = read_status(run.path)
        assert (alive["state"], alive["driver"]) == (state, "alive")
        assert read_front_file(run.path)["run"]["state"] == "running"
        driver.kill()
    gone = read_status(run.path)
    assert (gone["state"], gone["driver"], gone["trials"]) == ("gone", "gone", 3)
    assert gone["next"] == f"autoprune resume {run.path}"
    assert read_front_file(run.path)["run"]["state"] == "gone"
    told = CliRunner().invoke(main, ["status", str(run.path)]).stdout
    assert f"gone, resumable (process {driver.pid} on " in told
    assert json.loads(CliRunner().invoke(main, ["status", str(run.path), "--json"]).stdout) == gone


def test_a_driver_of_another_host_is_unknown_with_its_last_word(run: RunFolder) -> None:
    run.close()
    elsewhere = {"state": "running", "pid": 1, "host": "far-away", "updated": time.time() - 720}
    write_json(run.path / STATUS, elsewhere)
    now = read_status(run.path)
    assert (now["state"], now["driver"]) == ("running", "unknown")
    assert "running when process 1 on far-away was last heard of, 12 min ago" in status_line(run.path, now)


def test_workers_of_a_run_under_way_are_told_once(tmp_path: Path) -> None:
    now = {
        "state": "running",
        "driver": "alive",
        "trials": 3,
        "planned": 5,
        "workers": {"idle": 1, "hosts": {}},
    }
    line = status_line(tmp_path, now)
    assert line.startswith(f"{tmp_path}: running; 3 of 5 trials")
    assert line.count("workers 1 idle") == 1


def test_a_status_of_before_is_read(run: RunFolder) -> None:
    write_json(run.path / STATUS, {"state": "stopped", "pid": 1, "host": "x", "updated": 1.0, "trials": 2})
    assert status_line(run.path, read_status(run.path)).startswith(f"{run.path}: stopped; 2 of ? trials")
