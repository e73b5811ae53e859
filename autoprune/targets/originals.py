"""Uncompressed models saved on a target, kept so that candidates are timed against the same files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from autoprune.core.cache import DiskCache
from autoprune.targets.target import Target
from autoprune.tasks.task import Batch

if TYPE_CHECKING:
    from autoprune.compress.stitch import Stitched

_ORIGINALS = DiskCache("originals", 2)

_Loaded = TypeVar("_Loaded")


def kept_original(target: Target, parts: Sequence[object]) -> Path | None:
    """The folder of an original that `loaded_original` has saved; None where this machine has none."""
    path = _ORIGINALS.path([*parts, target.name])
    return path if path.is_dir() else None


def loaded_original(
    target: Target,
    parts: Sequence[object],
    make: Callable[[], Stitched],
    example: Batch,
    load: Callable[[Path], _Loaded],
) -> _Loaded:
    """An original as `load` reads it from its folder, saved on the target if this machine has none.

    Args:
        parts: what the original depends on besides the target: the key of a search's setting, alone, for its
            own.
        make: gives the uncompressed model.
        example: a batch to trace the model with.
    """
    return _ORIGINALS.get(
        [*parts, target.name],
        make=make,
        save=lambda model, folder: target.save(model, folder, example),
        load=load,
    )
