"""The library's folder: what each file says of itself, and how the folder is kept within its limit.

A file is named by content, so any of them may go at any time and is made again when asked for. Who
reads one touches it; when the folder is over its limit, those touched longest ago go. No lock is
taken: two processes that clear up at once pick the same files, a mapping outlives its file's name, and
a file that goes between being found and being opened is like one that was never there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from autoprune.core.cache import cache_folder
from autoprune.core.errors import AutopruneError
from autoprune.space.budget import parse_budget

VERSION = 8
"""Raised when variants or their files come out differently; old files are then no longer found."""

LIMIT_VARIABLE = "AUTOPRUNE_LIBRARY_LIMIT"

DEFAULT_LIMIT_BYTES = 20 * 10**9
"""Room for 50 models of MiniLM's size, whose variants take 0.36 GB, or for 8 of BERT-base's, at 2.2 GB."""

FILL = 0.9
"""Share of the limit that is left in use once it was passed, so that not every new file clears up."""

LEFTOVER_SECONDS = 3600.0
"""Age from which a temporary file has no writer any more: writing one takes a second."""

_FILE = re.compile(r"[0-9a-f]{24}\.safetensors")  # `files.content_key`
_LEFTOVER = re.compile(r"\.[0-9a-f]{24}\.safetensors\..+")  # `files.written_whole`


def library_path() -> Path:
    """Where the library lies that all searches of this machine share."""
    return cache_folder() / "library"


def limit_bytes() -> int:
    """Bytes that the library may take: `AUTOPRUNE_LIBRARY_LIMIT`, or 20 GB.

    Raises:
        AutopruneError: when that is set to anything but a size.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return DEFAULT_LIMIT_BYTES
    given = None
    with contextlib.suppress(AutopruneError):  # its message speaks of a budget
        given = parse_budget([text]).size_bytes
    if given is None:
        raise AutopruneError(
            f"{LIMIT_VARIABLE}={text!r} is no size; set it to one such as 20GB or 500MiB, or unset it "
            f"for {DEFAULT_LIMIT_BYTES // 10**9}GB"
        )
    return given


@dataclass(frozen=True)
class Note:
    """What a file says of itself: a unit at a ratio, in all `bits`, for the model and data of `key`.

    made: seconds since 1970. sums: a checksum of each tensor by name. importance: by which pieces were
    removed, out of `importances`; empty where none were, of tokens, and in files of before it was noted.
    """

    version: int
    key: str
    unit: str
    kind: str
    ratio: float
    bits: tuple[int | str, ...]
    made: float
    sums: Mapping[str, int]
    importance: str = ""
    importances: tuple[str, ...] = ()

    def metadata(self) -> dict[str, str]:
        """For a safetensors file; `from_metadata` reads it back."""
        text = json.dumps(asdict(self))
        return {"autoprune": text, "crc32": str(zlib.crc32(text.encode()))}

    @classmethod
    def from_metadata(cls, found: Mapping[str, str] | None) -> Note | None:
        """Inverse of `metadata`; None where a file has no note, as before version 3.

        What other versions said besides is left out, so that they are known as such.

        Raises:
            ValueError: when the note is not what was written.
        """
        if not found or "autoprune" not in found:
            return None
        text = found["autoprune"]
        if found.get("crc32") != str(zlib.crc32(text.encode())):
            raise ValueError("its note is not what was written")
        data = json.loads(text)
        known: dict[str, Any] = {
            one.name: data[one.name] for one in fields(cls) if one.name in data or one.name in _NEEDED
        }
        lists: dict[str, Any] = {
            name: tuple(known[name]) for name in ("bits", "importances") if name in known
        }
        return cls(**known | lists)


_NEEDED = {one.name for one in fields(Note) if one.default is MISSING}


@dataclass(frozen=True)
class Held:
    """A file of the library, when it was last used (seconds since 1970), and its note.

    problem: why it cannot be read; it is then made again when asked for.
    """

    path: Path
    size_bytes: int
    used: float
    note: Note | None = None
    problem: str = ""


def holdings(folder: Path) -> list[Held]:
    """Every file of the library by name. Tensors are not read: only what spoils a header is found."""
    return [_described(one) for one in sorted(_files(folder), key=lambda one: one.path.name)]


def _described(one: Held) -> Held:
    """The file with its note or its problem; safetensors compares the header with the file's length."""
    try:
        with safe_open(one.path, "numpy") as file:
            return Held(one.path, one.size_bytes, one.used, Note.from_metadata(file.metadata()))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        return Held(one.path, one.size_bytes, one.used, problem=str(error))


def leftovers(folder: Path) -> list[Held]:
    """Temporary files: being written now, or left by a writer that was killed."""
    found = []
    for entry in _entries(folder):
        if _LEFTOVER.fullmatch(entry.name):
            with contextlib.suppress(FileNotFoundError):
                size = sum(inner.stat().st_size for inner in _entries(Path(entry.path)))
                found.append(Held(Path(entry.path), size, entry.stat(follow_symlinks=False).st_mtime))
    return found


def touch(path: Path) -> None:
    """Mark a file as used now. Access times would do, but many disks are mounted without."""
    with contextlib.suppress(OSError):  # gone, which opening it will tell, or somebody else's
        os.utime(path)


def make_room(folder: Path, *, limit: int, keep: Path) -> list[Path]:
    """Remove leftovers and, where files take more than `limit` bytes, those used longest ago.

    `keep` stays, whatever it weighs. Returns the files removed.
    """
    for one in leftovers(folder):
        if time.time() - one.used > LEFTOVER_SECONDS:
            shutil.rmtree(one.path, ignore_errors=True)
    files = sorted(_files(folder), key=lambda one: (one.used, one.path.name))
    total = sum(file.size_bytes for file in files)
    removed: list[Path] = []
    if total <= limit:
        return removed
    for one in files:
        if total <= FILL * limit:
            break
        if one.path.name != keep.name:
            with contextlib.suppress(PermissionError):
                one.path.unlink(missing_ok=True)  # another process may have been quicker: gone is gone
                total -= one.size_bytes
                removed.append(one.path)
    return removed


def _files(folder: Path) -> list[Held]:
    """The library's own files by `stat`; whatever else lies in the folder is not ours to count or remove."""
    found = []
    for entry in _entries(folder):
        if _FILE.fullmatch(entry.name):
            with contextlib.suppress(FileNotFoundError):
                stat = entry.stat(follow_symlinks=False)
                found.append(Held(Path(entry.path), stat.st_size, stat.st_mtime))
    return found


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from entries
