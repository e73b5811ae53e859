"""Damage that a file may have taken: bytes cut, changed, added; values of JSON that are others.

And what must hold of the message of whoever refuses such a file.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import hypothesis.strategies as some

from autoprune.core.errors import AutopruneError

STRAY = (b"\0", b"\xff", b'"', b"\n", b"\t", b"{", b"]", b":", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"-", b"99")

OTHER_VALUES = (None, True, False, 0, 1, -1, 3, 0.5, -2.5, 1e308, math.nan, math.inf, 10**30, "", "x", "1",
                "nan", "é", "\ud800", "../../etc", [], [0], [None], ["x"], [[1, 2]], {}, {"a": 1},
                {"": None})  # fmt: skip
"""What may stand where another value was."""


@some.composite
def damaged_bytes(draw: some.DrawFn, data: bytes) -> bytes:
    """The same with an end cut off, a byte changed, some put in or taken out; or something else."""
    place = draw(some.integers(0, max(0, len(data) - 1)))
    kind = draw(some.sampled_from(["cut", "changed", "changed", "put", "out", "other"]))
    if kind == "cut":
        return data[:place]
    if kind == "changed" and data:
        return data[:place] + bytes([data[place] ^ draw(some.integers(1, 255))]) + data[place + 1 :]
    if kind == "put":
        return data[:place] + draw(some.sampled_from(STRAY)) + data[place:]
    if kind == "out":
        return data[:place] + data[place + draw(some.integers(1, 40)) :]
    return draw(
        some.sampled_from([b"", b"\0" * 100, b"no such file", b"{}", b"[]", b"null", b"\x80\x04.", data * 2])
    )


@some.composite
def changed_json(draw: some.DrawFn, value: Any, others: Sequence[Any] = OTHER_VALUES) -> Any:
    """JSON in which one or two values are others, keys are missing or more."""
    value = copy.deepcopy(value)
    for _ in range(draw(some.integers(1, 2))):
        places = [*json_places(value)]
        if not places:
            return draw(some.sampled_from(others))
        holder, key = draw(some.sampled_from(places))
        kind = draw(some.sampled_from(["value", "value", "value", "delete", "add"]))
        other = copy.deepcopy(draw(some.sampled_from(others)))
        if kind == "delete":
            del holder[key]
        elif kind == "add" and isinstance(holder, dict):
            holder[draw(some.sampled_from(["", "x", "name", "version", "état"]))] = other
        else:
            holder[key] = other
    return value


def json_places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with a key or an index in it; of long lists the first and the last entries."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from json_places(inner)
    elif isinstance(value, list):
        for k in sorted({*range(min(3, len(value))), *range(max(0, len(value) - 2), len(value))}):
            yield value, k
            yield from json_places(value[k])


@some.composite
def damaged_json(draw: some.DrawFn, data: bytes, others: Sequence[Any] = OTHER_VALUES) -> bytes:
    """A JSON file with other values in it, or with other bytes."""
    if draw(some.integers(0, 3)) == 0:
        return draw(damaged_bytes(data))
    return json.dumps(draw(changed_json(json.loads(data), others))).encode()


def check_message(error: AutopruneError, most: int = 5000) -> None:
    """See that a refusal can be printed, says something, and no more than somebody reads.

    Raises:
        AssertionError: otherwise.
    """
    message = str(error)
    message.encode()
    assert 20 < len(message) < most, f"a message of {len(message)} characters"
