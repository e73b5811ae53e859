"""Code of the user that a search names (`module:function`): which files it is, without running it."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.jobs.contents import Content, files_below, gathered

CODE = "code"
"""Name of the content that code is sent as; modules are imported from it."""

_BINDERS = ("globals", "setattr", "exec")
"""A module that calls one of these may bind what its text does not name."""

MOST_BYTES = 100_000_000
"""Code beyond this is refused: what is as large is data, weights or a mistake."""


@dataclass(frozen=True)
class UserCode:
    """Modules that are sent, and those that must be installed on the cluster.

    content: None where nothing is sent. named: modules of the command line, which are imported at the start.
    """

    content: Content | None
    named: tuple[str, ...]
    installed: tuple[str, ...]


def user_code(references: Iterable[str], folder: Path) -> UserCode:
    """The files of the modules that `references` name, and of what these import beside them.

    Args:
        references: as `package.module:function`.
        folder: the working directory, which is imported from first.

    Raises:
        AutopruneError: where a module is nowhere, has no such function, cannot be read, or is larger than
            `MOST_BYTES`.
    """
    references = tuple(references)
    named = tuple(dict.fromkeys(reference.partition(":")[0] for reference in references))
    places = [str(folder), *(place for place in sys.path if place and os.path.isdir(place))]
    sent: dict[str, Path] = {}
    left_out: list[str] = []
    installed: list[str] = []
    waiting, seen = [(name.partition(".")[0], True) for name in named], set[str]()
    while waiting:
        top, is_named = waiting.pop()
        if top in seen:
            continue
        seen.add(top)
        origin = _origin(top, places)
        if origin is None:
            if is_named:
                raise AutopruneError(
                    f"module {top!r} is in no folder that is imported from (looked in {folder} and among the "
                    "installed packages): start autoprune in the folder that has it"
                )
            continue
        if _is_installed(origin):
            if is_named:
                installed.append(top)
            continue
        files = _files(origin, left_out.append)
        sent |= files
        for name in _imported(files.values()):
            waiting.append((name, False))
    for reference in references:
        _check_bound(reference, sent)
    if not sent:
        return UserCode(None, named, tuple(installed))
    _check_size(sent)
    return UserCode(gathered(CODE, folder, sent, left_out), named, tuple(installed))


def top_level(code: Path) -> list[str]:
    """Paths of the modules and packages in a folder of code, as Ray takes them for `py_modules`."""
    return [str(entry) for entry in sorted(code.iterdir()) if entry.is_dir() or entry.suffix == ".py"]


def _origin(top: str, places: list[str]) -> Path | None:
    """The file or folder of a module at the top, found and not imported; None for one built in."""
    spec = importlib.machinery.PathFinder.find_spec(top, places)
    if spec is None:
        return None
    if spec.origin is not None and spec.has_location:
        path = Path(spec.origin)
        return path.parent if path.name == "__init__.py" else path
    locations = list(spec.submodule_search_locations or ())
    return Path(locations[0]) if locations else None


def _is_installed(origin: Path) -> bool:
    """Whether a module is of Python itself or of an installed package, which the cluster has by itself."""
    own = {str(Path(__file__).parents[1])}
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {*(sysconfig.get_paths()[name] for name in names), *site.getsitepackages(), *own}
    if site.ENABLE_USER_SITE:
        folders.add(site.getusersitepackages())
    place = os.path.realpath(origin)
    roots = [os.path.realpath(root) for root in folders]
    return any(place == root or place.startswith(root + os.sep) for root in roots)


def _files(origin: Path, left_out: object) -> dict[str, Path]:
    """Files of a module, by the path they are imported at."""
    if origin.is_file():
        if origin.suffix != ".py":
            raise AutopruneError(
                f"{origin} is compiled code, which runs on this machine alone: install it on the cluster"
            )
        return {origin.name: origin}
    files = files_below(origin, left_out)  # type: ignore[arg-type]
    return {f"{origin.name}/{file.relative_to(origin).as_posix()}": file for file in files}


def _imported(files: Iterable[Path]) -> Iterator[str]:
    """Modules at the top that Python files import by their whole name."""
    for file in files:
        if file.suffix != ".py":
            continue
        try:
            tree = ast.parse(file.read_bytes(), str(file))
        except (SyntaxError, ValueError) as error:
            raise AutopruneError(f"{file} cannot be imported: {error}. Mend it before it is sent") from error
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield node.module.partition(".")[0]


def _check_bound(reference: str, sent: dict[str, Path]) -> None:
    """Refuse `module:function` where nothing in the module's file could bind the function."""
    module, _, function = reference.partition(":")
    stem = module.replace(".", "/")
    file = sent.get(f"{stem}.py") or sent.get(f"{stem}/__init__.py")
    if file is None:
        return
    bound: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.Name) and (isinstance(node.ctx, ast.Store) or node.id in _BINDERS):
            bound.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if function not in bound and not bound & {"*", "__getattr__", *_BINDERS}:
        raise AutopruneError(f"{reference!r}: {file} binds no {function!r}")


def _check_size(sent: dict[str, Path]) -> None:
    sizes = sorted(((path.stat().st_size, name) for name, path in sent.items()), reverse=True)
    total = sum(size for size, _ in sizes)
    if total > MOST_BYTES:
        largest = ", ".join(f"{name} {size / 1e6:.1f} MB" for size, name in sizes[:3])
        raise AutopruneError(
            f"the code that the search names is {total / 1e6:.0f} MB, and at most {MOST_BYTES / 1e6:.0f} MB "
            f"are sent; the largest files are {largest}. Move data and weights out of the package: give "
            "them with --dataset and --weights"
        )
