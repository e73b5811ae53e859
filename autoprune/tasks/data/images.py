"""Images as arrays: whatever a table's cell may hold, decoded when it is asked for.

Shapes: h height, w width, c channels. An image becomes uint8 [h w 3], a grey one its plane three times.
Pillow decodes files; it is an extra, so it is imported when the first file is met.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.cells_on_disk import read_cell
from autoprune.tasks.data.image_folders import IMAGE_SUFFIXES
from autoprune.tasks.data.tables import listed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GREY_MODES = ("1", "L", "LA", "La")
ALLOWED = "allowed is a file's path or bytes, or numbers of 0 to 255 as [h w], [h w 1], [h w 3] or [h w 4]"

READ_WHOLE = 1_000_000
"""Pixels of an image up to which it is known by its pixels, whatever its format. A larger one is known by its
file's bytes, so that it need not be decoded before rows are drawn (docs/decisions/027-photographs.md)."""

THREADS = 4
"""Images decoded at a time at most: each takes its memory at full size. Pillow leaves Python's lock alone."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class ImageError(AutopruneError):
    """An image that cannot be read; others may be, so that all such are said at once."""


@dataclass(frozen=True, eq=False)
class StoredImage:
    """An image as a table's cell has it.

    cell: path, bytes, a dict of either as `datasets` stores it, an image of Pillow, or numbers. where: what
    an error is about. folder: where a relative path starts. side: an image whose shorter side has more pixels
    is shrunk to it; None keeps its size.
    """

    cell: Any
    where: str
    folder: Path | None = None
    side: int | None = None

    def decoded(self, least: int | None = None) -> NDArray[np.uint8]:
        """Its pixels uint8 [h w 3], read-only.

        Args:
            least: pixels of a side that are needed; a JPEG of four times as many or more is decoded at a
                half, a quarter or an eighth of its size, which has at least twice as many.

        Raises:
            ImageError: when it is no image.
            AutopruneError: when Pillow is needed and missing.
        """
        return decoded(self.cell, where=self.where, folder=self.folder, side=self.side, least=least)

    def key(self, *, by_pixels: bool = False) -> str:
        """A hash that is equal for equal images: of its pixels, or of a large one's bytes.

        Args:
            by_pixels: however large it is, as versions before did.

        Raises:
            AutopruneError: as `decoded`.
        """
        source = _source(self.cell, self.folder, self.where)
        if by_pixels or not isinstance(source, bytes | bytearray | Path):
            return digest(self.decoded())
        if _pixel_count(source, self.where) <= READ_WHOLE:
            return digest(self.decoded())
        ending = "" if self.side is None else f" {self.side}"
        if isinstance(source, Path):
            with source.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() + ending
        return hashlib.sha256(source).hexdigest() + ending


class Images(Sequence["NDArray[np.uint8]"]):
    """Images uint8 [h w 3] of sizes that may differ, each decoded when it is asked for, and not kept."""

    def __init__(self, stored: Sequence[StoredImage] = ()) -> None:
        self.stored = tuple(stored)

    def __len__(self) -> int:
        return len(self.stored)

    @overload
    def __getitem__(self, place: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, place: slice) -> Images: ...
    def __getitem__(self, place: int | slice) -> NDArray[np.uint8] | Images:
        if isinstance(place, slice):
            return Images(self.stored[place])
        return self.stored[place].decoded()

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (image.decoded() for image in self.stored)


def image_keys(images: Sequence[StoredImage], *, by_pixels: bool = False) -> list[str]:
    """The key of each image.

    Raises:
        AutopruneError: that names all images that cannot be read.
    """
    return mapped(lambda image: image.key(by_pixels=by_pixels), images)


def mapped(function: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """What a function gives of each item, by a few threads.

    Raises:
        AutopruneError: that names all images that cannot be read.
    """
    errors: list[ImageError] = []

    def tried(item: _T) -> _R | None:
        try:
            return function(item)
        except ImageError as error:
            errors.append(error)
            return None

    with ThreadPoolExecutor(max(1, min(THREADS, len(os.sched_getaffinity(0))))) as pool:
        results = list(pool.map(tried, items))
    if len(errors) == 1:
        raise errors[0]
    if errors:
        texts = sorted(map(str, errors))
        more = f"\n  and {len(texts) - 20} more" if len(texts) > 20 else ""
        lines = "".join(f"\n  {text}" for text in texts[:20])
        raise AutopruneError(f"{len(errors)} of {len(items)} images cannot be read:{lines}{more}")
    return results  # type: ignore[return-value]


def is_missing(cell: Any) -> bool:
    """Whether an image cell holds none: a gap, nothing but spaces, or neither bytes nor a path."""
    cell = read_cell(cell)
    if isinstance(cell, Mapping):
        return not cell.get("bytes") and not cell.get("path")
    if isinstance(cell, str | bytes):
        return not cell.strip()
    return cell is None or (isinstance(cell, float) and cell != cell)


def decoded(
    cell: Any,
    *,
    where: str,
    folder: Path | None = None,
    side: int | None = None,
    least: int | None = None,
) -> NDArray[np.uint8]:
    """An image uint8 [h w 3], read-only.

    Args:
        cell, where, folder, side: as `StoredImage` has them.
        least: as `StoredImage.decoded` takes it.

    Raises:
        AutopruneError: when it is no image, or Pillow is needed and missing.
    """
    import numpy as np

    cell = _source(cell, folder, where)
    if isinstance(cell, bytes | bytearray | Path):
        cell = _opened(cell, where, side or least)
    if not hasattr(cell, "convert"):
        pixels = _numbers(cell, where)
        cell = pillow().fromarray(pixels) if side and min(pixels.shape[:2]) > side else None
    if cell is not None:
        pixels = _plane(cell, where, side)
    if pixels.ndim == 2:  # a view: three planes without three times the memory
        pixels = np.broadcast_to(pixels[:, :, None], (*pixels.shape, 3))
    pixels.flags.writeable = False
    return pixels


def digest(image: NDArray[np.uint8]) -> str:
    """A SHA-256 of size and pixels, equal for equal images in whatever format they were stored."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def _source(cell: Any, folder: Path | None, where: str) -> Any:
    """A cell's file, or its bytes, or what else it holds."""
    cell = read_cell(cell)
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    return _file(cell, folder, where) if isinstance(cell, str | Path) else cell


