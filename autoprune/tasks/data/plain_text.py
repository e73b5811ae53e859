"""The text of a file, compressed or not."""

from __future__ import annotations

import importlib
from pathlib import Path

OPENERS = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}
"""Modules that open what is compressed, by the last suffix."""


def read_text(path: Path) -> str:
    """The text of a UTF-8 file with its line breaks as they are; a byte order mark is no part of it.

    Raises:
        ValueError: when it is not UTF-8; the message names the line.
        Exception: whatever the file or its decompressor raises.
    """
    module = OPENERS.get(path.suffix.lower())
    if module is None:
        data = path.read_bytes()
    else:
        with importlib.import_module(module).open(path, "rb") as packed:
            data = packed.read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} is not UTF-8: {error.reason}, {error.object[error.start]:#04x}"
        ) from error
