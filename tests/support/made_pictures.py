"""Made-up picture folders, whole and damaged: for tests, and for a search for inputs that do harm."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hypothesis.strategies as some
import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.models.image_processor import Pixels
from autoprune.tasks.data.image_folders import read_image_folder
from autoprune.tasks.data.source import DataSource
from autoprune.tasks.data.splits import read_splits
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION

Content = bytes | None
"""Of a file; None is a link to what is not there."""

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".JPG": "JPEG", ".jfif": "JPEG", ".gif": "GIF", ".tif": "TIFF",
    ".TIFF": "TIFF", ".webp": "WEBP", ".bmp": "BMP", ".ppm": "PPM", "": "PNG", ".jpg_large": "JPEG",
}  # fmt: skip
"""Of files that are read, by suffix."""

MODES = {"PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "TIFF": ("1", "L", "RGB", "CMYK", "I;16", "F"),
         "JPEG": ("L", "RGB", "CMYK"), "GIF": ("L", "P"), "BMP": ("1", "L", "RGB"), "WEBP": ("RGB", "RGBA"),
         "PPM": ("1", "L", "RGB")}  # fmt: skip

OTHERS = (".txt", ".heic", ".svg", ".json", ".nef", ".mp4")
"""Suffixes of files that are no pictures."""


EARLIER_SETTINGS = {
    "size": {"height": 8, "width": 8}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_resize": True,
    "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255, "resample": 3,
}  # fmt: skip
"""As version 55a009e wrote `Pixels((8, 8), (0.5,) * 3, (0.25,) * 3, cubic=True)`."""


def noise(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """A picture [h w 3] that no other seed gives."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photograph(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """A picture [h w 3] with soft shapes and some noise, as a camera gives."""
    from PIL import Image

    rough = Image.fromarray(noise(seed, 5, 7)).resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(seed).integers(-9, 10, (height, width, 3))
    return np.asarray(np.clip(np.asarray(rough).astype(int) + grain, 0, 255), np.uint8)


def encoded_picture(pixels: NDArray[np.uint8], form: str, mode: str = "RGB") -> bytes:
    """A file of a picture in a format and a mode of Pillow."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def write_folder(folder: Path, files: Mapping[str, Content]) -> None:
    """Write files by their paths below a folder; one that ends in `/` is an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.symlink_to(folder / "not" / "there")
        else:
            path.write_bytes(content)


def visible_files(folder: Path) -> set[Path]:
    """Every file below a folder that is not hidden, nor in a hidden folder."""
    files = set()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        files |= {Path(place, name) for name in names if name[0] != "."}
    return files


@some.composite
def pictures(draw: Callable[[Any], Any]) -> tuple[str, bytes]:
    """A suffix and a whole file of a small picture."""
    suffix = draw(some.sampled_from(sorted(FORMATS)))
    form = FORMATS[suffix]
    pixels = noise(draw(some.integers(0, 10**6)), draw(some.integers(1, 9)), draw(some.integers(1, 9)))
    mode = draw(some.sampled_from([mode for mode in MODES[form] if mode != "F"]))
    return suffix, encoded_picture(pixels, form, mode)


@some.composite
def damaged(draw: Callable[[Any], Any]) -> tuple[str, Content]:
    """A suffix of a picture, and content that is none."""
    suffix, whole = draw(pictures())
    suffix = suffix if suffix in (".png", ".jpg", ".gif", ".tif", ".bmp") else ".png"
    kind = draw(some.sampled_from(["cut", "empty", "text", "link", "changed"]))
    if kind == "cut":
        return suffix, whole[: draw(some.integers(0, max(0, len(whole) - 1)))]
    if kind == "changed":
        place = draw(some.integers(0, len(whole) - 1))
        return suffix, whole[:place] + bytes([whole[place] ^ draw(some.integers(1, 255))]) + whole[
            place + 1 :
        ]
    return suffix, {"empty": b"", "text": b"no picture", "link": None}[kind]


@some.composite
def picture_folders(draw: Callable[[Any], Any], harm: bool = True) -> dict[str, Content]:
    """Files by path below a folder: classes of pictures, with splits or not, among other files.

    Args:
        harm: whether pictures may be damaged, and classes empty.
    """
    names = some.sampled_from(["cat", "dog", "ein Vogel", "鳥", "train", "a.b", "0"])
    classes = draw(some.lists(names, min_size=1 if harm else 2, max_size=3, unique=True))
    splits = draw(
        some.sampled_from([("",), ("",), ("train/", "test/"), ("train/", "val/", "test/"), ("Train/",)])
    )
    files: dict[str, Content] = {}
    number = 0
    has_damage = harm and draw(some.integers(0, 2)) == 0
    for split in splits:
        for name in classes:
            least = draw(some.sampled_from([0, 4, 6, 6])) if harm else 6
            for _ in range(draw(some.integers(least, 8))):
                deeper = draw(some.sampled_from(["", "", "deep/er/"]))
                is_damaged = has_damage and draw(some.integers(0, 9)) == 0
                suffix, content = draw(damaged() if is_damaged else pictures())
                files[f"{split}{name}/{deeper}{number}{suffix}"] = content
                number += 1
            if harm and draw(some.integers(0, 9)) == 0:
                files[f"{split}{name}/"] = None
    for k in range(draw(some.integers(0, 4))):
        place = draw(
            some.sampled_from(["", *(f"{split}{name}/" for split in splits for name in classes), "notes/"])
        )
        hidden = draw(some.sampled_from(["", "", ".", ".thumbs/"]))
        place = "" if place == "notes/" and not harm else place
        files[f"{place}{hidden}other {k}{draw(some.sampled_from(OTHERS))}"] = b"no picture"
    return files


def check_folder(files: Mapping[str, Content]) -> bool:
    """Whether a picture folder is read; else it is refused by an AutopruneError.

    Any other error is the caller's. Each visible file is a row, once, or is left out; each row becomes bytes.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        write_folder(folder, files)
        try:
            found = read_image_folder(folder)
            splits = read_splits(DataSource(str(folder)), IMAGE_CLASSIFICATION)
        except AutopruneError:
            return False
        assert found is not None
        rows = {Path(name) for table in found.tables().values() for name in table.read("image")}
        parts = (splits.train, splits.validation, splits.test)
        assert rows | {*found.left_out} == visible_files(folder)
        assert not rows & {*found.left_out}
        assert sum(map(len, parts)) == len(rows)
        for part in parts:
            made = Pixels((4, 4))(part.images)
            assert made.shape == (len(part), 3, 4, 4)
    return True
