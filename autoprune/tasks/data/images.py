"""Images as arrays: folders of one sub-folder a class, and whatever a table's cell may hold.

Shapes: h height, w width, c channels. An image becomes uint8 [h w 3], a grey one its plane three times.
Pillow decodes files; it is an extra, so it is imported when the first file is met.
"""

from __future__ import annotations

import hashlib
import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.tables import SPLIT_NAMES, Table, from_columns, listed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
GREY_MODES = ("1", "L", "LA", "La")
ALLOWED = "allowed is a file's path or bytes, or numbers of 0 to 255 as [h w], [h w 1], [h w 3] or [h w 4]"


def class_folders(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Image files by class by split; {} where a folder is not made of at least two folders of images.

    A folder named as a split is one if it holds folders of images itself; else its name is a class.

    Raises:
        AutopruneError: when two folders are one split.
    """
    splits: dict[str, dict[str, list[Path]]] = {}
    for folder in _folders(root):
        split, classes = SPLIT_NAMES.get(folder.name.lower()), _classes(folder)
        if split and classes:
            if split in splits:
                raise AutopruneError(f"data folder {root} has two folders for {split}. Keep one.")
            splits[split] = classes
    splits = splits or {"train": _classes(root)}
    return splits if len({name for classes in splits.values() for name in classes}) > 1 else {}


def image_tables(root: Path) -> dict[str, Table]:
    """Columns `image` and `label` by split of a folder that is made of class folders, else {}."""
    return {
        split: from_columns(
            {
                "image": [str(file) for files in classes.values() for file in files],
                "label": [name for name, files in classes.items() for _ in files],
            }
        )
        for split, classes in class_folders(root).items()
    }


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def _classes(root: Path) -> dict[str, list[Path]]:
    """The image files anywhere below each folder of a folder, where it has some."""
    files_of = {folder.name: _images(folder) for folder in _folders(root)}
    return {name: files for name, files in files_of.items() if files}


def _images(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in files if path.is_file() and path.name[0] != ".")


def is_missing(cell: Any) -> bool:
    """Whether an image cell holds none: a gap, nothing but spaces, or neither bytes nor a path."""
    if isinstance(cell, Mapping):
        return not cell.get("bytes") and not cell.get("path")
    if isinstance(cell, str | bytes):
        return not cell.strip()
    return cell is None or (isinstance(cell, float) and cell != cell)


def decoded(
    cell: Any, *, where: str, folder: Path | None = None, side: int | None = None
) -> NDArray[np.uint8]:
    """An image uint8 [h w 3], read-only.

    Args:
        cell: path, bytes, a dict of either as `datasets` stores it, an image of Pillow, or numbers.
        where: what the error is about.
        folder: where a relative path starts.
        side: an image whose shorter side has more pixels is shrunk to it; None keeps its size.

    Raises:
        AutopruneError: when it is no image, or Pillow is needed and missing.
    """
    import numpy as np

    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str | Path):
        cell = _file(cell, folder, where)
    if isinstance(cell, bytes | bytearray | Path):
        cell = _opened(cell, where, side)
    if not hasattr(cell, "convert"):
        pixels = _numbers(cell, where)
        cell = _pillow().fromarray(pixels) if side and min(pixels.shape[:2]) > side else None
    if cell is not None:
        pixels = _plane(cell, where, side)
    if pixels.ndim == 2:  # a view: three planes without three times the memory
        pixels = np.broadcast_to(pixels[:, :, None], (*pixels.shape, 3))
    pixels.flags.writeable = False
    return pixels


def digest(image: NDArray[np.uint8]) -> str:
    """A SHA-256 of size and pixels, equal for equal images in whatever format they were stored."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def _pillow() -> Any:
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
        raise AutopruneError(f"{where}: no image file {str(name)!r:.200}.{start} Correct it or take it out.")
    return path


def _opened(source: bytes | bytearray | Path, where: str, side: int | None) -> Any:
    """An image of Pillow, decoded, and turned as its camera was held (EXIF)."""
    pillow = _pillow()
    name = f"image file {source}" if isinstance(source, Path) else f"an image of {len(source)} bytes"
    try:
        with pillow.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            if side:  # a JPEG is decoded at 1/2, 1/4 or 1/8, still twice as large as needed or more
                image.draft(None, (2 * side, 2 * side))
            image.load()
            return importlib.import_module("PIL.ImageOps").exif_transpose(image)
    except Exception as error:  # each format's decoder raises its own
        cause = f"{type(error).__name__}: {error}".split("\n")[0][:200]
        raise AutopruneError(
            f"{where}: {name} cannot be read ({cause}). Formats are {listed(IMAGE_SUFFIXES)}: write it "
            "again, or take it out."
        ) from error


def _plane(image: Any, where: str, side: int | None) -> NDArray[np.uint8]:
    """An image of Pillow as [h w] or [h w 3], shrunk where it is larger than asked."""
    import numpy as np

    if image.mode == "F":
        raise AutopruneError(f"{where}: an image of fractions; {ALLOWED}. Scale it to 0 to 255.")
    if image.mode[0] == "I":  # 16 bits; Pillow's own conversion would cut off what is above 255
        image = _pillow().fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
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
        raise AutopruneError(f"{where} holds {came} as an image; {ALLOWED}.")
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f" and low >= 0 and 0 < high <= 1 and (values % 1).any():
        raise AutopruneError(f"{where} holds numbers of {low:g} to {high:g}; {ALLOWED}. Multiply by 255.")
    if not (low >= 0 and high <= 255):
        raise AutopruneError(f"{where} holds numbers of {low:g} to {high:g}; {ALLOWED}. Scale them.")
    whole = np.rint(values) if values.dtype.kind == "f" else values
    planes = whole.astype(np.uint8).reshape(*values.shape[:2], -1) * (255 if values.dtype.kind == "b" else 1)
    return planes[:, :, 0].copy() if planes.shape[2] == 1 else planes[:, :, :3].copy()
