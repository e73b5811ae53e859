"""Tensors in a temporary file, written once and read many times, so that they take no memory."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoprune.core.errors import AutopruneError


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class Store:
    """Tensors in a temporary file without a name, which is gone with the process that made it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="autoprune-", buffering=0)  # noqa: SIM115  closed on exit
        self.size = 0

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, tensor: Tensor) -> StoredTensor:
        """Keep a tensor as it is now.

        Raises:
            AutopruneError: when the disk is full.
        """
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        stored = StoredTensor(self.size, tuple(tensor.shape), tensor.dtype)
        data = _bytes(flat)
        try:
            while len(data):
                written = os.pwrite(self._file.fileno(), data, self.size)
                self.size += written
                data = data[written:]
        except OSError as error:
            raise AutopruneError(
                f"no room for a model's hidden states, {self.size / 1e9:.1f} GB so far, in "
                f"{tempfile.gettempdir()}: {error}. Make room, or point TMPDIR at a larger disk"
            ) from error
        return stored

    def get(self, stored: StoredTensor) -> Tensor:
        """A kept tensor, in new memory."""
        flat = torch.empty(stored.shape, dtype=stored.dtype)
        data = _bytes(flat)
        offset = stored.offset
        while len(data):
            read = os.preadv(self._file.fileno(), [data], offset)
            offset, data = offset + read, data[read:]
        return flat


def _bytes(tensor: Tensor) -> memoryview:
    """A contiguous tensor's memory."""
    if tensor.numel() == 0:
        return memoryview(b"")
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)
