"""The text of a file, compressed or not: UTF-8, or UTF-16 and UTF-32 that begin with a byte order mark.

Nothing else is guessed. In other encodings the same bytes are other letters, and no error tells: so they
are refused, with what the text would read in the likeliest of them.
"""

from __future__ import annotations

import codecs
import importlib
import re
from dataclasses import dataclass
from pathlib import Path

OPENERS = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}
"""Modules that open what is compressed, by the last suffix."""

PIECE_BYTES = 1 << 20
"""Unpacked at a time."""

FREE_BYTES = 64 << 20
"""A file that unpacks to no more than this is read, however small it is packed."""

MOST_TIMES = 200
"""A larger one may have so many times its packed bytes: text has 3 to 20 times, logs up to 100."""

_MARKS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHER_FORMATS = (
    (b"version https://git-lfs", "a Git LFS pointer: `git lfs pull` gets the file itself"),
    (b"\x1f\x8b", "compressed by gzip: name it .gz"),
    (b"BZh", "compressed by bzip2: name it .bz2"),
    (b"\xfd7zXZ\x00", "compressed by xz: name it .xz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: decompress it"),
    (b"PK\x03\x04", "a zip archive, such as a spreadsheet: save it as csv"),
    (b"\xd0\xcf\x11\xe0", "a document of an office program: save it as csv"),
    (b"PAR1", "a parquet file: name it .parquet"),
    (b"%PDF-", "a PDF: save its text"),
    (b"SQLite format 3\x00", "an SQLite database: save a table as csv"),
)
ESCAPED = re.compile("[\udc80-\udcff]")
"""A byte that was no text, as Python keeps it (PEP 383)."""


@dataclass(frozen=True)
class DecodedText:
    """A text; what to say of its encoding, "" where it is UTF-8; and whether some bytes were no text."""

    text: str
    note: str = ""
    is_damaged: bool = False


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked.

    Raises:
        ValueError: when it was made to unpack to far more than it has.
        Exception: whatever the file or its decompressor raises.
    """
    module = OPENERS.get(path.suffix.lower())
    if module is None:
        return path.read_bytes()
    packed_size, pieces, size = path.stat().st_size, [], 0
    with importlib.import_module(module).open(path, "rb") as packed:
        while piece := packed.read(PIECE_BYTES):
            size += len(piece)
            if size > FREE_BYTES and size > MOST_TIMES * packed_size:
                raise ValueError(
                    f"its {packed_size} bytes unpack to more than {size}, over {MOST_TIMES} times as many, "
                    "as those of no text do; if it is one, unpack it"
                )
            pieces.append(piece)
    return b"".join(pieces)


def decode(data: bytes, *, keep_damaged: bool = False) -> DecodedText:
    """Bytes as text.

    Args:
        keep_damaged: bytes that are no UTF-8 become characters that `ESCAPED` matches, but in the first
            line, which names what follows.

    Raises:
        ValueError: when they are no text, or another format; the message names the line.
    """
    other = next((what for start, what in _OTHER_FORMATS if data.startswith(start)), None)
    if other:
        raise ValueError(f"it is {other}")
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding:
        return DecodedText(data.decode(encoding), f"read as {encoding.upper()}, by its byte order mark")
    try:
        return DecodedText(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        if keep_damaged and data.rfind(b"\n", 0, error.start) >= 0:
            return DecodedText(data.decode("utf-8-sig", errors="surrogateescape"), is_damaged=True)
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} is not UTF-8: {error.reason}, {data[error.start]:#04x}"
            f"{_otherwise(data, error.start)}"
        ) from error


def _otherwise(data: bytes, place: int) -> str:
    """What a place would read in Windows-1252, if all of it is printable there."""
    first = max(data.rfind(b"\n", 0, place) + 1, place - 12)
    try:
        text = data[first : place + 12].split(b"\n")[0].decode("cp1252").strip()
    except UnicodeDecodeError:
        return ""
    if not text.isprintable() or b"\0" in data[:1000]:
        return ""
    return f"; as Windows-1252 it would read {text!r}: iconv -f WINDOWS-1252 -t UTF-8"


def not_utf8(text: str) -> str:
    """What is wrong with a cell in which `decode` kept bytes that are no UTF-8.

    >>> not_utf8("caf" + chr(0xDCE9))
    "not UTF-8: 0xe9; as Windows-1252 it would read 'café': iconv -f WINDOWS-1252 -t UTF-8"
    """
    escaped = ESCAPED.search(text)
    if escaped is None:
        return ""
    near = text[max(0, escaped.start() - 12) : escaped.start() + 12]
    data = near.encode("utf-8", errors="surrogateescape")
    byte = ord(escaped[0]) - 0xDC00
    return f"not UTF-8: {byte:#04x}{_otherwise(data, data.index(bytes([byte])))}"
