"""Whether a value that a file holds has the type that a field declares. No pydantic: it must be quick."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin


def has_type(value: object, declared: Any) -> bool:
    """Whether a value of JSON is of a declared type: plain types, unions, tuples (lists too), mappings.

    True and false are no numbers; a whole number is a float.

    >>> has_type(3, float), has_type(True, int), has_type(["a"], tuple[str, ...]), has_type(None, int | None)
    (True, False, True, True)
    """
    origin, inner = get_origin(declared), get_args(declared)
    if declared is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(has_type(value, one) for one in inner)
    if origin is tuple:
        kinds = inner[:1] if inner[-1] is Ellipsis else inner
        return isinstance(value, list | tuple) and all(
            any(has_type(x, kind) for kind in kinds) for x in value
        )
    if origin is not None and issubclass(origin, Mapping):
        items = value.items() if isinstance(value, Mapping) else ()
        pairs = all(has_type(key, inner[0]) and has_type(x, inner[1]) for key, x in items)
        return isinstance(value, Mapping) and pairs
    if declared in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, int | float if declared is float else declared or type(None))
