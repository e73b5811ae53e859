"""autoprune: an automated search for small models.

>>> import autoprune
>>> front = autoprune.search("./my-bert", dataset="reviews.csv", budget="20MB")  # doctest: +SKIP
>>> front.best.export("my-bert-20MB")  # doctest: +SKIP
>>> model = autoprune.load("my-bert-20MB")  # doctest: +SKIP

What is imported here is loaded when it is first used: torch only by what computes with it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.api.front import Front, Point
    from autoprune.api.functions import inspect, open_run, resume, search
    from autoprune.core.errors import (
        AutopruneError,
        BudgetError,
        FailedTrialsError,
        StoppedError,
        ValidationError,
    )
    from autoprune.export.artifact import load
    from autoprune.space.trial import Trial


__version__ = "0.1.0"
__all__ = [
    "AutopruneError",
    "BudgetError",
    "FailedTrialsError",
    "Front",
    "Point",
    "StoppedError",
    "Trial",
    "ValidationError",
    "__version__",
    "inspect",
    "load",
    "open_run",
    "resume",
    "search",
]

_MODULES = {
    "AutopruneError": "core.errors",
    "BudgetError": "core.errors",
    "FailedTrialsError": "core.errors",
    "Front": "api.front",
    "Point": "api.front",
    "StoppedError": "core.errors",
    "Trial": "space.trial",
    "ValidationError": "core.errors",
    "inspect": "api.functions",
    "load": "export.artifact",
    "open_run": "api.functions",
    "resume": "api.functions",
    "search": "api.functions",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"autoprune.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'autoprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
