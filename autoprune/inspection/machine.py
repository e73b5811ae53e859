"""What this machine has for a search: processors and their instructions, memory, GPUs, room on disks."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from autoprune.core.files import reason_of
from autoprune.core.memory import available_bytes
from autoprune.core.processors import cpu_quota, quota_line, usable_processors

INSTRUCTIONS = {
    "avx2": ("avx2",),
    "f16c": ("f16c",),
    "avx512": ("avx512f",),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "bf16": ("avx512_bf16", "bf16"),
    "amx": ("amx_int8", "amx_bf16"),
    "neon": ("asimd",),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
    "sve": ("sve",),
}
"""Instructions that CPU kernels of the runtimes use, by the flags of /proc/cpuinfo that tell them."""


def machine_record(root: Path = Path("/")) -> dict[str, Any]:
    """Processors and memory; bytes that the kernel does not tell are None.

    Args:
        root: of the file system that the kernel's files are read from.
    """
    quota = cpu_quota(root)
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(root),
        "processors": usable_processors(root),
        "processors_seen": os.cpu_count(),
        "processors_quota": None if quota is None else quota.processors,
        "quota": quota_line(root),
        "instructions": instructions(root),
        "memory_bytes": _total_bytes(root),
        "memory_free_bytes": available_bytes(),
    }


def instructions(root: Path = Path("/")) -> list[str]:
    """The names of `INSTRUCTIONS` that every processor has.

    AMX and others are of no use where a single processor is without.
    """
    sets = [set(flags) for flags in _flags(root)]
    shared = set.intersection(*sets) if sets else set()
    return [name for name, flags in INSTRUCTIONS.items() if shared.intersection(flags)]


def gpu_record() -> dict[str, Any]:
    """The GPUs that torch sees, with their memory in bytes; else why there are none."""
    try:
        import torch

        if torch.cuda.is_available():
            about = [torch.cuda.get_device_properties(k) for k in range(torch.cuda.device_count())]
            return {
                "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in about],
                "why": "",
            }
        build = torch.version.cuda
    except Exception as error:  # what a driver and a library raise that do not fit has many names
        return {"gpus": [], "why": f"torch cannot say: {reason_of(error):.200}"}
    return {"gpus": [], "why": _why_no_gpu(torch.__version__, build)}


def _why_no_gpu(version: str, build: str | None) -> str:
    has_device = Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not has_device:
        return "this machine has no NVIDIA driver"
    if build is None:
        return f"torch {version} is a build without CUDA: install one with it"
    if hidden is not None and hidden.strip() in ("", "-1", "NoDevFiles"):
        return f"CUDA_VISIBLE_DEVICES={hidden!r} hides them: unset it"
    return f"torch {version} is built for CUDA {build}, and sees none: the driver may be older"


def folder_record(folder: Path) -> dict[str, Any]:
    """A folder with the bytes in it and those free on its disk; of one that is to be made, its parent's."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return {
        "folder": str(folder),
        "size_bytes": sum(_sizes(folder)),
        "free_bytes": shutil.disk_usage(place).free,
    }


def versions_record() -> dict[str, Any]:
    """The Python that runs, and where autoprune was imported from."""
    return {"python": platform.python_version(), "executable": sys.executable,
            "package": str(Path(__file__).parents[1])}  # fmt: skip


def _sizes(folder: Path) -> Iterator[int]:
    """Bytes of each file below a folder; links are not followed."""
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(place, name)).st_size


def _processor(root: Path) -> str:
    return next((value for name, value in _fields(root / "proc/cpuinfo") if name == "model name"), "")


def _flags(root: Path) -> Iterator[Iterable[str]]:
    for name, value in _fields(root / "proc/cpuinfo"):
        if name in ("flags", "Features"):  # of x86 and of ARM
            yield value.split()


def _total_bytes(root: Path) -> int | None:
    """Memory of the machine, or the limit of this container where that is less."""
    told: Mapping[str, str] = dict(_fields(root / "proc/meminfo"))
    totals = []
    with contextlib.suppress(LookupError, ValueError):
        totals.append(int(told["MemTotal"].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        totals.append(int((root / "sys/fs/cgroup/memory.max").read_text()))  # "max" where there is none
    return min(totals, default=None)


def _fields(path: Path) -> Iterator[tuple[str, str]]:
    """Names and values of a file of the kernel; none where it cannot be read."""
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, colon, value = line.partition(":")
            if colon:
                yield name.strip(), value.strip()
