"""The compression database: a unit's variants, made when first asked for and kept on disk.

One file holds a unit at one ratio in all its storages, since they share the removal and the
Cholesky factors. It is named after everything it depends on, so files of several models, data
sets and versions live side by side, and workers of a machine share them (memory-mapped). The folder
is kept within a limit (`shelf`): a file that had to go, or is damaged, is made again.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.compress.activations import Activations
from autoprune.compress.importance import Pieces
from autoprune.compress.library_folder import LIMIT_VARIABLE, VERSION, Note, limit_bytes, make_room, touch
from autoprune.compress.prune_tokens import nearest_rows, sparing_order
from autoprune.compress.removal import pieces_of, removal_orders, without
from autoprune.compress.statistics import Statistics
from autoprune.compress.stored import StoredWeight
from autoprune.compress.token_centroids import row_centroids
from autoprune.compress.variants import Variant, make_variants, stored_rows
from autoprune.compress.ways import as_floats, way_of
from autoprune.core.cache import content_key
from autoprune.core.errors import AutopruneError
from autoprune.core.files import written_whole
from autoprune.models.layer_io import matrix_of
from autoprune.models.unit import Unit
from autoprune.space.levels import Level
from autoprune.space.space_file import CENTROID
from autoprune.space.storage import Storage

log = logging.getLogger(__name__)

# RuntimeError: torch opens the file once more by its name, which another process may have removed.
_UNREADABLE = (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError)

_Read = TypeVar("_Read")


LOOK_UPS = 3
"""Raised when variants of embeddings alone would come out differently."""


class Library:
    """Variants of one teacher's units under one calibration.

    limit: bytes that all files of the folder may take, of whatever model; from the environment or
    20 GB where None. harm: divergence of a model from the teacher, by which the best of several importances
    is chosen.
    """

    def __init__(
        self,
        folder: Path,
        teacher: nn.Module,
        statistics: Mapping[str, Statistics],
        *,
        key: str,
        limit: int | None = None,
        harm: Callable[[nn.Module], float] | None = None,
    ) -> None:
        self._folder, self._teacher, self._statistics, self._key = folder, teacher, statistics, key
        self._limit = limit_bytes() if limit is None else limit
        self._harm = harm
        self._orders: dict[tuple[str, tuple[str, ...]], dict[str, Tensor]] = {}
        self._made: set[Path] = set()
        self._is_cramped = False

    def path(self, unit: Unit, ratio: float) -> Path:
        """File of a unit at a ratio, whether it is there or not."""
        told = [LOOK_UPS] if unit.is_looked_up else []
        name = content_key(VERSION, self._key, unit.described(), ratio, *told)
        return self._folder / f"{name}.safetensors"

    def build(self, unit: Unit, ratio: float) -> None:
        """Make the file if it is not there."""
        if self._found(unit, ratio) is None:
            self._make(unit, ratio)

    def variants(self, unit: Unit, level: Level) -> dict[str, Variant]:
        """Each matrix of the unit at a level, by module path."""
        if level.ratio not in unit.ratios or level.storage not in unit.storages:
            raise AutopruneError(f"{unit.name} has no level {level}")
        return self._read(unit, level.ratio, lambda file: file.variants(unit, level))

    def kept(self, unit: Unit, ratio: float) -> Int[Tensor, " k"]:
        """Pieces of a unit that stay at a ratio, in order; all where none can be removed."""
        if ratio not in unit.ratios:
            raise AutopruneError(f"{unit.name} has no ratio {ratio:g}")
        if not unit.prunable or ratio == 0:
            return torch.arange(unit.pieces)
        return self._read(unit, ratio, _File.kept)

    def kept_rows(self, unit: Unit, ratio: float) -> Int[Tensor, " k"]:
        """Rows of the unit's first weight that stay at a ratio, in order."""
        rows: Tensor = unit.at(self.kept(unit, ratio), unit.rows[0].rows)
        return rows

    def _read(self, unit: Unit, ratio: float, read: Callable[[_File], _Read]) -> _Read:
        """What `read` finds in the file, which is made where it is not there or is damaged."""
        file = self._found(unit, ratio)
        if file is not None:
            try:
                return read(file)
            except _UNREADABLE as error:
                log.warning("%s is damaged (%s) and is made again", self.path(unit, ratio), error)
        return read(self._make(unit, ratio))

    def _found(self, unit: Unit, ratio: float) -> _File | None:
        """The file, open; None where it is not there or is damaged."""
        path = self.path(unit, ratio)
        touch(path)
        try:
            return _File(path)
        except _UNREADABLE as error:
            if path.exists():
                log.warning("%s is damaged (%s) and is made again", path, error)
            return None

    def _make(self, unit: Unit, ratio: float) -> _File:
        """Write the file and make room for it."""
        path = self.path(unit, ratio)
        keep, by = self._to_keep(unit, ratio) if unit.prunable and ratio > 0 else (None, "")
        of = unit.importance if by else ()
        tensors = self._tensors(unit, keep)
        sums = {name: _checksum(tensor) for name, tensor in tensors.items()}
        bits = tuple(storage.written for storage in reversed(unit.storages))
        note = Note(VERSION, self._key, unit.name, unit.kind, ratio, bits, time.time(), sums, by, of)
        with written_whole(path) as temporary:
            save_file(tensors, temporary, metadata=note.metadata())
            file = _File(temporary)  # open before it has its name, by which another process may remove it
        removed = make_room(self._folder, limit=self._limit, keep=path)
        if not self._is_cramped and self._made.intersection(removed):
            self._is_cramped = True
            log.warning("the library's limit of %d bytes is less than is in use, so variants are made "
                        "over and over: raise %s", self._limit, LIMIT_VARIABLE)  # fmt: skip
        self._made.add(path)
        return file

    def _tensors(self, unit: Unit, keep: Int[Tensor, " k"] | None) -> dict[str, Tensor]:
        """What a new file holds. Rows of a vocabulary are rounded apart from each other, so those that stay
        as they are come from the file that has them all."""
        if keep is None or not unit.by_token:
            return make_variants(unit, keep, self._teacher, self._statistics)
        path = unit.rows[0].path
        if unit.fallback == CENTROID:
            seen = self._statistics[path]
            made = row_centroids(matrix_of(self._teacher.get_submodule(path)), seen.moment, seen.fisher, keep)
            return {"keep": made.tokens, "places": made.places} | stored_rows(unit, made.rows, seen)
        whole = self._found(unit, 0.0) or self._make(unit, 0.0)
        old = matrix_of(self._teacher.get_submodule(path))
        tensors = {"keep": keep, "places": nearest_rows(old, keep)}
        return tensors | whole.rows(path, unit.storages, keep)

    def _to_keep(self, unit: Unit, ratio: float) -> tuple[Int[Tensor, " k"], str]:
        """Pieces that a new file keeps, in order, and the importance that says so. An order of removal serves
        all ratios, so they nest; of several each ratio has the one that harms least, with this unit alone."""
        known = (unit.name, unit.importance)
        if known not in self._orders:
            self._orders[known] = self._removal_orders(unit)
        kept = unit.kept(ratio)
        keeps = [order[len(order) - kept :].sort().values for order in self._orders[known].values()]
        names = list(self._orders[known])
        if all(torch.equal(keep, keeps[0]) for keep in keeps):
            return keeps[0], names[0]
        if self._harm is None:
            raise ValueError(f"{unit.name} names several importances, and this library measures no harm")
        harms = [self._harm(without(unit, keep, self._teacher, self._statistics)) for keep in keeps]
        least = harms.index(min(harms))
        return keeps[least], names[least]

    def _removal_orders(self, unit: Unit) -> dict[str, Int[Tensor, " c"]]:
        """Pieces in the order in which they can best be spared, by each importance; of tokens by ""."""
        if unit.by_token:
            path = unit.rows[0].path
            matrix = matrix_of(self._teacher.get_submodule(path))
            return {"": sparing_order(self._statistics[path].moment, matrix)}
        return removal_orders(unit, self._pieces(unit))

    def _pieces(self, unit: Unit) -> Pieces:
        return pieces_of(unit, self._teacher, self._statistics, key=self._key)


