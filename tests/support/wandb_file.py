"""Reads what W&B wrote offline: records in a log of LevelDB's form, after a header of seven bytes.

The form: https://github.com/google/leveldb/blob/main/doc/log_format.md. W&B has no reader that is public.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK, _HEAD, _FULL, _LAST = 32768, 7, 1, 4


def records(path: Path) -> Iterator[Any]:
    """The records of a `.wandb` file, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), _HEAD, b""
    assert data.startswith(b":W&B")
    while place + _HEAD <= len(data):
        if _BLOCK - place % _BLOCK < _HEAD:  # too little for a head: filled with zeros
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + _HEAD])
        parts += data[place + _HEAD : place + _HEAD + length]
        place += _HEAD + length
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def items(rows: Any) -> dict[str, Any]:
    """Items of a record by their keys, whose parts are joined by dots."""
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in rows}
