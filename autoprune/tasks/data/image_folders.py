"""Folders of pictures, one sub-folder a class: which files are pictures, and which are left out.

A hidden file or folder, whose name starts with a point, is no part of the data.
"""

from __future__ import annotations

import importlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.tasks.data.tables import SPLIT_NAMES, Table, from_columns, listed, table_files

IMAGE_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".webp", ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".jp2", ".j2k", ".qoi",
)  # fmt: skip
"""Formats that Pillow reads by itself. A file of such a name has to be a picture."""

_FRAME_SUFFIXES = (".gif", ".tif", ".tiff", ".apng", ".webp")
"""Formats whose files may have several frames or pages. A JPEG's others are previews."""

_SNIFFED = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "BMP")
"""Formats that a file of any other name is read in, if it begins as one. Not TIFF: a camera's raw file begins
as one, and what Pillow reads of it is its thumbnail."""


_NEARLY_SPLIT = re.compile("train|test|valid|val_|_val|^dev|^eval", re.IGNORECASE)


@dataclass(frozen=True)
class ImageFolder:
    """The pictures of a folder by class by split, and its other files.

    has_splits: whether class folders lie in folders of splits. left_out: files that are in no row: no
    pictures, or in no class folder.
    """

    root: Path
    has_splits: bool
    splits: Mapping[str, Mapping[str, tuple[Path, ...]]]
    left_out: tuple[Path, ...]

    def tables(self) -> dict[str, Table]:
        """Columns `image` and `label` by split."""
        return {
            split: from_columns(
                {
                    "image": [str(file) for files in classes.values() for file in files],
                    "label": [name for name, files in classes.items() for _ in files],
                }
            )
            for split, classes in self.splits.items()
        }

    def notes(self) -> tuple[str, ...]:
        """What the plan says: which files are left out, and that of some only the first frame is read."""
        paths = [path for classes in self.splits.values() for files in classes.values() for path in files]
        count = sum(_has_frames(path) for path in paths if path.suffix.lower() in _FRAME_SUFFIXES)
        frames = f"{count} of {len(paths)} pictures have several frames; the first is read" if count else ""
        return tuple(filter(None, (self.left_out_text(), frames)))

    def left_out_text(self) -> str:
        """How many files are left out of which class, beside how many pictures it has; "" where none is."""
        if not self.left_out:
            return ""
        pictures = (path for classes in self.splits.values() for files in classes.values() for path in files)
        read = Counter(map(self._place, pictures))
        count = len(self.left_out)
        places: dict[str, list[Path]] = {}
        for path in self.left_out:
            places.setdefault(self._place(path), []).append(path)
        parts = [
            f"{name} {read[name]} read and {_by_suffix(files)} left out"
            for name, files in sorted(places.items())
        ]
        return f"{count} of {count + read.total()} files left out, as no pictures of a class: {listed(parts)}"

    def _place(self, path: Path) -> str:
        """The class folder that a file lies in, or a folder above these."""
        folders = path.relative_to(self.root).parts[:-1]
        return "/".join(folders[: 2 if self.has_splits else 1]) or "beside the folders"


def read_image_folder(root: Path) -> ImageFolder | None:
    """The pictures of a folder; None where it is not made of at least two class folders.

    A folder named as a split is one if it holds folders of pictures itself; else its name is a class. So it
    is beside other classes, where all folders named as splits hold one folder of pictures together.

    Raises:
        AutopruneError: when two folders are one split, folders that seem to be splits have other names, or a
            class has no picture in any split.
    """
    folders = _folders(root)
    splits: dict[str, dict[str, _Files]] = {}
    has_splits = True
    for folder in folders:
        split, classes = SPLIT_NAMES.get(folder.name.lower()), _classes(folder)
        if split and any(files.pictures for files in classes.values()):
            if split in splits:
                raise AutopruneError(f"data folder {root} has two folders for {split}. Keep one.")
            splits[split] = classes
    names = _names(splits)
    if len(names) < 2:
        classes = _classes(root)
        if not splits or any(f.pictures for n, f in classes.items() if n.lower() not in SPLIT_NAMES):
            _check_names(root, _folders(root))
            splits, has_splits = {"train": classes}, False
            names = _names(splits)
    if len(names) < 2 and table_files(root):
        return None
    _check_classes(root, splits, names)
    if len(names) < 2:
        return None
    pictures = {
        split: {name: files.pictures for name, files in classes.items() if files.pictures}
        for split, classes in splits.items()
    }
    rows = {path for classes in pictures.values() for files in classes.values() for path in files}
    return ImageFolder(root, has_splits, pictures, tuple(path for path in _walk(root) if path not in rows))


