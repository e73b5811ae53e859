"""Inputs of a loaded model as a caller has them: arrays of numpy, or tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn


def as_input(value: Any) -> NDArray[Any]:
    """Numbers as models take them: pixels as float32, all else as 64-bit integers."""
    array = np.asarray(value)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)


def taking_arrays(model: nn.Module) -> nn.Module:
    """The module, which from now on takes arrays as well as tensors, as exports for other targets do."""
    import torch

    def tensor(value: Any) -> Any:
        return torch.from_numpy(as_input(value)) if isinstance(value, np.ndarray) else value

    def as_tensors(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return tuple(map(tensor, given)), {name: tensor(value) for name, value in named.items()}

    model.register_forward_pre_hook(as_tensors, with_kwargs=True)
    return model
