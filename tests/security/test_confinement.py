"""Files of a run, a model or an export stay inside of it: no link, no name and no folder leads out."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as some

from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError
from autoprune.core.files import is_inside
from autoprune.models.checkpoint import INDEX, file_of
from autoprune.models.loading import load_pretrained
from autoprune.run.folder import RUN, RunFolder, run_config
from autoprune.run.whereabouts import located
from tests.support.checkpoints import write_checkpoint
from tests.support.made_runs import OLD

SECRET = "what is none of anybody's business"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "key").write_text(SECRET)
    return tmp_path / "home" / "key"


# ---- runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["tokenizer/notes.txt", "trials/0002/notes.txt", "study.db", ".lock", ".holder.json", "a/b/c"]
)
@pytest.mark.parametrize("command", ["status", "resume", "export", "report"])
def test_a_link_that_leads_out_of_a_run_is_refused(
    command: str, name: str, run: Path, secret: Path, tmp_path: Path
) -> None:
    link = run / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(secret)
    more = ["-o", str(tmp_path / "out"), "--trial", "best"] if command == "export" else []
    result = CliRunner().invoke(main, [command, str(run), *more])
    assert result.exit_code == 2, result.output
    assert f"{link} is a link to {secret}, outside of the run folder, and is not followed" in result.output
    assert secret.read_text() == SECRET
    assert not (tmp_path / "out").exists()
    assert SECRET not in result.output


def test_a_folder_that_leads_out_is_refused_and_links_inside_and_to_a_run_are_not(
    run: Path, secret: Path, tmp_path: Path
) -> None:
    (run / "again").symlink_to("run.json")
    (tmp_path / "linked").symlink_to(run)
    assert CliRunner().invoke(main, ["status", str(tmp_path / "linked")]).exit_code == 0
    (run / "library").symlink_to(secret.parent)
    with pytest.raises(AutopruneError, match="library is a link to"):
        RunFolder.open(run)


PARTS = some.lists(some.sampled_from(["..", ".", "a", "run", "b"]), min_size=1, max_size=6)


@given(PARTS)
def test_what_is_inside_is_told_by_where_a_path_ends(parts: list[str]) -> None:
    folder, level, inside = Path("/nowhere/run"), 0, True
    for part in parts:
        level += {"..": -1, ".": 0}.get(part, 1)
        inside = inside and level >= 0
    ends = Path(*[p for p in parts if p != "."]) if any(p != "." for p in parts) else Path()
    if inside:
        assert is_inside(folder / ends, folder)
    assert is_inside(folder, folder)
    assert not is_inside(folder / ".." / "run2", folder)


@pytest.mark.parametrize("folder", ["", ".", "./run/code", "code"])
def test_no_code_is_imported_from_the_run_itself(
    folder: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gives a run away could put a module into it, and name that as its model."""
    about = json.loads((run / RUN).read_text())
    place = str(run) if not folder else folder if folder[0] == "." else str(run / folder)
    about["config"]["model"] = "harmful:build"
    about["inputs"] = {"weights": "0", "head": None, "data": "0", "folder": place}
    (run / RUN).write_text(json.dumps(about))
    monkeypatch.chdir(run.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    before = [*sys.path]
    located(run_config(run), run)
    assert sys.path == before
    assert os.environ["PYTHONPATH"] == ""
    about["inputs"]["folder"] = str(run.parent)
    (run / RUN).write_text(json.dumps(about))
    located(run_config(run), run)
    assert sys.path == [str(run.parent), *before]  # where its user began it


# ---- models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../key", "/etc/hostname", "a/../../key", "1_Pooling/../../key"])
def test_a_name_that_leads_out_of_a_model_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "key").write_text(SECRET)
    for source in (str(tmp_path / "model"), "owner/name"):
        with pytest.raises(AutopruneError, match="that lies outside of it: only its own are read"):
            file_of(source, name)


def test_an_index_that_names_weights_elsewhere_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=2)
    shutil.move(tmp_path / "model" / "model.safetensors", tmp_path / "other.safetensors")
    (tmp_path / "model" / INDEX).write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    (tmp_path / "model" / "x.safetensors").touch()
    with pytest.raises(
        AutopruneError, match=r"names a file '\.\./other\.safetensors' that lies outside of it"
    ):
        load_pretrained(str(tmp_path / "model"), labels=2)


def test_an_index_of_another_form_is_one_error(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", num_labels=2)
    for index in ([], {}, {"weight_map": [1]}, {"weight_map": None}):
        (tmp_path / "model" / INDEX).write_text(json.dumps(index))
        with pytest.raises(AutopruneError, match="does not say which file has which tensor"):
            load_pretrained(str(tmp_path / "model"), labels=2)
