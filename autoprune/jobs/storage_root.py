"""The storage root: a folder, `s3://...` or `gs://...` that keeps what is sent to a cluster and its runs.

    ROOT/inputs/KEY/NAME      a model, data, a space or code, by the hash of its contents (`contents`)
    ROOT/runs/NAME/           a run folder as its driver has it, written as the run goes on (`mirror`)
    ROOT/runs/NAME/.job/      what was asked for, who drives it, and a list of the run's files

It is reached by fsspec, whose drivers (s3fs, gcsfs) find their own credentials: none is kept here.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.core.files import full_disk, reason_of, written_whole
from autoprune.core.redaction import holds_secret, redacted
from autoprune.jobs.contents import INPUTS, Content, check_relative, key_of

MANIFEST = ".manifest.json"
"""Beside the files of an input, written after the last of them."""

ROOT_VARIABLE = "AUTOPRUNE_STORAGE_ROOT"
"""The environment variable that may name the storage root."""

_DRIVERS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
"""Packages of fsspec's drivers that are asked for most."""


class StorageRoot:
    """Files below one root, by paths with `/`.

    Raises, here: AutopruneError for an address with a secret, or without its driver.
    """

    def __init__(self, address: str) -> None:
        if holds_secret(address):
            raise AutopruneError(
                f"--storage-root {redacted(address)!r} holds a password or token (hidden here): give the "
                "root without it, and let its driver find it in the environment, here and on the cluster"
            )
        self.address = address.rstrip("/") if "://" in address else str(Path(address).expanduser().absolute())
        self._files, self._path = _opened(self.address)
        self.is_folder = _is_local(self._files)

    def __repr__(self) -> str:
        return f"StorageRoot({self.address!r})"

    def full(self, place: str) -> str:
        """The address of a place below the root, for people."""
        return f"{self.address}/{place}"

    # ---- one file --------------------------------------------------------------------------------

    def read(self, place: str, start: int = 0) -> bytes | None:
        """A file's bytes from `start` on; None where there is no file."""
        try:
            if start and self._files.size(self._at(place)) <= start:  # an object store refuses to read there
                return b""
            return bytes(self._files.cat_file(self._at(place), start=start or None))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except Exception as error:
            raise self._cannot("read", place, error) from error

    def read_json(self, place: str) -> dict[str, Any] | None:
        """An object of JSON; None where there is none.

        Raises:
            AutopruneError: where it is damaged.
        """
        data = self.read(place)
        if data is None:
            return None
        try:
            value = json.loads(data)
        except ValueError as error:
            raise AutopruneError(f"{self.full(place)} is damaged (not JSON): {error}") from error
        if not isinstance(value, dict):
            raise AutopruneError(f"{self.full(place)} is damaged: an object is needed")
        return value

    def write(self, place: str, data: bytes) -> None:
        """Write a file whole, over one that is there."""
        with self._writing(place) as path:
            self._files.pipe_file(path, data)

    def write_json(self, place: str, data: object) -> None:
        """Write JSON whole."""
        self.write(place, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode())

    def put(self, place: str, source: Path) -> None:
        """Write a file whole from one on disk."""
        with self._writing(place) as path:
            self._files.put_file(str(source), path)

    def get(self, place: str, target: Path) -> str:
        """Copy a file to the disk; its SHA-256.

        Raises:
            FileNotFoundError: where it is not there (any more).
        """
        digest = hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._files.open(self._at(place), "rb") as file, target.open("wb") as copy:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
                    copy.write(chunk)
        except FileNotFoundError:
            raise
        except Exception as error:  # each driver of fsspec raises its own
            if full_disk(error) is not None:
                raise
            raise self._cannot("read", place, error) from error
        return digest.hexdigest()

    def remove(self, place: str) -> None:
        """Take a file away; nothing where there is none."""
        path = self._at(place)
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(path)
        if self.is_folder:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(path))

    def folders(self, place: str) -> list[str]:
        """Names of the folders in a folder, in order."""
        try:
            self._files.invalidate_cache()
            rows = self._files.ls(self._at(place), detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._cannot("read", place, error) from error
        return sorted(
            row["name"].rstrip("/").rpartition("/")[2] for row in rows if row["type"] == "directory"
        )

    # ---- inputs ----------------------------------------------------------------------------------

    def has(self, content: Content) -> bool:
        """Whether a content is there, whole."""
        return self.read(f"{INPUTS}/{content.key}/{MANIFEST}") is not None

    def send(self, content: Content, told: Callable[[int], object] = lambda _: None) -> int:
        """Write a content that is not there yet; bytes written. `told` hears of each file's bytes."""
        if self.has(content):
            return 0
        for file in content.files:
            self.put(f"{INPUTS}/{content.key}/{file.path}", file.source)
            told(file.size_bytes)
        self.write_json(f"{INPUTS}/{content.key}/{MANIFEST}", content.manifest())
        return content.size_bytes

    def bring(self, place: str, folder: Path) -> Path:
        """Copy an input into a folder, to the same place below it; the file or folder. One there is kept.

        Raises:
            AutopruneError: where it is not there, or not what its hash says.
        """
        _, key, name = place.split("/")
        target = folder / place
        if target.exists():
            return target
        manifest = self.read_json(f"{INPUTS}/{key}/{MANIFEST}")
        where = self.full(f"{INPUTS}/{key}")
        if manifest is None:
            raise AutopruneError(
                f"{where} is not there, or not whole: submit the search again, which sends it"
            )
        rows = [
            (check_relative(str(path), where=where), str(sha256))
            for path, _, sha256 in manifest.get("files", [])
        ]
        if key_of(rows) != key or manifest.get("name") != name:
            raise AutopruneError(f"{where} is damaged: its list of files is not the one that was sent")
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(target) as temporary:
            for path, sha256 in rows:
                file = temporary.parent / path
                try:
                    got = self.get(f"{INPUTS}/{key}/{path}", file)
                except FileNotFoundError as error:
                    raise AutopruneError(f"{where}/{path} is missing: submit the search again") from error
                if got != sha256:
                    raise AutopruneError(
                        f"{where}/{path} is damaged (SHA-256 {got[:12]}, {sha256[:12]} was sent): remove "
                        f"{where}, and submit the search again"
                    )
        return target

    # ---- helpers ---------------------------------------------------------------------------------

    def _at(self, place: str) -> str:
        return f"{self._path.rstrip('/')}/{place}"

    @contextlib.contextmanager
    def _writing(self, place: str) -> Any:
        """A path to write to; in a folder a temporary one, which gets its name at the end."""
        path = self._at(place)
        try:
            if not self.is_folder:
                yield path
                return
            os.makedirs(os.path.dirname(path), exist_ok=True)
            temporary = f"{path}.{uuid.uuid4().hex[:8]}.part"
            try:
                yield temporary
                os.replace(temporary, path)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
        except OSError as error:
            if full_disk(error) is not None:
                raise
            raise self._cannot("write", place, error) from error
        except AutopruneError:
            raise
        except Exception as error:  # each driver of fsspec raises its own
            raise self._cannot("write", place, error) from error

    def _cannot(self, verb: str, place: str, error: BaseException) -> AutopruneError:
        reason = redacted(" ".join(f"{reason_of(error)}".split())[:300])
        return AutopruneError(
            f"the storage root cannot be {'read' if verb == 'read' else 'written'} at {self.full(place)} "
            f"({reason}): set its rights or credentials right, or give another --storage-root"
        )


def _opened(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the root's path in it."""
    try:
        core: Any = importlib.import_module("fsspec.core")
    except ImportError as error:
        raise AutopruneError("jobs on a cluster need fsspec: pip install 'autoprune[cluster]'") from error
    scheme = address.partition("://")[0] if "://" in address else "file"
    try:
        files, path = core.url_to_fs(address)
    except ImportError as error:
        package = _DRIVERS.get(scheme, f"its fsspec driver ({error})")
        raise AutopruneError(
            f"--storage-root {address}: {scheme}:// needs the package {package}, here and on the cluster's "
            f"head: pip install {_DRIVERS.get(scheme, 'it')}"
        ) from error
    except Exception as error:  # each driver of fsspec raises its own
        raise AutopruneError(
            f"--storage-root {redacted(address)}: {redacted(str(reason_of(error)))}. Give a folder that this "
            "machine and the cluster's head share, s3://BUCKET/PATH or gs://BUCKET/PATH"
        ) from error
    return files, str(path)


def _is_local(files: Any) -> bool:
    protocol = files.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def remove_folder(folder: Path) -> None:
    """Take a folder of the disk away with all in it."""
    shutil.rmtree(folder, ignore_errors=True)
