"""The compression database: a unit's variants, made when first asked for and kept on disk.

One file holds a unit at one ratio for all its bit-widths, since they share the removal and the
Cholesky factors. It is named after everything it depends on, so files of several models, data
sets and versions live side by side, and workers of a machine share them (memory-mapped). The folder
is kept within a limit (`shelf`): a file that had to go, or is damaged, is made again.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.calibrate import Statistics
from autoprune.compress.activations import Activations
from autoprune.compress.integers import Integers, round_nearest
from autoprune.compress.removal import refit, removal_order
from autoprune.compress.rounding import round_compensated
from autoprune.errors import AutopruneError
from autoprune.files import content_key, written_whole
from autoprune.shelf import LIMIT_VARIABLE, VERSION, Note, limit_bytes, make_room, touch
from autoprune.space import FLOAT_BITS, INTEGER, Level, Width
from autoprune.units import Unit, Weight

log = logging.getLogger(__name__)

# RuntimeError: torch opens the file once more by its name, which another process may have removed.
_UNREADABLE = (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError)

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Variant:
    """One matrix of a unit at a level.

    weight: float weight after removal and refit, not rounded [o i]. integers: what it is rounded
    to, None at 16 and 32 bits. bias: refitted and corrected for the mean error of rounding [o].
    activations: the grid its input is rounded to, None where that stays float.
    """

    weight: Float[Tensor, "o i"]
    bias: Float[Tensor, " o"] | None
    integers: Integers | None
    bits: int
    activations: Activations | None = None

    def value(self) -> Float[Tensor, "o i"]:
        """The weight the model computes with."""
        if self.integers is not None:
            return self.integers.dequantize()
        return self.weight.half().float() if self.bits < FLOAT_BITS else self.weight


class Library:
    """Variants of one teacher's units under one calibration.

    limit: bytes that all files of the folder may take, of whatever model; from the environment or
    20 GB where None.
    """

    def __init__(
        self,
        folder: Path,
        teacher: nn.Module,
        statistics: Mapping[str, Statistics],
        *,
        key: str,
        limit: int | None = None,
    ) -> None:
        self._folder, self._teacher, self._statistics, self._key = folder, teacher, statistics, key
        self._limit = limit_bytes() if limit is None else limit
        self._orders: dict[str, Tensor] = {}
        self._made: set[Path] = set()
        self._is_cramped = False

    def path(self, unit: Unit, ratio: float) -> Path:
        """File of a unit at a ratio, whether it is there or not."""
        name = content_key(VERSION, self._key, asdict(unit), ratio)
        return self._folder / f"{name}.safetensors"

    def build(self, unit: Unit, ratio: float) -> None:
        """Make the file if it is not there."""
        if self._found(unit, ratio) is None:
            self._make(unit, ratio)

    def variants(self, unit: Unit, level: Level) -> dict[str, Variant]:
        """Each matrix of the unit at a level, by module path."""
        if level.ratio not in unit.ratios or level.width not in unit.choices.widths:
            raise AutopruneError(f"{unit.name} has no level {level}")
        return self._read(unit, level.ratio, lambda file: file.variants(unit, level))

    def kept_rows(self, unit: Unit, ratio: float) -> Int[Tensor, " k"]:
        """Rows of `unit.rows` that stay at a ratio, in order; of its first where none can be removed."""
        if ratio not in unit.ratios:
            raise AutopruneError(f"{unit.name} has no ratio {ratio:g}")
        if not unit.prunable or ratio == 0:
            return torch.arange(unit.rows[0].rows)
        return self._read(unit, ratio, _File.kept_rows)

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
        keep = self._rows_to_keep(unit, ratio) if unit.prunable and ratio > 0 else None
        tensors = make_variants(unit, keep, self._teacher, self._statistics)
        sums = {name: _checksum(tensor) for name, tensor in tensors.items()}
        widths = unit.choices.widths[::-1]
        note = Note(VERSION, self._key, unit.name, unit.kind, ratio, widths, time.time(), sums)
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

    def _rows_to_keep(self, unit: Unit, ratio: float) -> Int[Tensor, " k"]:
        """Rows that a new file keeps, in order. One order of removal serves all ratios, so they nest."""
        if unit.name not in self._orders:
            col = unit.cols[0]
            seen = self._statistics[col.path]
            self._orders[unit.name] = removal_order(
                _weight_of(self._teacher.get_submodule(col.path)),
                seen.moment,
                seen.mean,
                block=unit.block,
                step=1 if unit.block > 1 else max(1, unit.keep_multiple // 4),
                row_weight=seen.gradient,
            )
        order = self._orders[unit.name]
        blocks = order[len(order) - unit.kept(ratio) // unit.block :].sort().values
        return (blocks[:, None] * unit.block + torch.arange(unit.block)).reshape(-1)


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

    def kept_rows(self) -> Int[Tensor, " k"]:
        """Rows that stay, in order; only where some were removed."""
        return self._tensor("keep")

    def variants(self, unit: Unit, level: Level) -> dict[str, Variant]:
        """Each matrix of the file's unit at a level's width, by module path."""
        out = {}
        for one in unit.weights:
            stem = f"{one.path}@{level.width}"
            weight = self._tensor(f"{one.path}.weight")
            bias = self._tensor(f"{stem}.bias") if one.has_bias else None
            integers = None
            if level.bits < 16:
                codes, scale, zero = (self._tensor(f"{stem}.{part}") for part in ("codes", "scale", "zero"))
                integers = Integers(codes, scale, zero, level.bits)
            grid = None
            if level.is_integer:
                step, zero_point = self._tensor(f"{stem}.activations").tolist()
                grid = Activations(step, int(zero_point))
            out[one.path] = Variant(weight, bias, integers, level.bits, grid)
        return out

    def _tensor(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        if _checksum(tensor) != self.note.sums[name]:
            raise ValueError(f"{name} is not what was written")
        return tensor


def _checksum(tensor: Tensor) -> int:
    """CRC-32 of a tensor's type, shape and bytes."""
    return zlib.crc32(tensor.numpy().data, zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode()))