def _names(splits: Mapping[str, Mapping[str, _Files]]) -> set[str]:
    """The classes that have a picture in any split."""
    return {name for classes in splits.values() for name, files in classes.items() if files.pictures}


def has_class_folders(root: Path) -> bool:
    """Whether at least two folders of a folder hold pictures."""
    return sum(any(map(is_picture, _walk(folder))) for folder in _folders(root)) > 1


@dataclass(frozen=True)
class _Files:
    pictures: tuple[Path, ...]
    others: tuple[Path, ...]


def _check_names(root: Path, folders: Sequence[Path]) -> None:
    """Raise AutopruneError where folders named nearly as splits hold the same folders, as splits do."""
    near = [folder for folder in folders if _NEARLY_SPLIT.search(folder.name)]
    inside = [{inner.name for inner in _folders(folder)} for folder in near]
    shared = set.intersection(*inside) if len(near) > 1 else set()
    if len(shared) > 1 and len(near) == len(folders):
        raise AutopruneError(
            f"data folder {root}: {listed(folder.name for folder in near)} hold the same folders "
            f"{listed(sorted(shared))}, so they seem to be splits, and would be classes. Name them "
            f"{listed(dict.fromkeys(SPLIT_NAMES.values()))}."
        )


def _check_classes(root: Path, splits: Mapping[str, Mapping[str, _Files]], names: set[str]) -> None:
    """Raises AutopruneError that names every class without a picture, and what it has instead."""
    others: dict[str, list[Path]] = {}
    for classes in splits.values():
        for name, files in classes.items():
            if name not in names:
                others.setdefault(name, []).extend(files.others)
    if any(others.values()) or (others and names):
        came = listed(f"{name} ({_by_suffix(files) if files else 'empty'})" for name, files in others.items())
        raise AutopruneError(
            f"data folder {root}: {len(others)} class folders hold no picture that is read: {came}. Formats "
            f"are {', '.join(IMAGE_SUFFIXES)}: write the files as one of these, or move what is no class "
            "elsewhere."
        )


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def _classes(root: Path) -> dict[str, _Files]:
    """The files anywhere below each folder of a folder."""
    return {folder.name: _files(folder) for folder in _folders(root)}


def _files(folder: Path) -> _Files:
    files = _walk(folder)
    are_pictures = [is_picture(path) for path in files]
    pairs = list(zip(files, are_pictures, strict=True))
    return _Files(tuple(p for p, yes in pairs if yes), tuple(p for p, yes in pairs if not yes))


def _walk(folder: Path) -> list[Path]:
    """All files below a folder but hidden ones, sorted; links are followed, each folder is entered once."""
    files: list[Path] = []
    entered: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if name[0] != ".")
        files += [Path(place, name) for name in names if name[0] != "."]
    return sorted(files)


def is_picture(path: Path) -> bool:
    """Whether a file is named as a picture, or begins as one whatever its name."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    if not path.is_file():
        return False
    try:
        with importlib.import_module("PIL.Image").open(path, formats=_SNIFFED):
            return True
    except Exception:  # each format's decoder raises its own; or there is no Pillow
        return False


def _has_frames(path: Path) -> bool:
    """Whether a picture has more frames or pages than one; of one that cannot be read it is not known."""
    try:
        with importlib.import_module("PIL.Image").open(path) as image:
            return getattr(image, "n_frames", 1) > 1
    except Exception:  # each format's decoder raises its own; or there is no Pillow
        return False


def _by_suffix(files: Iterable[Path]) -> str:
    """How many files have each suffix.

    >>> _by_suffix([Path("a.heic"), Path("b.HEIC"), Path("c")])
    '.heic 2, no suffix 1'
    """
    counts = Counter(path.suffix.lower() or "no suffix" for path in files)
    return listed(f"{suffix} {count}" for suffix, count in counts.most_common())
