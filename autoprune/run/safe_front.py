"""A `front.json` as it may be shown: no NaN, no text that cannot be written, no secret."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast

from autoprune.core.redaction import cleaned, may_hold_secret


class SafeFront(dict[str, Any]):
    """What `safe` gave, so that it is gone through once: of many trials it takes seconds. Not to be changed.

    checked: the record that it was found to be, once it was checked.
    """

    checked: Any = None


def safe(front: Mapping[str, Any]) -> SafeFront:
    """A parsed `front.json` as the report may show it: `clean`, and without passwords and tokens.

    The values of one that is so already, as those are that this version writes, are not copied.
    """
    if isinstance(front, SafeFront):
        return front
    try:
        text = json.dumps(front, allow_nan=False, ensure_ascii=False)
        text.encode("utf-8")
    except (TypeError, ValueError):
        return SafeFront(cast(Mapping[str, Any], clean(cleaned(front))))
    return SafeFront(cast(Mapping[str, Any], clean(cleaned(front))) if may_hold_secret(text) else front)


def clean(value: object) -> object:
    """The same JSON with NaN and infinity as null, and text that can be written as UTF-8.

    >>> clean({"kl": float("nan"), "sizes": [1, 2.5]})
    {'kl': None, 'sizes': [1, 2.5]}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {str(clean(str(key))): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value
