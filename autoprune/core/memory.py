"""How much memory is free, and handing what is no longer used to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from pathlib import Path


def give_memory_back() -> None:
    """Free objects that only refer to each other, and return the memory to the system.

    A converted model refers to itself, and glibc keeps what is freed: gigabytes in all
    (docs/decisions/022-memory-given-back.md). Half a second of each collection went through the objects of
    imported modules, which stay for ever: they are set aside (`gc.freeze`) whenever there are more modules.
    """
    gc.collect()
    if len(sys.modules) > _Aside.modules:
        _Aside.modules = len(sys.modules)
        gc.freeze()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


class _Aside:
    """How many modules there were when objects were last set aside."""

    modules = 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up: Python's, that of torch's CPU allocator, or CUDA's.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA out of memory. Tried to ..."))
    (True, True)
    """
    text = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text


def available_bytes() -> int | None:
    """Bytes that may be taken without swapping, by the system and the limit of a container (cgroup v2).

    None where neither says.
    """
    free: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())  # "max" where there is none
        free.append(max(0, limit - int(Path("/sys/fs/cgroup/memory.current").read_text())))
    return min(free, default=None)
