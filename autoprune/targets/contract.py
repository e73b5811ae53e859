"""What every target promises: which bits are real there, and save, load, size and time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from autoprune.task import Batch

if TYPE_CHECKING:
    from autoprune.stitch import Stitched

Runner = Callable[[Batch], NDArray[np.float32]]
"""A loaded model: inputs by name -> logits [b k]."""


class Target(Protocol):
    """A runtime that a compressed model is shipped to."""

    name: str
    bits: frozenset[int]
    """Bits a weight can really be stored in there; 32 is always among them."""
    fast_bits: frozenset[int]
    """Bits that are also computed with faster than float; the others save bytes alone."""
    tolerance: float
    """Largest difference of a logit from the stitched model's, in standard deviations of all logits."""

    def save(self, stitched: Stitched, folder: Path, example: Batch) -> None:
        """Write the model's own files into `folder`, which exists."""

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """The model in `folder`, ready to run."""

    def files(self, folder: Path) -> Sequence[Path]:
        """The files the runtime opens to run the model: graph and weights."""

    def overhead_bytes(self, bits: int) -> int:
        """What the file says about one weight stored in `bits`, beyond a float weight's share."""


def size_on_disk(target: Target, folder: Path) -> int:
    """Bytes of a saved model by `stat`: the sum of the files its runtime opens."""
    return sum(path.stat().st_size for path in target.files(folder))
