"""Files as numbered pieces of a limited size, with their checksums, and back.

Needs the standard library alone. A folder becomes one compressed tar file, cut at any byte: a file larger
than a piece is no special case.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError

MANIFEST = "manifest.json"
VERSION = 1


class _Cut(io.RawIOBase):
    """A file that is only written, as pieces of at most `limit` bytes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._room = 0
        self._file: io.BufferedWriter | None = None
        self._digests: list[Any] = []
        self._sizes: list[int] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        while len(rest):
            if self._room == 0:
                self._begin()
            assert self._file is not None
            part = rest[: self._room]
            self._file.write(part)
            self._digests[-1].update(part)
            self._sizes[-1] += len(part)
            self._room -= len(part)
            rest = rest[len(part) :]
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()

    def pieces(self) -> list[dict[str, Any]]:
        """Name, bytes and SHA-256 of each."""
        return [
            {"name": _name(k), "bytes": size, "sha256": digest.hexdigest()}
            for k, (size, digest) in enumerate(zip(self._sizes, self._digests, strict=True), 1)
        ]

    def _begin(self) -> None:
        if self._file is not None:
            self._file.close()
        self._sizes.append(0)
        self._digests.append(hashlib.sha256())
        self._file = (self._folder / _name(len(self._sizes))).open("wb")
        self._room = self._limit


class _Joined(io.RawIOBase):
    """Files that are read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._file: io.BufferedReader | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._file is not None or self._paths:
            if self._file is None:
                self._file = self._paths.pop(0).open("rb")
            if count := self._file.readinto(buffer):
                return count
            self._file.close()
            self._file = None
        return 0


def write_pieces(content: Path, into: Path, *, limit: int, **about: Any) -> dict[str, Any]:
    """Cut what a folder holds into pieces of at most `limit` bytes; the manifest, which is written last.

    Pieces that lie in `into` from before are replaced. about: more to say in the manifest.
    """
    into.mkdir(parents=True, exist_ok=True)
    for old in (into / MANIFEST, *into.glob("piece-*")):
        old.unlink(missing_ok=True)
    with _Cut(into, limit) as out:
        with (
            gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as packed,
            tarfile.open(fileobj=packed, mode="w|") as archive,
        ):
            for path in sorted(content.iterdir()):
                archive.add(path, path.name)
    manifest = {"version": VERSION, "pieces": out.pieces(), **about}
    (into / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def check_pieces(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose pieces are all there and whole.

    Raises:
        AutopruneError: naming the pieces that are missing or damaged.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AutopruneError(
            f"{folder / MANIFEST} cannot be read ({error}): bring it with the pieces"
        ) from error
    faults = []
    for piece in manifest["pieces"]:
        path = folder / piece["name"]
        if not path.is_file():
            faults.append(f"{path.name} is missing")
        elif path.stat().st_size != piece["bytes"] or _sha256(path) != piece["sha256"]:
            faults.append(f"{path.name} is not what was packed")
    if faults:
        raise AutopruneError(f"{folder}: {'; '.join(faults)}. Bring these again, and the manifest with them")
    return manifest


def unpack_pieces(folder: Path, into: Path) -> dict[str, Any]:
    """Check the pieces of a folder and write what they hold into another; the manifest.

    Raises:
        AutopruneError: as `check_pieces` raises.
    """
    manifest = check_pieces(folder)
    paths = [folder / piece["name"] for piece in manifest["pieces"]]
    with io.BufferedReader(_Joined(paths)) as joined:
        with tarfile.open(fileobj=joined, mode="r|gz") as archive:
            archive.extractall(into, filter="data")
    return manifest


def _name(number: int) -> str:
    return f"piece-{number}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
