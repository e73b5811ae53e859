"""Handing memory that is no longer used to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def give_memory_back() -> None:
    """Free objects that only refer to each other, and return the memory to the system.

    A converted model refers to itself, and glibc keeps what is freed: gigabytes in all
    (docs/decisions/022-memory-given-back.md).
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
