"""Where a run may be: what cannot be written, locked, opened or found is one error before all else."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import hypothesis.strategies as some
import pytest
from click.testing import CliRunner

from autoprune.cli.main import main
from autoprune.core.database_address import VARIABLE
from autoprune.core.errors import AutopruneError
from autoprune.core.files import reason_of, why_unwritable, write_json
from autoprune.core.progress import Progress
from autoprune.pipeline.places import check_places, check_taken_up
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, RUN, RunFolder, read_run
from autoprune.run.identity import hold_to
from autoprune.run.run_lock import HOLDER, LOCK
from autoprune.run.run_record import Identity
from autoprune.run.whereabouts import check_inputs, located
from tests.support.database_server import ENCODED, PASSWORD, postgresql
from tests.support.paths import ROOT

NOWHERE = Path("/proc/autoprune")
"""Below a folder that nothing can be written into, root's own included."""

FULL = """
set -e
mount -t tmpfs -o size=16k none "$DISK"
mkdir "$DISK/there"
head -c 100000 /dev/zero > "$DISK/filler" 2>/dev/null || true
cd "$DISK"
"$PYTHON" -c '
import os, sys
from pathlib import Path
from autoprune.run.folder import Config, RunFolder
for path in (Path("run"), Path("a/b"), Path("there")):
    try:
        RunFolder.create(path, Config(), "")
    except OSError as error:
        print(path, "errno", error.errno)
print(*sorted(os.listdir(".")), os.listdir("there"))
os.remove("filler")
RunFolder.create(Path("run"), Config(), "").close()
RunFolder.open(Path("run")).close()
print("begun")
'
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))


# ---- what cannot be written ---------------------------------------------------------------------


def test_whether_a_folder_can_be_written_is_tried_out_and_leaves_nothing(tmp_path: Path) -> None:
    assert why_unwritable(tmp_path) == why_unwritable(tmp_path / "new" / "deep") == ""
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("gone")
    assert "Not a directory" in why_unwritable(tmp_path / "file" / "inside")
    assert why_unwritable(tmp_path / "link") == "No such file or directory"
    assert why_unwritable(NOWHERE / "x").startswith("/proc: ")


def test_a_run_folder_that_cannot_be_made_is_refused_by_name() -> None:
    for call in (
        lambda: check_places(Config(), NOWHERE / "run"),
        lambda: RunFolder.create(NOWHERE / "run", Config(), ""),
    ):
        with pytest.raises(
            AutopruneError, match=f"{NOWHERE}/run cannot be made .*: give another -o"
        ) as caught:
            call()
        assert "Errno" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_refused_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(NOWHERE))
    with pytest.raises(AutopruneError, match=r"cannot be written .* set the .* variable AUTOPRUNE_CACHE"):
        check_places(Config(), tmp_path / "run")
    monkeypatch.delenv("AUTOPRUNE_CACHE")
    monkeypatch.setenv("HOME", str(NOWHERE))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(AutopruneError, match="AUTOPRUNE_CACHE, which is not set, to a folder"):
        check_places(Config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_be_begun_on_a_full_disk_leaves_nothing(
    tmp_path: Path,
) -> None:
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a disk of his own")
    environment = {**os.environ, "DISK": str(tmp_path), "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *failed, left, begun = done.stdout.splitlines()
    assert failed, done.stdout
    assert left == "filler there []"
    assert begun == "begun"


@pytest.mark.parametrize("names", [[LOCK], [LOCK, HOLDER], [LOCK, HOLDER, f".{RUN}.abc"]])
def test_what_a_begin_left_that_was_cut_off_is_no_run(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    RunFolder.create(tmp_path, Config(), "").close()
    RunFolder.open(tmp_path).close()


# ---- locks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [37, 38, 95])  # ENOLCK, ENOSYS and EOPNOTSUPP of Linux
def test_a_file_system_without_locks_is_told_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    RunFolder.create(tmp_path / "there", Config(), "").close()
    monkeypatch.setattr(fcntl, "flock", refuse)  # as such a file system answers
    for call in (
        lambda: RunFolder.create(tmp_path / "run", Config(), ""),
        lambda: RunFolder.open(tmp_path / "there"),
    ):
        with pytest.raises(AutopruneError, match=r"file system without locks \(.*\).* local disk"):
            call()
    assert not (tmp_path / "run").exists()


# ---- inputs -------------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path) -> Callable[[Path], Path]:
    """A run in a folder, whose inputs lie beside it."""

    def begin(base: Path, *, at: str = "runs/x") -> Path:
        base.mkdir(parents=True)
        (base / "model").mkdir()
        (base / "rows.csv").write_text("text,label\n")
        config = Config.of(model="model", dataset="rows.csv")
        run = RunFolder.create(base / at, config, "")
        paths = {"model": str(base / "model"), "dataset": str(base / "rows.csv")}
        record = Identity(weights="a", head=None, data="b", paths=paths, folder=str(base), run=str(run.path))
        run.note(inputs=record)
        run.close()
        return run.path

    return begin


def test_inputs_are_found_where_they_were_from_any_folder(
    tmp_path: Path, begun: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path / "a")
    (tmp_path / "model").mkdir()  # a trap: it is not what the run began with
    monkeypatch.chdir(tmp_path)
    config = located(RunFolder.open(run).config(), run)
    assert (config.model.name, config.data.dataset) == (f"{tmp_path}/a/model", f"{tmp_path}/a/rows.csv")


@pytest.mark.parametrize("at", ["x", "runs/x", "../runs/deep/x", "model/run"])
def test_a_run_that_is_moved_with_its_inputs_finds_them(
    tmp_path: Path, begun: Callable[..., Path], at: str
) -> None:
    top = tmp_path / "one"
    run = begun(top / "a", at=at)
    shutil.move(top, tmp_path / "other")
    moved = tmp_path / "other" / os.path.relpath(run, top)
    config = Config.from_json(read_run(moved).config)
    check_inputs(config, moved)
    found = located(config, moved)
    assert found.model.name is not None
    assert Path(found.model.name).samefile(tmp_path / "other" / "a" / "model")
    assert found.data.dataset == str(tmp_path / "other" / "a" / "rows.csv")


def test_what_cannot_be_found_is_named_with_every_place_it_was_looked_for(
    tmp_path: Path, begun: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path / "a")
    shutil.move(run, tmp_path / "run")
    (tmp_path / "a" / "rows.csv").unlink()
    monkeypatch.chdir("/")
    config = Config.from_json(read_run(tmp_path / "run").config)
    with pytest.raises(AutopruneError, match=r"began with dataset 'rows\.csv'") as caught:
        check_inputs(config, tmp_path / "run")
    for place in (tmp_path / "a" / "rows.csv", "/rows.csv", tmp_path.parent / "rows.csv"):
        assert str(place) in str(caught.value)
    assert "model" not in str(caught.value)


def test_a_run_of_before_its_own_path_was_noted_is_found_by_its_two_parts(
    tmp_path: Path, begun: Callable[..., Path]
) -> None:
    run = begun(tmp_path / "a")
    about = json.loads((run / RUN).read_text())
    del about["inputs"]["run"]
    about["facts"] = {"folder": "runs/x"}
    (run / RUN).write_text(json.dumps(about))
    (tmp_path / "a").rename(tmp_path / "b")
    config = located(Config.from_json(about["config"]), tmp_path / "b" / "runs" / "x")
    assert config.data.dataset == f"{tmp_path}/b/rows.csv"


def test_where_a_run_began_is_noted_before_its_facts_are_written_over(
    tmp_path: Path, begun: Callable[..., Path]
) -> None:
    path = begun(tmp_path / "a")
    about = json.loads((path / RUN).read_text())
    del about["inputs"]["run"]
    about["facts"] = {"folder": "runs/x"}
    (path / RUN).write_text(json.dumps(about))
    run = RunFolder.open(path)
    now = run.about().inputs
    assert now is not None
    hold_to(run, now, Progress(quiet=True))
    inputs = run.about().inputs
    assert inputs is not None
    assert inputs.run == f"{tmp_path}/a/runs/x"
    run.close()


def test_hub_ids_and_functions_are_looked_for_nowhere(tmp_path: Path) -> None:
    config = Config.of(model="owner/name", dataset="module:rows")
    run = RunFolder.create(tmp_path / "run", config, "")
    run.note(inputs=Identity(weights="a", head=None, data="b", folder=str(tmp_path)))
    check_inputs(config, run.path)
    assert located(config, run.path) == config
    run.close()


# ---- the study ----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\x00" + b"x" * 4000])
def test_a_damaged_study_is_told_before_anything_is_loaded(tmp_path: Path, content: bytes) -> None:
    run = RunFolder.create(tmp_path / "run", Config(), "")
    check_taken_up(run)
    assert not (run.path / "study.db").exists()  # nothing is written
    (run.path / "study.db").write_bytes(content)
    with pytest.raises(AutopruneError, match=r"study\.db cannot be opened: .* restore it from a copy"):
        check_taken_up(run)
    assert (run.path / "study.db").read_bytes() == content
    run.close()


def test_a_resume_while_the_database_is_away_ends_with_75_and_says_how_to_go_on(tmp_path: Path) -> None:
    """A real server, as it was when the run began, and is no more."""
    with postgresql() as address:
        url = f"postgresql+psycopg://me:{ENCODED}@{address}"
        run = RunFolder.create(tmp_path / "run", Config.of(storage=url), "")
        check_taken_up(run)
        write_json(run.path / FRONT, {"run": {}, "trials": []})
        run.status("stopped", reason="before")
        run.close()
        before = {file: file.read_bytes() for file in run.path.iterdir() if file.name not in (LOCK, HOLDER)}
        said = resumed(run.path, url, code=2)
        assert f"has no study '{run.study_name()}'" in said
    said = resumed(run.path, url, code=75)
    hidden = url.replace(ENCODED, "***")
    assert f"autoprune: {hidden} does not answer: " in said
    assert f"go on with: autoprune resume {run.path}" in said
    assert PASSWORD not in said
    assert ENCODED not in said
    assert {file: file.read_bytes() for file in before} == before


def resumed(run: Path, url: str, *, code: int) -> str:
    """What a resume says that ends with a code."""
    result = CliRunner().invoke(main, ["resume", str(run)], env={VARIABLE: url})
    assert result.exit_code == code, result.output
    return result.stderr


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(some.binary(max_size=200) | some.text(max_size=60).map(str.encode))
def test_any_run_json_is_read_or_refused_by_name(content: bytes) -> None:
    folder = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp") / f"autoprune-run-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    (folder / RUN).write_bytes(content)
    said = str(folder / RUN)
    try:
        read_run(folder)
    except AutopruneError as error:
        said = str(error)
    shutil.rmtree(folder)
    assert str(folder / RUN) in said


def test_an_error_is_told_without_its_number() -> None:
    assert reason_of(PermissionError(13, "Permission denied", "/x")) == "Permission denied"
    assert reason_of(KeyError()) == "KeyError"
