"""What is sent to a cluster: a file or a folder, known by the hash of its contents."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from autoprune.core.cache import content_key
from autoprune.core.errors import AutopruneError
from autoprune.core.files import file_hash
from autoprune.run.folder import RUN, STATUS
from autoprune.run.run_lock import LOCK

INPUTS = "inputs"
"""Folder of a storage root with what was sent, each in a folder named by its hash."""

NEVER_SENT = frozenset({
    ".git", ".hg", ".svn", "__pycache__", ".ipynb_checkpoints", ".cache", ".venv", ".mypy_cache",
    ".pytest_cache", ".ruff_cache", "node_modules",
})  # fmt: skip
"""Folders of version control and caches: no model, data or code is read from them."""

UNREAD_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".ot", ".gguf")
"""Ends of the names of weights that are never read where there are safetensors beside them."""


@dataclass(frozen=True)
class SentFile:
    """A file to send. path: below the folder of its content, with `/`. sha256: hex."""

    path: str
    source: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Content:
    """A file or folder to send. name: its own; the paths of its files begin with it.

    left_out: what of it is not sent, each with its reason. label: what people are shown in place of `source`.
    """

    name: str
    source: Path
    files: tuple[SentFile, ...]
    left_out: tuple[str, ...] = ()
    label: str | None = None

    @property
    def shown(self) -> str:
        """Where it comes from, for people: of files of several places what they are at the top."""
        return self.label or str(self.source)

    @property
    def key(self) -> str:
        """24 hex digits that tell it from any other content, wherever it lies."""
        return key_of((file.path, file.sha256) for file in self.files)

    @property
    def place(self) -> str:
        """Where it lies below a storage root."""
        return f"{INPUTS}/{self.key}/{self.name}"

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.size_bytes for file in self.files)

    def manifest(self) -> dict[str, Any]:
        """What is written beside its files, after the last of them."""
        rows = [[file.path, file.size_bytes, file.sha256] for file in self.files]
        return {"version": 1, "name": self.name, "files": rows}


def key_of(files: Iterable[tuple[str, str]]) -> str:
    """The key of a content, from the paths and SHA-256 of its files."""
    return content_key("content", 1, sorted(files))


def read_content(path: Path) -> Content:
    """A file or folder of the user, hashed; folders of version control, caches and runs are left out.

    Raises:
        AutopruneError: where nothing is there, or nothing of it may be sent.
    """
    path = path.expanduser()
    if not path.exists():
        raise AutopruneError(f"{path} is not there: it cannot be sent to the cluster")
    name = path.absolute().name or "input"
    if path.is_file():
        return Content(name, path.absolute(), (_sent(path, name),))
    left_out: list[str] = []
    sources = [*_walked(path, left_out.append)]
    if any(source.suffix == ".safetensors" for source in sources):
        unread = [source for source in sources if source.suffix in UNREAD_WEIGHTS]
        left_out += [f"{source.relative_to(path)} (weights that are never read)" for source in unread]
        sources = [source for source in sources if source not in unread]
    if not sources:
        raise AutopruneError(f"{path} holds no file that can be sent to the cluster")
    files = tuple(_sent(source, f"{name}/{source.relative_to(path).as_posix()}") for source in sources)
    return Content(name, path.absolute(), files, tuple(left_out))


def gathered(name: str, folder: Path, sources: Mapping[str, Path], left_out: Iterable[str] = ()) -> Content:
    """Files of several places as one content, by the paths that they get below `name`."""
    files = tuple(_sent(source, f"{name}/{path}") for path, source in sorted(sources.items()))
    tops = dict.fromkeys(path.partition("/")[0] for path in sorted(sources))
    return Content(name, folder, files, tuple(left_out), f"{name} ({', '.join(tops)})")


def files_below(folder: Path, left_out: Callable[[str], object]) -> list[Path]:
    """Every file that may be sent; `left_out` hears what is passed over, with its reason."""
    return [*_walked(folder, left_out)]


def _walked(folder: Path, left_out: Callable[[str], object]) -> Iterator[Path]:
    """Files below a folder, links followed, each real folder once."""
    seen: set[str] = set()

    def walk(place: Path) -> Iterator[Path]:
        real = os.path.realpath(place)
        if real in seen:
            left_out(f"{place.relative_to(folder)}/ (a link to a folder that is there already)")
            return
        seen.add(real)
        for entry in sorted(place.iterdir()):
            if entry.is_dir():
                if entry.name in NEVER_SENT:
                    left_out(f"{entry.relative_to(folder)}/ (version control or a cache)")
                elif is_run(entry):
                    left_out(f"{entry.relative_to(folder)}/ (a run of autoprune)")
                else:
                    yield from walk(entry)
            elif entry.is_file():
                if entry.suffix != ".pyc":
                    yield entry
            else:
                left_out(f"{entry.relative_to(folder)} (no file: a broken link, a pipe or a socket)")

    yield from walk(folder)


def is_run(folder: Path) -> bool:
    """Whether a folder is one of a run."""
    return (folder / RUN).is_file() and any((folder / name).exists() for name in (STATUS, LOCK))


def _sent(source: Path, path: str) -> SentFile:
    try:
        return SentFile(path, source, source.stat().st_size, file_hash(source))
    except OSError as error:
        raise AutopruneError(f"{source} cannot be read: {error.strerror or error}") from error


def check_relative(path: str, *, where: str) -> str:
    """A path of a manifest, which must stay below its folder.

    Raises:
        AutopruneError: where it does not.

    >>> check_relative("model/config.json", where="x")
    'model/config.json'
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or any(part in ("..", ".", "") for part in parts):
        raise AutopruneError(f"{where} is damaged: it names a file {path!r}, outside its folder")
    return path
