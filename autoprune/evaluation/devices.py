"""The device that a process trains on, and how arrays get there."""

from __future__ import annotations

import functools
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def best_device() -> torch.device:
    """CUDA where there is one; of several the one with the most memory free when this process first asks."""
    return torch.device("cpu") if not torch.cuda.is_available() else torch.device("cuda", _emptiest())


@functools.cache
def _emptiest() -> int:
    """The GPU that has the most memory free, of those that this process sees."""
    return max(range(torch.cuda.device_count()), key=lambda number: torch.cuda.mem_get_info(number)[0])


def on_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device; for a GPU it goes through pinned memory, beside what is computed."""
    tensor = torch.from_numpy(values)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
