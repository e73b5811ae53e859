"""What machine this is, and whether what the search needs of a GPU works there at all."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

from benchmarks.gpu.figures import Figures
from benchmarks.gpu.setup import Setup

PACKAGES = ("torch", "triton", "transformers", "numpy", "ray", "optuna", "datasets", "openvino", "autoprune")
QUERY = "name,driver_version,memory.total,clocks.sm,power.limit"


def measure(setup: Setup, figures: Figures) -> None:
    """Names, versions, and one call of each operation that a trial needs beside matrix products."""
    figures.note(
        python=sys.version.split()[0],
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        system=f"{platform.system()} {platform.release()}",
        versions={name: _version(name) for name in PACKAGES},
    )
    import torch

    figures.note(device="cpu", cuda_of_torch=torch.version.cuda, devices=torch.cuda.device_count())
    if not setup.cuda:
        return
    about: Any = torch.cuda.get_device_properties(0)
    figures.note(
        device=about.name,
        capability=f"{about.major}.{about.minor}",
        memory_bytes=about.total_memory,
        multiprocessors=about.multi_processor_count,
        bfloat16=torch.cuda.is_bf16_supported(),
        **_driver(),
    )
    codes = torch.randint(-128, 128, (32, 64), dtype=torch.int8, device="cuda")
    product = torch._int_mm(codes, codes.t())  # laid out as target torch has it
    exact = codes.double() @ codes.double().t()
    figures.note(integer_product_is_exact=bool((product.double() == exact).all()))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _driver() -> dict[str, str]:
    """What the driver's own program says; nothing where it is not there."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return {"driver_error": str(error)}
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
    return {f"smi {name}": value for name, value in zip(QUERY.split(","), values, strict=False)}