class _File:
    """An open file, memory-mapped: it can be read on when its name is gone.

    safetensors has no checksum of what follows its header, and a flipped bit there would be measured
    as if it were the model's. So each tensor is compared with its sum in the note as it is read: those
    of a whole MiniLM take 0.03 s, a trial takes many seconds.
    """

    def __init__(self, path: Path) -> None:
        file: Any = safe_open(path, "pt")
        note = Note.from_metadata(file.metadata())
        if note is None:
            raise ValueError("it has no note")
        self.note, self._file = note, file

    def rows(self, path: str, storages: Iterable[Storage], at: Int[Tensor, " k"]) -> dict[str, Tensor]:
        """Tensors of a weight that is looked up, with rows `at` alone."""
        weight = self.tensor(f"{path}.weight")
        tensors = {f"{path}.weight": weight[at]}
        for storage in storages:
            stem = f"{path}@{storage.name}"
            if storage.is_float or storage.rounds_inputs:
                continue  # the float weight says it all; inputs of a look-up are numbers
            if (stored := self._stored(stem, weight, storage)) is not None:
                parts = stored.rows(at).tensors()
                tensors |= {f"{stem}.{part}": tensor for part, tensor in parts.items()}
        return tensors

    def kept(self) -> Int[Tensor, " k"]:
        """Pieces that stay, in order; only where some were removed."""
        return self.tensor("keep")

    def variants(self, unit: Unit, level: Level) -> dict[str, Variant]:
        """Each matrix of the file's unit in a level's storage, by module path."""
        out = {}
        for one in unit.weights:
            stem = f"{one.path}@{level.storage.name}"
            weight = self.tensor(f"{one.path}.weight")
            bias = self.tensor(f"{stem}.bias") if one.has_bias else None
            grid = None
            if level.storage.rounds_inputs and weight.numel() > 0:
                step, zero_point = self.tensor(f"{stem}.activations").tolist()
                grid = Activations(step, int(zero_point))
            places = self.tensor("places") if unit.by_token and level.ratio > 0 else None
            out[one.path] = Variant(weight, bias, self._stored(stem, weight, level.storage), grid, places)
        return out

    def _stored(self, stem: str, weight: Tensor, storage: Storage) -> StoredWeight | None:
        """A float weight in a storage, from the tensors that are named after `stem`."""
        if storage.is_float or weight.numel() == 0:
            return as_floats(weight, storage)
        rows, columns = weight.shape
        return way_of(storage).read(_KeptParts(self, stem), storage, (rows, columns))

    def tensor(self, name: str) -> Tensor:
        """A tensor that is what was written."""
        tensor: Tensor = self._file.get_tensor(name)
        if _checksum(tensor) != self.note.sums[name]:
            raise ValueError(f"{name} is not what was written")
        return tensor


@dataclass(frozen=True)
class _KeptParts:
    """What a file of the library holds of a weight in a storage; `stem`: of the tensors' names."""

    file: _File
    stem: str

    def tensor(self, name: str) -> Tensor:
        return self.file.tensor(f"{self.stem}.{name}")

    def codes(self, name: str, bits: int, shape: tuple[int, ...]) -> Tensor:
        codes = self.tensor(name)
        if codes.shape != shape:
            raise ValueError(f"{self.stem}.{name} is {tuple(codes.shape)}, not {shape}")
        return codes


def _checksum(tensor: Tensor) -> int:
    """CRC-32 of a tensor's type, shape and bytes."""
    return zlib.crc32(tensor.numpy().data, zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode()))
