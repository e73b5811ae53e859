"""The end of a job's search when the driver that started it is gone: nobody would copy what it finds."""

from __future__ import annotations

import os
import signal
import threading
import time

_LOOK_SECONDS = 1.0


def end_with_parent() -> None:
    """Once the process that started this one is gone, this one is told to stop, as by `autoprune stop`."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="driver").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
