"""A cache on disk for values that are computed once, and keys made from contents."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from autoprune.core.errors import AutopruneError
from autoprune.core.files import why_unwritable, written_whole

log = logging.getLogger(__name__)

_Made = TypeVar("_Made")
_Loaded = TypeVar("_Loaded")


def content_key(*parts: object) -> str:
    """A short name for what `parts` say: 24 hex digits of the SHA-256 of their JSON."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


CACHE_VARIABLE = "AUTOPRUNE_CACHE"


def cache_folder() -> Path:
    """Where all that is cached lies: `AUTOPRUNE_CACHE`, or the user's cache folder."""
    import platformdirs

    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path(platformdirs.user_cache_dir("autoprune"))


def check_cache(folder: Path | None = None) -> None:
    """Raise `AutopruneError` where nothing can be written into the cache folder, or into one inside."""
    if why := why_unwritable(folder or cache_folder()):
        set_to = "" if os.environ.get(CACHE_VARIABLE) else ", which is not set,"
        raise AutopruneError(
            f"the cache folder {cache_folder()} cannot be written ({why}): set the environment variable "
            f"{CACHE_VARIABLE}{set_to} to a folder that can, of a few gigabytes"
        )


class DiskCache:
    """Values of one kind, each made once and kept in a file or folder named after what it is made of.

    No lock is taken. Where several processes make a value at once, the first to finish is kept and all read
    that one. Entries that are there are read even where the cache folder cannot be written.

    Args:
        kind: the folder, below the cache folder, that the entries lie in.
        version: raised when the same parts would give another value, or a value is kept in another form.
        suffix: of an entry's file, with the dot; none where an entry is a folder.
    """

    def __init__(self, kind: str, version: int, suffix: str = "") -> None:
        self._kind, self._version, self._suffix = kind, version, suffix

    def path(self, parts: Sequence[object]) -> Path:
        """The entry of what `parts` say, whether it is there or not."""
        return cache_folder() / self._kind / f"{content_key(self._version, *parts)}{self._suffix}"

    def get(
        self,
        parts: Sequence[object],
        *,
        make: Callable[[], _Made],
        save: Callable[[_Made, Path], object],
        load: Callable[[Path], _Loaded],
    ) -> _Loaded:
        """The value of what `parts` say, from its entry, which is made where it is missing or damaged.

        A value that was just made is read back as well, so that it is the same as from then on.

        Args:
            parts: whatever the value depends on, each with a JSON form or a text that tells it.
            make: gives the value.
            save: writes the value to a path: a file, or into a folder that is there and empty.
            load: reads an entry; an error that it raises means that the entry is damaged, unless memory or a
                module is missing.

        Raises:
            AutopruneError: before the value is made, when the entry is missing and the cache folder cannot be
                written.
        """
        path = self.path(parts)
        before = _identity(path)
        if before is not None:
            try:
                return load(path)
            except (MemoryError, ImportError):
                raise
            except Exception as error:  # every format raises its own
                log.warning("%s is damaged (%s) and is made again", path, error)
        check_cache(path.parent)
        value = make()
        with written_whole(path, keep=True) as temporary:
            if not self._suffix:
                temporary.mkdir()
            save(value, temporary)
            if before is not None:
                _remove(path, before)
        return load(path)


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells an entry from another that took its place; None where there is none."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_ino, stat.st_mtime_ns


def _remove(path: Path, identity: tuple[int, int]) -> None:
    """Take an entry away at once, unless another process has put a new one in its place."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as aside:
        if _identity(path) == identity:
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, Path(aside) / path.name)
