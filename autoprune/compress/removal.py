"""Which pieces of a unit go: orders by its importances, and models without some of them to choose by.

Shapes: c pieces of a unit, k of them kept.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping
from dataclasses import replace

from jaxtyping import Int
from torch import Tensor, nn

from autoprune.compress.importance import IMPORTANCES, Pieces
from autoprune.compress.prune_obs import Reader
from autoprune.compress.statistics import Statistics
from autoprune.compress.surgery import replace_
from autoprune.compress.variants import make_variants
from autoprune.models.canonical import settle_
from autoprune.models.layer_io import matrix_of
from autoprune.models.unit import Unit
from autoprune.space.storage import FLOAT32


def pieces_of(
    unit: Unit, teacher: nn.Module, statistics: Mapping[str, Statistics], *, key: str = ""
) -> Pieces:
    """The pieces of a unit of heads, neurons or channels. key: what draws follow from, beside the unit."""
    readers = []
    for weight in unit.cols:
        seen = statistics[weight.path]
        matrix = matrix_of(teacher.get_submodule(weight.path))
        readers.append(Reader(matrix, seen.moment, seen.mean, seen.gradient * seen.uses, seen.contributions))
    block = min(weight.columns // unit.pieces for weight in unit.cols)
    return Pieces(
        makers=tuple(matrix_of(teacher.get_submodule(weight.path)) for weight in unit.rows),
        readers=tuple(readers),
        count=unit.pieces,
        step=1 if block > 1 and unit.step == 1 else max(1, unit.step // 4),
        seed=zlib.crc32(f"{key} {unit.name}".encode()),
        gates=statistics[unit.cols[0].path].gates,
    )


def removal_orders(unit: Unit, pieces: Pieces) -> dict[str, Int[Tensor, " c"]]:
    """By each importance that the unit names, pieces in the order in which they can best be spared."""
    return {name: IMPORTANCES[name](pieces).argsort(stable=True) for name in unit.importance}


def without(
    unit: Unit, keep: Int[Tensor, " k"], teacher: nn.Module, statistics: Mapping[str, Statistics]
) -> nn.Module:
    """A copy of the teacher in which one unit has the pieces `keep` alone, refitted, in float32."""
    tensors = make_variants(replace(unit, storages=(FLOAT32,)), keep, teacher, statistics)
    model = copy.deepcopy(teacher)
    for weight in unit.weights:
        bias = tensors.get(f"{weight.path}@{FLOAT32.name}.bias")
        replace_(model, weight.path, tensors[f"{weight.path}.weight"], bias)
    settle_(model)
    return model.eval()
