"""The wheels that a bare GPU machine lacks: autoprune's dependencies and theirs, but for what it has."""

from __future__ import annotations

import email
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from autoprune.core.errors import AutopruneError
from benchmarks.gpu.install import ROOT

PRESENT = Path(__file__).parent / "present.txt"
"""What the machine has, one package a line, with its version where that is known."""

PLATFORMS = ("manylinux_2_34", "manylinux_2_31", "manylinux_2_28", "manylinux_2_27", "manylinux_2_24",
             "manylinux_2_17", "manylinux2014", "manylinux_2_12", "manylinux2010", "manylinux1")  # fmt: skip
PROCESSOR = "x86_64"


def read_present(path: Path) -> dict[str, str | None]:
    """Packages of a list, by name; None where it has no version."""
    present: dict[str, str | None] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("#")[0].strip().partition("==")
        if name:
            present[canonicalize_name(name)] = version or None
    return present


def download_wheels(
    folder: Path, *, python: str, present: Mapping[str, str | None], pip: Iterable[str] = ()
) -> list[str]:
    """Fetch the wheels into a folder, without those that are present; what does not fit what is present.

    Versions are those of `constraints.txt` where it names a package. Needs a package index.

    Args:
        python: version of the machine's, as 3.12.
        pip: more arguments for `pip download`.

    Returns:
        A sentence for each requirement that a present package is known not to meet.

    Raises:
        AutopruneError: when pip does not find a package, with what it said.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [(Requirement(text), "autoprune") for text in project["dependencies"]]
    had: set[str] = set()
    conflicts: list[str] = []
    while waiting:
        wanted: dict[str, Requirement] = {}
        for requirement, asker in waiting:
            name = canonicalize_name(requirement.name)
            if name in present:
                version = present[name]
                if version is not None and not requirement.specifier.contains(version, prereleases=True):
                    conflicts.append(f"{asker} needs {requirement}, and the machine has {version}")
            elif name not in had:
                wanted[name] = requirement
        had |= wanted.keys()
        _fetch([str(requirement) for requirement in wanted.values()], folder, python, pip)
        waiting = [
            (needed, name)
            for name, requirement in wanted.items()
            for needed in requirements_of(_wheel_of(folder, name), python, requirement.extras)
        ]
    return conflicts


def requirements_of(wheel: Path, python: str, extras: Iterable[str] = ()) -> list[Requirement]:
    """What a wheel needs on such a machine, with some of its extras."""
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        path = min(names, key=lambda name: name.count("/"))  # Ray's has others' deeper down
        fields = email.message_from_bytes(file.read(path))
    where = {
        "python_version": python, "python_full_version": f"{python}.0", "implementation_name": "cpython",
        "platform_python_implementation": "CPython", "sys_platform": "linux", "platform_system": "Linux",
        "platform_machine": PROCESSOR, "os_name": "posix",
    }  # fmt: skip
    needed = [Requirement(text) for text in fields.get_all("Requires-Dist", [])]
    return [
        one
        for one in needed
        if one.marker is None or any(one.marker.evaluate({**where, "extra": name}) for name in ("", *extras))
    ]


def _fetch(requirements: list[str], folder: Path, python: str, pip: Iterable[str]) -> None:
    if not requirements:
        return
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_{PROCESSOR}")]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--implementation", "cp", "--python-version", python, *platforms,
        "--constraint", str(ROOT / "constraints.txt"), "--dest", str(folder), *pip, *requirements,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AutopruneError(
            f"pip download failed for {', '.join(requirements)}: {done.stderr.strip()[-800:]}"
        )


def _wheel_of(folder: Path, name: str) -> Path:
    return next(path for path in folder.glob("*.whl") if canonicalize_name(path.name.split("-")[0]) == name)
