"""autoprune: an automated search for small models.

`load(folder)` loads an exported model. Everything else is reached through the command line; torch
is imported only by what computes with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.export.artifact import load


__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from autoprune.export.artifact import load

        return load
    raise AttributeError(f"module 'autoprune' has no attribute {name!r}")
