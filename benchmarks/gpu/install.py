"""An environment from pieces, without network: the machine's own packages with the carried ones before them.

Needs the standard library alone, and a pip that the machine's Python has.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

from autoprune.core.errors import AutopruneError
from benchmarks.gpu.pieces import unpack_pieces

ROOT = Path(__file__).parents[2]
WHEELS, DEMO, ENVIRONMENT = "wheels", "demo", "environment"
"""Folders that pieces hold, and the one that is made of them."""


def python_of(folder: Path) -> Path:
    """The interpreter of the environment in a folder."""
    return folder / ENVIRONMENT / "bin" / "python"


def install(folder: Path) -> str:
    """Unpack a folder's pieces beside them, and make the environment; what `pip check` says of it.

    The environment sees what the Python that runs this sees, also where that is itself an environment, whose
    packages `--system-site-packages` alone would not give. Carried packages come first. autoprune is this
    tree. What pip finds wrong is no error: a package that nothing here uses may be so.

    Raises:
        AutopruneError: when a piece is missing or damaged, or pip cannot install a wheel.
    """
    unpack_pieces(folder, folder)
    environment = folder / ENVIRONMENT
    venv.EnvBuilder(system_site_packages=True, clear=True, with_pip=False, symlinks=True).create(environment)
    python = python_of(folder)
    [site] = environment.glob("lib/python*/site-packages")
    _see_packages_of_this_python(site)
    _add_tree(site)
    if wheels := sorted(str(path) for path in (folder / WHEELS).glob("*.whl")):
        options = ("--quiet", "--no-index", "--no-deps", "--no-compile", "--ignore-installed")
        done = _pip(python, "install", *options, *wheels)
        if done.returncode:
            raise AutopruneError(f"pip cannot install the wheels of {folder}: {done.stderr.strip()[-800:]}")
    return _pip(python, "check").stdout.strip()


def _see_packages_of_this_python(site: Path) -> None:
    if sys.prefix == sys.base_prefix:
        return
    places = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    lines = [f"import site; site.addsitedir({place!r})" for place in places]
    (site / "machine.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _add_tree(site: Path) -> None:
    """What an editable install of autoprune writes, for which the machine has no build backend."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (site / "autoprune.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    about = site / f"autoprune-{project['version']}.dist-info"
    about.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
    lines += [f"Requires-Dist: {text}" for text in project["dependencies"]]
    (about / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (about / "RECORD").touch()


def _pip(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """This Python's pip at work on another environment, which needs none of its own."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)
