"""Functions that the user names as `package.module:function`. No torch."""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoprune.core.errors import AutopruneError


def named(reference: str, *, what: str) -> Callable[..., Any]:
    """The function that `package.module:function` names; the current folder can be imported from.

    Raises:
        AutopruneError: when there is none.
    """
    module, _, name = reference.partition(":")
    if not module or not name.isidentifier():
        raise AutopruneError(f"{what} {reference!r}: give package.module:function")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        value = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise AutopruneError(
            f"{what} {reference!r} cannot be imported: {error}. It is looked for in this folder and among "
            "the installed packages"
        ) from error
    except Exception as error:  # a module runs its own code
        raise AutopruneError(
            f"{what} {reference!r} cannot be imported: its module raised {told(error)}. Mend it."
        ) from error
    if not callable(value):
        raise AutopruneError(f"{what} {reference!r} is a {type(value).__name__}; a function is needed")
    return value  # type: ignore[no-any-return]


def import_from(folder: str) -> None:
    """Search a folder first for imports, in this process and in those it starts."""
    if folder not in sys.path:
        sys.path.insert(0, folder)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if folder not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, *paths])


def told(error: BaseException) -> str:
    """Type, message and the last line of code that it came through."""
    text = f"{type(error).__name__}: {error}".split("\n")[0][:200]
    frames = traceback.extract_tb(error.__traceback__)
    if frames and frames[-1].filename != __file__ and not frames[-1].filename.startswith("<"):
        text += f", in {Path(frames[-1].filename).name} line {frames[-1].lineno}"
    return text


@functools.cache
def given(reference: str, *, what: str) -> Any:
    """What such a function gives, called once in a process.

    Raises:
        AutopruneError: when there is none, or it raises.
    """
    function = named(reference, what=what)
    try:
        return function()
    except Exception as error:
        raise AutopruneError(f"{what} {reference!r} raised {told(error)}") from error


_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_reference(source: str) -> bool:
    """Whether a text is written as `package.module:function`."""
    return bool(_REFERENCE.fullmatch(source))
