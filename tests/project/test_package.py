"""Wheel and sdist, built as a release is, installed where the repository cannot be imported, and used.

The libraries that autoprune needs are those of this environment, which a path file names: to install torch
again takes minutes and shows nothing of this package. What the wheel itself holds is all that is tested.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.tiny_search import OPTIONS, environment, write_inputs

pytestmark = pytest.mark.slow

UNREACHABLE = ("Could not find a version", "No matching distribution", "ConnectionError", "Retrying")


@dataclass(frozen=True)
class Built:
    """The files of a release: `wheel` was made from the repository, `again` from what the sdist holds."""

    wheel: Path
    sdist: Path
    again: Path


def run(command: Sequence[object], *, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def made_environment(folder: Path) -> Path:
    """The Python of a new virtual environment without anything in it."""
    run([sys.executable, "-m", "venv", "--without-pip", folder], cwd=folder.parent)
    return folder / "bin" / "python"


def pip(python: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """This environment's pip, working on another."""
    command = [sys.executable, "-m", "pip", "--python", python, "-q", "--disable-pip-version-check", *words]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    base = tmp_path_factory.mktemp("built")
    python = made_environment(base / "builder")
    done = pip(python, "install", "hatchling")
    if done.returncode != 0 and any(word in done.stderr for word in UNREACHABLE):
        pytest.skip(f"the build backend cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    run([python, "-m", "hatchling", "build", "-d", base / "release"], cwd=ROOT)
    (wheel,), (sdist,) = ([*(base / "release").glob(name)] for name in ("*.whl", "*.tar.gz"))
    with tarfile.open(sdist) as archive:
        archive.extractall(base / "unpacked", filter="data")
    (source,) = (base / "unpacked").iterdir()
    run([python, "-m", "hatchling", "build", "-t", "wheel", "-d", base / "again"], cwd=source)
    (again,) = (base / "again").glob("*.whl")
    return Built(wheel, sdist, again)


def contents(wheel: Path) -> dict[str, int]:
    """Files of a wheel with their checksums, but the list of them."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            info.filename: info.CRC for info in archive.infolist() if not info.filename.endswith("RECORD")
        }


def tracked(*folders: str) -> set[str]:
    """Files of the repository below some folders."""
    names = (str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*"))
    return {name for name in names if (ROOT / name).is_file() and "__pycache__" not in name}


def test_the_wheel_holds_the_package_and_the_spaces_and_nothing_else(built: Built) -> None:
    names = {name for name in contents(built.wheel) if ".dist-info/" not in name}
    spaces = {f"autoprune/{name}" for name in tracked("search_spaces")}
    assert names == tracked("autoprune") | spaces
    assert "autoprune/py.typed" in names
    assert contents(built.again) == contents(built.wheel)


def test_the_sdist_holds_what_building_and_testing_need(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked("autoprune", "search_spaces", "tests") <= names
    assert {"pyproject.toml", "Makefile", "constraints.txt", "demo-requirements.txt", "README.md", "LICENSE",
            "CHANGELOG.md", "CITATION.cff", ".ci/run"} <= names  # fmt: skip
    assert not any(name.startswith((".venv", "runs", ".cache")) for name in names)


# ---- as a user has it ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own; commands are run in `base`."""

    base: Path
    python: Path
    variables: dict[str, str]

    def autoprune(self, *words: object) -> str:
        return run([self.python.parent / "autoprune", *words], cwd=self.base, env=self.variables)

    def code(self, text: str) -> str:
        return run([self.python, "-c", text], cwd=self.base, env=self.variables)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    base = tmp_path_factory.mktemp("installed")
    python = made_environment(base / "venv")
    done = pip(python, "install", "--no-deps", built.wheel)
    assert done.returncode == 0, done.stderr
    (site,) = (base / "venv" / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")  # path files there are not read
    variables = {name: value for name, value in environment(base / "cache").items() if name != "PYTHONPATH"}
    return Installed(base, python, variables)


def test_the_repository_cannot_be_imported(installed: Installed) -> None:
    told = installed.code(
        "import autoprune, importlib.util, sys; print(autoprune.__file__, importlib.util.find_spec('tests'), "
        f"{str(ROOT)!r} in sys.path)"
    )
    place, tests, on_path = told.split()
    assert Path(place).is_relative_to(installed.base / "venv")
    assert (tests, on_path) == ("None", "False")


def test_the_commands_answer(installed: Installed) -> None:
    version = installed.autoprune("--version")
    assert "0.1.0" in version
    module = [installed.python, "-m", "autoprune", "--version"]
    assert run(module, cwd=installed.base, env=installed.variables) == version
    listed = [line.split()[0] for line in installed.autoprune("spaces").splitlines()]
    assert listed == sorted(path.stem for path in (ROOT / "search_spaces").glob("*.yaml"))
    record = json.loads(installed.autoprune("doctor", "--json"))
    assert Path(record["versions"]["package"]).is_relative_to(installed.base)


def test_a_search_its_report_an_export_and_the_model(installed: Installed) -> None:
    """All of a user's way."""
    write_inputs(installed.base)
    installed.autoprune("search", "model", "--dataset", "rows.csv", *OPTIONS, "-o", "run", "-q")
    page = installed.base / "run" / "report.html"
    page.unlink()
    assert installed.autoprune("report", "run").strip() == "run/report.html"
    assert page.stat().st_size > 10_000
    assert "Checked in a fresh process" in installed.autoprune("export", "run", "-o", "out", "-q")
    told = installed.code(
        "import torch; from autoprune import load; model = load('out')\n"
        "print(tuple(model(input_ids=torch.ones(2, 8, dtype=torch.long)).logits.shape))"
    )
    assert told.strip().startswith("(2, ")