def pillow() -> Any:
    """The module `PIL.Image`.

    Raises:
        AutopruneError: when Pillow is missing.
    """
    try:
        importlib.import_module("PIL.ImageOps")
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise AutopruneError(
            f"reading images needs Pillow ({error}). Run: pip install 'autoprune[vision]'"
        ) from error


def _file(name: str | Path, folder: Path | None, where: str) -> Path:
    path = (folder or Path()) / Path(name).expanduser()
    if not path.is_file():
        start = (
            f" Relative paths start at {folder or Path.cwd()}." if not path.is_absolute() or folder else ""
        )
        raise ImageError(f"{where}: no image file {str(name)!r:.200}.{start} Correct it or take it out.")
    return path


def _opened(source: bytes | bytearray | Path, where: str, least: int | None) -> Any:
    """An image of Pillow, decoded, and turned as its camera was held (EXIF)."""
    opened = pillow().open
    try:
        with opened(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            if least:  # a JPEG is decoded at 1/2, 1/4 or 1/8, still twice as large as needed or more
                image.draft(None, (2 * least, 2 * least))
            image.load()
            return importlib.import_module("PIL.ImageOps").exif_transpose(image)
    except Exception as error:  # each format's decoder raises its own
        raise _unreadable_image(source, where, error) from error


def _pixel_count(source: bytes | bytearray | Path, where: str) -> int:
    """Pixels of an image by the head of its file."""
    opened = pillow().open
    try:
        with opened(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            return int(image.width * image.height)
    except Exception as error:  # each format's decoder raises its own
        raise _unreadable_image(source, where, error) from error


def _unreadable_image(source: bytes | bytearray | Path, where: str, error: Exception) -> AutopruneError:
    name = f"image file {source}" if isinstance(source, Path) else f"an image of {len(source)} bytes"
    cause = f"{type(error).__name__}: {error}".split("\n")[0][:200]
    return ImageError(
        f"{where}: {name} cannot be read ({cause}). Formats are {listed(IMAGE_SUFFIXES)}: write it "
        "again, or take it out."
    )


def _plane(image: Any, where: str, side: int | None) -> NDArray[np.uint8]:
    """An image of Pillow as [h w] or [h w 3], shrunk where it is larger than asked."""
    import numpy as np

    if image.mode == "F":
        raise ImageError(f"{where}: an image of fractions; {ALLOWED}. Scale it to 0 to 255.")
    if image.mode[0] == "I":  # 16 bits; Pillow's own conversion would cut off what is above 255
        image = pillow().fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    image = image.convert("L" if image.mode in GREY_MODES else "RGB")
    if side and min(image.size) > side:
        ratio = side / min(image.size)
        image = image.resize(tuple(max(side, round(edge * ratio)) for edge in image.size))
    return np.array(image, np.uint8)


def _numbers(cell: Any, where: str) -> NDArray[np.uint8]:
    """Numbers as [h w] or [h w 3]: 0 to 255, rounded; an opacity is left out."""
    import numpy as np

    try:
        values = np.asarray(cell)
    except ValueError:  # lists of unequal lengths
        values = np.asarray(None)
    shape = " ".join(map(str, values.shape))
    is_image = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3, 4))
    if values.dtype.kind not in "buif" or not is_image or not values.size:
        came = f"numbers [{shape}]" if values.dtype.kind in "buif" and values.ndim else type(cell).__name__
        raise ImageError(f"{where} holds {came} as an image; {ALLOWED}.")
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f" and low >= 0 and 0 < high <= 1 and (values % 1).any():
        raise ImageError(f"{where} holds numbers of {low:g} to {high:g}; {ALLOWED}. Multiply by 255.")
    if not (low >= 0 and high <= 255):
        raise ImageError(f"{where} holds numbers of {low:g} to {high:g}; {ALLOWED}. Scale them.")
    whole = np.rint(values) if values.dtype.kind == "f" else values
    planes = whole.astype(np.uint8).reshape(*values.shape[:2], -1) * (255 if values.dtype.kind == "b" else 1)
    return planes[:, :, 0].copy() if planes.shape[2] == 1 else planes[:, :, :3].copy()
