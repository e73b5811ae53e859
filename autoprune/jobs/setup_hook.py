"""What Ray runs in each worker of a job before anything else."""

from __future__ import annotations

import importlib
import os
import socket

IMPORTS_VARIABLE = "AUTOPRUNE_IMPORTS"
"""Names the modules of the user that a job's workers import at the start, with commas."""


def import_named() -> None:
    """Import the user's modules, so that one that a node cannot import is told before anything is trained.

    Raises:
        ImportError: naming the module and the node.
    """
    for module in filter(None, os.environ.get(IMPORTS_VARIABLE, "").split(",")):
        try:
            importlib.import_module(module)
        except Exception as error:
            raise ImportError(
                f"module {module!r} cannot be imported on node {socket.gethostname()}: "
                f"{type(error).__name__}: {error}"
            ) from error
