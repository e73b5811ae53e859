"""Files that are whole or absent, and names made from contents."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.core.redaction import cleaned, may_hold_secret

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXTS = (
    os.strerror(errno.ENOSPC),
    os.strerror(errno.EDQUOT),
    f"{os.strerror(errno.EFBIG)} (os error",  # the words alone may be of another matter
    "database or disk is full",
)


MOST_JSON_BYTES = 1 << 30
"""A file of JSON that is larger is not read: a front of 50,000 trials has a quarter of that."""

MOST_JSON_LEVELS = 100
"""Ours nest less than 10 deep; some of the libraries that JSON goes through end at 250."""

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""What a file system says to who asks for a lock that it does not have."""


def full_disk(error: BaseException | None) -> BaseException | None:
    """The error below another that says that a disk, a quota or a file's limit is full, if any does.

    A library in another language tells it in words alone.
    """
    return _below(error, _FULL, _FULL_TEXTS)


def read_only_disk(error: BaseException | None) -> BaseException | None:
    """The error below another that says that a disk can only be read, if any does."""
    return _below(error, (errno.EROFS,), (os.strerror(errno.EROFS),))


def _below(error: BaseException | None, numbers: Sequence[int], texts: Sequence[str]) -> BaseException | None:
    """The first of an error and those below it that has one of the numbers of `errno` or of the texts."""
    while error is not None:
        told = isinstance(error, OSError) and error.errno in numbers
        if told or any(text in str(error) for text in texts):
            return error
        error = error.__cause__ or error.__context__
    return None


def why_unwritable(folder: Path) -> str:
    """Why nothing can be written into a folder that is there or is to be made; "" where it can be.

    It is tried out: modes say nothing of a disk that is read-only, and little to root.
    """
    place = folder.absolute()
    while not os.path.lexists(place):
        place = place.parent
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".autoprune-", dir=place))
    except OSError as error:
        return reason_of(error) if place == folder.absolute() else f"{place}: {reason_of(error)}"
    return ""


def reason_of(error: BaseException) -> str:
    """What an error says, without the number that the system has for it.

    >>> reason_of(FileNotFoundError(2, "No such file or directory", "x")), reason_of(ValueError("no JSON"))
    ('No such file or directory', 'no JSON')
    """
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


@contextlib.contextmanager
def written_whole(path: Path, *, keep: bool = False) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to it at the end, removed on error.

    Works for a file and for a folder. A folder that is already there is kept and the new one
    dropped: content-addressed folders are equal, whoever writes first. So is a file with `keep`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    temporary = holder / path.name
    try:
        yield temporary
        if temporary.is_dir():
            try:
                os.rename(temporary, path)
            except OSError:
                if not path.is_dir():
                    raise
        elif not keep or not _linked(temporary, path):
            os.replace(temporary, path)
    except Exception as error:
        if full_disk(error) is not None:  # a write that fails does not say of which file
            error.add_note(f"while {path} was written")
        raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _linked(file: Path, path: Path) -> bool:
    """Give a file the name `path` as well, or keep what has it; whether the disk has such second names."""
    try:
        os.link(file, path)
    except FileExistsError:
        pass
    except OSError:
        return False
    return True


def write_json(path: Path, data: object) -> None:
    """Write JSON whole, for people: indented, keys in the given order, without passwords and tokens."""
    with written_whole(path) as temporary:
        temporary.write_text(json_text(data), encoding="utf-8")


def write_json_over(path: Path, data: object) -> None:
    """Write short JSON even where the disk is full: then over the old file, in the room that it has."""
    try:
        write_json(path, data)
    except OSError as error:
        text = json_text(data).encode()
        if full_disk(error) is None or path.stat().st_blocks * 512 < len(text):
            raise
        with path.open("r+b", buffering=0) as file:
            file.truncate(file.write(text))


def json_text(data: object) -> str:
    """JSON for people: indented, keys in the given order, without passwords and tokens."""
    text = json.dumps(data, indent=1, allow_nan=False)
    if may_hold_secret(text):
        text = json.dumps(cleaned(data), indent=1, allow_nan=False)
    return text + "\n"


def read_json(path: Path) -> Any:
    """Read JSON; `OSError` or `ValueError` as `json` gives them, `ValueError` for what nests too deep."""
    try:
        data = json.loads(read_within(path, MOST_JSON_BYTES))
    except RecursionError as error:
        raise ValueError("its values are nested too deep") from error
    if _levels(data) > MOST_JSON_LEVELS:
        raise ValueError(f"its values are nested more than {MOST_JSON_LEVELS} deep")
    return data


def _levels(data: Any) -> int:
    """How deep plain data nest, counted up to one more than is read."""
    level, count = [data], 0
    while count <= MOST_JSON_LEVELS and (level := [group for group in level if type(group) in (dict, list)]):
        level = [value for group in level for value in (group.values() if type(group) is dict else group)]
        count += 1
    return count


def read_within(path: Path, most: int) -> str:
    """The UTF-8 text of a file that has no more than `most` bytes.

    A pipe or a device, which may have no end, is not read.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is no file, has more bytes, or is no UTF-8.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is no regular file")
        if about.st_size > most:
            raise ValueError(f"it has {about.st_size} bytes, and at most {most} are read")
        return file.read(about.st_size + 1).decode("utf-8")  # of a larger number as many are allocated


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to is open at once."""
    return os.open(path, flags | os.O_NONBLOCK)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder, once links and `..` are followed."""
    return path.resolve().is_relative_to(folder.resolve())


@contextlib.contextmanager
def fields_of(path: Path) -> Iterator[None]:
    """Take fields of a JSON file inside: what is missing or of another type is an error that names the file.

    Raises:
        AutopruneError: in the place of what Python raises of such data.
    """
    try:
        yield
    except AutopruneError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise AutopruneError(
            f"{path} is damaged: a field is missing or of another type ({type(error).__name__}: {error})"
        ) from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