def make_variants(
    unit: Unit,
    keep: Int[Tensor, " k"] | None,
    teacher: nn.Module,
    statistics: Mapping[str, Statistics],
) -> dict[str, Tensor]:
    """Tensors of a unit with the rows `keep` (None for all) at all its bit-widths.

    Names are `keep`, `path.weight` (float), and `path@width.codes`, `.scale`, `.zero`, `.bias`, and for
    8-bit activations `.activations`: their scale and zero point.
    """
    tensors: dict[str, Tensor] = {} if keep is None else {"keep": keep}
    for one in unit.weights:
        made = _rounded(unit, one, keep, teacher.get_submodule(one.path), statistics[one.path])
        for width, variant in made.items():
            tensors[f"{one.path}.weight"] = variant.weight.contiguous()
            stem = f"{one.path}@{width}"
            if variant.bias is not None:
                tensors[f"{stem}.bias"] = variant.bias.contiguous()
            if variant.integers is not None:
                tensors[f"{stem}.codes"] = variant.integers.codes.contiguous()
                tensors[f"{stem}.scale"] = variant.integers.scale.contiguous()
                tensors[f"{stem}.zero"] = variant.integers.zero.contiguous()
            if variant.activations is not None:
                grid = variant.activations
                tensors[f"{stem}.activations"] = torch.tensor([grid.scale, grid.zero], dtype=torch.float64)
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _rounded(
    unit: Unit,
    one: Weight,
    keep: Int[Tensor, " k"] | None,
    module: nn.Module,
    seen: Statistics,
) -> dict[Width, Variant]:
    """One matrix with rows or columns removed, at every width."""
    weight = _weight_of(module)
    if isinstance(module, nn.Embedding):
        return {bits: _embedding_variant(weight, bits, unit.group_size) for bits in unit.bits}
    old: Tensor | None = getattr(module, "bias", None)
    bias = old.detach() if old is not None else torch.zeros(len(weight))
    moment, mean, low, high = seen.moment, seen.mean, seen.low, seen.high
    if keep is not None and one in unit.cols:
        weight, bias = refit(weight, bias, moment, mean, keep)
        moment, mean = moment[keep][:, keep], mean[keep]
        low, high = low[keep], high[keep]
    elif keep is not None:
        weight, bias = weight[keep], bias[keep]
    integer_bits = [b for b in unit.bits if b < 16]
    made = round_compensated(weight, moment, bits=integer_bits, group_size=unit.group_size)
    rounded: dict[Width, Integers] = dict(zip(integer_bits, made, strict=True))
    if unit.integer:
        # What is multiplied as integers has one scale a row, which leaves the sum, and no zero point.
        rounded[INTEGER] = round_compensated(
            weight, moment, bits=[8], group_size=weight.shape[1], symmetric=True
        )[0]
    out = {}
    for level in unit.levels(0.0):
        plain = Variant(weight, None, rounded.get(level.width), level.bits)
        shift = bias + (weight - plain.value()) @ mean  # rounding must not move the output's mean
        grid = Activations.of(float(low.min()), float(high.max())) if level.is_integer else None
        out[level.width] = replace(plain, bias=shift if old is not None else None, activations=grid)
    return out


def _embedding_variant(weight: Float[Tensor, "v d"], bits: int, group_size: int) -> Variant:
    integers = round_nearest(weight, bits=bits, group_size=group_size) if bits < 16 else None
    return Variant(weight, None, integers, bits)


def _weight_of(module: nn.Module) -> Float[Tensor, "o i"]:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.detach()
