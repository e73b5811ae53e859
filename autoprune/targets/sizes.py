"""Bytes of every unit at every level on a target; those outside all units are measured on a saved model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from autoprune.compress.stitch import Stitched
from autoprune.compress.surgery import replace_
from autoprune.core.cache import DiskCache
from autoprune.core.files import read_json, write_json
from autoprune.models.canonical import settle_
from autoprune.models.layer_io import matrix_of
from autoprune.models.loading import Loaded
from autoprune.models.split_embedding import whole
from autoprune.models.state import state_of
from autoprune.models.unit import Unit
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import UNTOUCHED, Candidate, Level, SearchSpace
from autoprune.targets import Target, size_on_disk, versions_of
from autoprune.targets.packed import torch_runner
from autoprune.targets.same_answers import check_same_answers
from autoprune.targets.spot_check import spot_check
from autoprune.tasks.task import Task, layout

SIZES_VERSION = 5
"""Raised when a target saves the same model in other bytes."""

_SIZES = DiskCache("sizes", SIZES_VERSION, ".json")

EMPTY = 1.0
"""The ratio at which nothing of a unit is left."""


def sizes_of(loaded: Loaded, units: Sequence[Unit], space: SearchSpace, target: Target, task: Task) -> Costs:
    """Bytes of every unit at every level on the target; fixed bytes from really saving the model.

    Raises:
        AutopruneError: where the model cannot be saved there, or answers otherwise than in torch.

    A model is saved once for each architecture and target: its size depends on no weight, but for those that
    are all zeros, which graphs leave out (a head still to be fitted gets others first). So is one with
    half the units of each kind emptied: what goes of a graph with a last head differs by family.
    """
    saved = _Saved(loaded, target, task)
    original = saved.size_bytes()
    emptiable = [u for u, choices in zip(units, space.units, strict=True) if EMPTY in choices.ratios]
    off = saved.emptied_off(emptiable, original)
    levels = {
        unit.name: {
            level: Cost(target.size_bytes(unit, level) + (off[unit.name] if level.ratio == EMPTY else 0))
            for level in choices.levels()
        }
        for unit, choices in zip(units, space.units, strict=True)
    }
    fixed = original - sum(table[UNTOUCHED].size_bytes for table in levels.values())
    return Costs(fixed, levels)


class _Saved:
    """Sizes of a model on a target, each measured once and cached."""

    def __init__(self, loaded: Loaded, target: Target, task: Task) -> None:
        self._loaded, self._target, self._task = loaded, target, task
        self._example = example = task.batch(task.validation, task.example_rows)
        shapes = [
            [name, list(tensor.shape), loaded.has_head and not bool(tensor.any())]
            for name, tensor in state_of(loaded.model).items()
        ]
        kind, builder = loaded.architecture.kind, loaded.architecture.builder
        code = spot_check(torch_runner(loaded.model, kind), example) if builder else []
        self._parts = [
            loaded.architecture.identity(), code, shapes, layout(example), target.name,
            versions_of(target.name),
        ]  # fmt: skip

    def size_bytes(self, empty: Sequence[Unit] = ()) -> int:
        """Bytes of the model as it came, or with nothing left of some units."""
        told = [[weight.path, weight.rows, weight.columns] for unit in empty for weight in unit.weights]
        return _SIZES.get(
            [*self._parts, told],
            make=lambda: self._measured(empty),
            save=lambda size, path: write_json(path, {"size_bytes": size}),
            load=lambda path: int(read_json(path)["size_bytes"]),
        )

    def _measured(self, empty: Sequence[Unit]) -> int:
        """The same, from really saving it; of the model as it came, once it answers there as in torch."""
        model = whole(self._loaded.model)
        model = model if self._loaded.has_head else _as_if_fitted(model)
        model = _emptied(model, empty) if empty else model
        with TemporaryDirectory(prefix="autoprune-") as name:
            plain = Stitched.plain(model, self._loaded.architecture)
            levels = Candidate(tuple((unit.name, Level(EMPTY)) for unit in empty))
            plain = replace(plain, levels=levels)  # a file may name them
            self._target.save(plain, Path(name), self._example)
            if not empty:
                check_same_answers(model, self._target, Path(name), self._task)
            return size_on_disk(self._target, Path(name))

    def emptied_off(self, units: Sequence[Unit], original: int) -> dict[str, int]:
        """Bytes that emptied units take beyond what the target predicts, for each unit.

        Found with half the units of a kind emptied, as what several have in common goes with the last.
        """
        kinds: dict[tuple[object, ...], list[Unit]] = {}
        for unit in units:
            kinds.setdefault((unit.kind, *(weight.rows for weight in unit.weights)), []).append(unit)
        off: dict[str, int] = {}
        for alike in kinds.values():
            half = alike[: (len(alike) + 1) // 2]
            said = sum(
                self._target.size_bytes(unit, Level(EMPTY)) - self._target.size_bytes(unit, UNTOUCHED)
                for unit in half
            )
            each = round((self.size_bytes(half) - original - said) / len(half))
            off |= {unit.name: each for unit in alike}
        return off


def _as_if_fitted(model: nn.Module) -> nn.Module:
    """A copy in which no parameter is all zeros: runtimes leave out the sum with a new head's zero biases."""
    out = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in out.parameters():
            if not parameter.any():
                parameter.fill_(1e-3)
    return out


def _emptied(model: nn.Module, units: Sequence[Unit]) -> nn.Module:
    """A copy with nothing left of some units: the layers that read them give their bias alone."""
    out = copy.deepcopy(model)
    for unit in units:
        for weight in unit.weights:
            layer = out.get_submodule(weight.path)
            matrix, bias = matrix_of(layer), getattr(layer, "bias", None)
            if weight in unit.cols:
                replace_(out, weight.path, matrix[:, :0], bias)
            else:
                replace_(out, weight.path, matrix[:0], None if bias is None else bias[:0])
    settle_(out)
    return out
