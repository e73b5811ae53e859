"""Pictures of one shape, kept as bytes: what a model takes is looked up batch by batch.

Shapes: n pictures, b of a batch, c channels, h w height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ByteImages:
    """Pictures as they are kept, and the number that each byte stands for: a quarter of a model's floats.

    bytes: uint8 [n c h w]. numbers: float32 [c 256], so that scaling and normalising cost one look-up, and
    equal those of one picture bit for bit, whatever the batch.

    >>> numbers = np.linspace(-1, 1, 256, dtype=np.float32)[None]
    >>> images = ByteImages(np.array([[[[0, 255]]]], np.uint8), numbers)
    >>> images.shape, images[[0]].tolist()
    ((1, 1, 1, 2), [[[[-1.0, 1.0]]]])
    """

    bytes: NDArray[np.uint8]
    numbers: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.bytes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all pictures [n c h w]."""
        return self.bytes.shape

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Of what a model takes."""
        return np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes that the pictures take in memory."""
        return self.bytes.nbytes + self.numbers.nbytes

    def __getitem__(self, rows: int | Sequence[int] | NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Some pictures as a model takes them [b c h w], or one [c h w]."""
        picked = self.bytes[rows]
        values = np.empty(picked.shape, np.float32)
        for channel, numbers in enumerate(self.numbers):
            values[..., channel, :, :] = numbers[picked[..., channel, :, :]]
        return values

    def pick(self, rows: NDArray[np.int64]) -> ByteImages:
        """Some pictures, in the order given, still as bytes."""
        return ByteImages(self.bytes[rows], self.numbers)
