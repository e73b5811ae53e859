"""Settings of a search from a file: YAML or JSON of the names that `autoprune search --dry-run` prints."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoprune.api.options import checked_settings
from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_within, reason_of


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that a file gives; those that it has as null are left out.

    Relative paths in it are taken from the working directory, as those of flags are.

    Raises:
        AutopruneError: naming the file and everything in it that is wrong.
    """
    from autoprune.core.yaml_text import MOST_YAML_BYTES, NO_YAML, errors_text

    try:
        text = read_within(path, MOST_YAML_BYTES)
    except (OSError, ValueError) as error:
        raise AutopruneError(f"settings file {path} cannot be read: {reason_of(error)}") from error
    try:
        data, lines = _parsed(text)
    except NO_YAML as error:
        raise AutopruneError(f"settings file {path} is neither YAML nor JSON: {error}") from error
    if not isinstance(data, dict):
        raise AutopruneError(
            f"settings file {path} holds no settings: write one a line, as `budget: 20MB`; "
            "`autoprune search --dry-run` prints them all"
        )
    settings: dict[str, Any] = {}
    for name, value in data.items():
        try:
            settings |= checked_settings({_checked_name(name): value})
        except AutopruneError as error:
            lines.append(str(error))
        except (ValueError, RecursionError):  # Python prints neither very long numbers nor very deep lists
            lines.append(f"{name}: its value is no setting")
    if lines:
        raise AutopruneError(errors_text(f"settings file {path}", lines))
    return settings


def _parsed(text: str) -> tuple[Any, list[str]]:
    """What a text says, and what in it would not be heeded. JSON by its own rules: YAML's differ in parts."""
    from autoprune.core.yaml_text import parse_yaml

    if text.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):  # a mapping of YAML may begin so too
            return _parse_json(text)
    return parse_yaml(text)


def _parse_json(text: str) -> tuple[Any, list[str]]:
    """What a text of JSON says, and the names in it of which only the last would be heeded."""
    errors: list[str] = []
    return json.loads(text, object_pairs_hook=_noting_repeats(errors)), errors


def _noting_repeats(errors: list[str]) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        errors.extend(f"{name}: is there twice" for name in sorted(set(names)) if names.count(name) > 1)
        return dict(pairs)

    return mapping


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise AutopruneError(f"a search has no setting {name!r:.60}: names are text")
    return name
