"""Pictures that are nearly the same: by the signs of their lowest frequencies, and by a thumbnail.

A picture's hash has a bit for each of 63 low frequencies of its grey thumbnail, 1 where it is above their
median (Zauner, Implementation and benchmarking of perceptual image hash functions, 2010, section 3.2). What
was stored again in another size, format or brightness keeps nearly all of them. Plain pictures of few shapes
may share them too, so that thumbnails must agree as well.

Shapes: n pictures, h height and w width of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.tasks.data.images import StoredImage, mapped, pillow
from autoprune.tasks.data.near_duplicates import Groups

SIDE = 32
"""Pixels of a thumbnail's side."""

MOST_BITS = 6
"""Bits in which two hashes may differ."""

LEAST_CORRELATION = 0.98
"""Of the pixels of two thumbnails (Pearson)."""

_ROWS = 256
"""Pictures compared with all later ones at a time."""


def thumbnails(images: Sequence[StoredImage]) -> NDArray[np.uint8]:
    """Grey pictures [n SIDE SIDE] of pictures of any size.

    Raises:
        AutopruneError: that names all that cannot be read.
    """
    small = mapped(lambda image: thumbnail(image.decoded(SIDE)), images)
    return np.stack(small) if small else np.empty((0, SIDE, SIDE), np.uint8)


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A grey picture [SIDE SIDE] of one [h w 3]."""
    image = pillow().fromarray(np.ascontiguousarray(pixels)).convert("L")
    return np.asarray(image.resize((SIDE, SIDE), pillow().Resampling.BOX), np.uint8)


def picture_hashes(thumbs: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The hashes [n] of thumbnails [n SIDE SIDE]."""
    from scipy.fft import dctn

    low = dctn(thumbs.astype(np.float32), axes=(1, 2), norm="ortho")[:, :8, :8].reshape(-1, 64)[:, 1:]
    is_above = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(is_above, axis=1).view(">u8")[:, 0].astype(np.uint64)


def near_pictures(thumbs: NDArray[np.uint8]) -> list[list[int]]:
    """Groups of the numbers of pictures that are nearly the same, each in order, the first groups first."""
    return Groups(len(thumbs), _pairs(thumbs)).of_several()


def _pairs(thumbs: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    hashes, flat = picture_hashes(thumbs), thumbs.reshape(len(thumbs), SIDE * SIDE)
    for start in range(0, len(hashes), _ROWS):
        rows = hashes[start : start + _ROWS, None]
        is_near = np.bitwise_count(rows ^ hashes[start:]) <= MOST_BITS
        for a, b in np.argwhere(np.triu(is_near, 1)):
            if _correlation(flat[start + a], flat[start + b]) >= LEAST_CORRELATION:
                yield int(start + a), int(start + b)


def _correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Of the pixels of two pictures; 1 for two equal ones, though all pixels be one grey."""
    x, y = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else float(np.array_equal(a, b))
