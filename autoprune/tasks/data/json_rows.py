"""Rows of a json or jsonl file: objects, as members of one list or one after the other.

Each is decoded by itself and kept as it is, so that what another column holds, or this one in another row,
changes no cell: no number becomes text, and no text a date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from autoprune.core.errors import AutopruneError

_SPACE = re.compile(r"[ \t\r\n\ufeff]*")


def json_columns(text: str, where: str) -> dict[str, list[Any]]:
    """Cells by column, None where a row lacks it.

    Args:
        where: what messages call the file.

    Raises:
        ValueError: when it is no JSON; the message names the line.
        AutopruneError: when a row is no object, or there is none.
    """
    rows = list(_values(text))
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise AutopruneError(
                f"{where}, row {number} (the first is 0) is {row!r:.80}, no object. Write each row as an "
                'object of its columns, {"text": ...}, in one list or one a line.'
            )
    if not rows:
        raise AutopruneError(f"{where} has no rows. Give some, as objects in one list or one a line.")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _values(text: str) -> Iterator[Any]:
    """The members of lists, and whatever else stands between them."""
    is_strict = text.lstrip()[:1] != "["  # one a line has no line breaks
    decoder, place = json.JSONDecoder(strict=is_strict, object_pairs_hook=_object), 0
    while (place := _after_space(text, place)) < len(text):
        try:
            value, place = decoder.raw_decode(text, place)
        except RecursionError as error:
            raise ValueError("its values are nested too deep") from error
        if isinstance(value, list):
            yield from value
        else:
            yield value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of two members with one name neither may be lost."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has {twice!r:.60} more than once")
    return members


def _after_space(text: str, place: int) -> int:
    space = _SPACE.match(text, place)
    return place if space is None else space.end()
