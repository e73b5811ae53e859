"""The words for a cluster's runs, on a run of this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError
from autoprune.core.progress import Progress
from autoprune.jobs.local_run import is_driven, local_log, stop_local
from autoprune.run.config import Config
from autoprune.run.folder import LOG, RunFolder

DRIVER = """
import sys, time
from pathlib import Path
from autoprune.api.ending import ending_recorded
from autoprune.cli.signals import reported
from autoprune.core.progress import Progress
from autoprune.run.folder import LOG, RunFolder
run = RunFolder.open(Path(sys.argv[1]))
with reported(), ending_recorded(run.path):
    run.status("running", trials=1, planned=5)
    Progress(quiet=True, log=run.path / LOG).line("[1/5] #1")
    print("at work", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = RunFolder.create(tmp_path / "run", Config(), "autoprune search")
    folder.close()
    return folder.path


def test_a_driver_is_followed_and_stopped(run: Path) -> None:
    """Its log has what it said and why it ended; its exit code is that of whoever follows."""
    assert not stop_local(run, seconds=1)
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, run], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    try:
        assert driver.stdout.readline() == "at work\n"
        assert is_driven(run)
        follower = subprocess.Popen(
            [sys.executable, "-c", "from autoprune.cli.main import main; main()", "logs", run, "-f"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert follower.stdout is not None
        assert follower.stdout.readline() == "[1/5] #1\n"
        result = CliRunner().invoke(main, ["stop", str(run)])
        assert result.exit_code == 0, result.output
        assert "stopped (signal SIGTERM, exit code 143)" in result.stdout
        assert driver.wait(10) == 143
        assert follower.communicate(timeout=20)[0] == "ended: signal SIGTERM\n"
        assert follower.returncode == 143
    finally:
        driver.kill()
        driver.stdout.close()
    assert "was not under way" in CliRunner().invoke(main, ["stop", str(run)]).stderr


def test_a_log_has_every_line_without_secrets(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AutopruneError, match="has no log"):
        list(local_log(run))
    Progress(quiet=True, log=run / LOG).line("from https://me:pa55@host/x")
    Progress(log=run / LOG).line("second")
    assert "".join(local_log(run)) == "from https://***@host/x\nsecond\n"
    assert capsys.readouterr().err == "second\n"


def test_runs_below_runs_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOPRUNE_CLUSTER", raising=False)
    monkeypatch.delenv("AUTOPRUNE_STORAGE_ROOT", raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        folder = RunFolder.create(Path("runs") / name, Config(), "autoprune search")
        folder.status("finished", trials=5, planned=5)
        folder.close()
    lines = CliRunner().invoke(main, ["jobs"]).stdout.splitlines()
    assert [line.partition(";")[0] for line in lines] == ["runs/a: finished", "runs/b: finished"]
