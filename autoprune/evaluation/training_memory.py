"""What a fine-tune takes of memory, worked out before it begins, and in how many parts a batch fits.

What a forward pass keeps for the backward one is what autograd is seen to keep for one row and for two of the
longest; the difference is what each further row adds. On a GPU that several workers share each has its part.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.core.memory import available_bytes
from autoprune.models.outputs import outputs_of
from autoprune.tasks.task import Data, Task
from autoprune.workers.ray_staff import GPU_SHARE

MARGIN = 1.5
"""What is needed, as a multiple of what autograd keeps: gradients of activations come to it."""

ADAM_COPIES = 3
"""Tensors beside a trained weight: its gradient and two moments."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a fine-tune that do not grow with its batch, and those that each row adds."""

    fixed_bytes: int
    row_bytes: int

    def needed(self, rows: int) -> int:
        """Bytes of training on so many of the longest rows at once."""
        return math.ceil(MARGIN * (self.fixed_bytes + rows * self.row_bytes))

    def parts(self, batch_size: int, free_bytes: int | None) -> int:
        """In how many equal parts a batch fits into memory; 1 where nobody knows how much there is.

        Where not one row fits each is a part: what is needed is rather too much than too little.

        >>> [TrainingMemory(100, 100).parts(16, free) for free in (10**6, 1000, 10)]
        [1, 4, 16]
        """
        if free_bytes is None or self.needed(batch_size) <= free_bytes:
            return 1
        rows = math.floor((free_bytes / MARGIN - self.fixed_bytes) / max(1, self.row_bytes))
        return math.ceil(batch_size / max(1, rows))


def training_memory(model: nn.Module, task: Task, data: Data) -> TrainingMemory:
    """What training a model on rows of data takes, by what autograd keeps of two forward passes."""
    longest = int(data.lengths.argmax())
    one, two = (_kept_bytes(model, task, data, rows) for rows in ([longest], [longest, longest]))
    row_bytes = max(0, two - one)
    trained = sum(_bytes(weight) for weight in model.parameters() if weight.requires_grad)
    held = sum(_bytes(tensor) for tensor in (*model.parameters(), *model.buffers()))
    return TrainingMemory(held + ADAM_COPIES * trained + max(0, one - row_bytes), row_bytes)


def _kept_bytes(model: nn.Module, task: Task, data: Data, rows: list[int]) -> int:
    """Bytes that a forward pass keeps for the backward one, weights not counted."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    where = next(model.parameters()).device
    batch = task.batch(data, np.array(rows))
    inputs = {name: torch.from_numpy(values).to(where) for name, values in batch.items()}
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = outputs_of(model, inputs, task.kind).float()  # alive until it was counted: addresses recur
        output.log_softmax(-1)
        return sum(kept.values())


def free_bytes(device: torch.device) -> int | None:
    """Memory of a device that this process may still take; None where that is not known.

    On a GPU it is the process's part (`GPU_SHARE`) less what it has taken, or what is free if that is less.
    """
    if device.type != "cuda":
        return available_bytes()
    free, total = torch.cuda.mem_get_info(device)
    share = float(os.environ.get(GPU_SHARE, "1"))
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    mine = math.floor(share * total) - torch.cuda.memory_allocated(device)
    return max(0, min(free + unused, mine))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
