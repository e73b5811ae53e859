"""What every target promises: which storages are real there, and save, load, size and time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from autoprune.space.levels import Level
from autoprune.space.storage import Storage
from autoprune.tasks.task import Batch

if TYPE_CHECKING:
    from autoprune.compress.stitch import Stitched
    from autoprune.models.unit import Unit


Runner = Callable[[Batch], NDArray[np.float32]]
"""A loaded model: inputs by name -> logits [b k]."""

PLAIN, ENTROPY = "plain", "entropy"
STORAGES = (PLAIN, ENTROPY)
"""How a file keeps its tensors: as they are, or entropy-coded where that makes them smaller."""

IN_TORCH = ("packed", "torch")
"""Targets that make the torch module anew where they load it, and run it."""


@dataclass(frozen=True)
class Defaults:
    """How a runtime runs a model for which nobody gives it settings.

    words: what it takes then, on this machine. load: the model in a folder, with no settings.
    """

    words: str
    load: Callable[[Path], Runner]


class Target(Protocol):
    """A runtime that a compressed model is shipped to."""

    name: str
    storages: frozenset[Storage]
    """How a weight can really be stored there; float32 is always among them."""
    fast: frozenset[Storage]
    """Storages that a product is computed with faster than float, by measurement; others save bytes alone.
    Of convolutions see `is_fast`."""
    parts: bool
    """Whether an embedding in two parts (`vocabulary`) can be stored there as such."""
    tolerance: float
    """Largest difference of a logit from the stitched model's, in standard deviations of all logits."""

    def offers(self, unit: Unit, level: Level) -> bool:
        """Whether a unit can really be at a level there; untouched always can."""

    def save(self, stitched: Stitched, folder: Path, example: Batch) -> None:
        """Write the model's own files into `folder`, which exists."""

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """The model in `folder`, ready to run."""

    def defaults(self) -> Defaults | None:
        """The runtime's own settings on this machine; None where answers are the same as `load` gives."""

    def files(self, folder: Path) -> Sequence[Path]:
        """The files the runtime opens to run the model: graph and weights."""

    def size_bytes(self, unit: Unit, level: Level) -> int:
        """Bytes of the files that are a unit's at a level; what no level changes may be left out."""


@runtime_checkable
class QuantizesDynamically(Protocol):
    """A target whose runtime has a tool of its own for it: 8-bit weights, and inputs rounded as they come."""

    def save_dynamic(self, original: Path, folder: Path) -> str:
        """Write what `save` wrote to the folder `original`, uncompressed, into `folder`, which exists.

        Returns:
            What was called, in words.

        Raises:
            Exception: whatever somebody else's tool raises for a model that it cannot do.
        """


def is_fast(target: Target, unit: Unit, level: Level) -> bool:
    """Whether the runtime computes a unit at a level faster than in float, with as many rows; measured.

    Integers of a convolution are unpacked at load, wherever inputs are not rounded beforehand (OpenVINO:
    8 bits 1.0 times as fast as float, with 8-bit activations 2.4 to 3.3 times).
    """
    has_kernels = any(weight.is_conv for weight in unit.weights)
    return level.storage in target.fast and (level.storage.rounds_inputs or not has_kernels)


def kept_at(target: Target, level: Level) -> Level | None:
    """The level that a target stores a level's weights at: its own, or with the same integers in the next
    wider storage that it has, which changes bytes and no value; None where there is none."""
    if level.storage in target.storages:
        return level
    wider = [storage for storage in target.storages if level.storage.fits_into(storage)]
    return Level(level.ratio, min(wider)) if wider else None


def size_on_disk(target: Target, folder: Path) -> int:
    """Bytes of a saved model by `stat`: the sum of the files its runtime opens."""
    return sum(path.stat().st_size for path in target.files(folder))
