"""Which pieces of a unit go at a ratio: by one score of importance, or by the best of several.

Shapes: c pieces of a unit, k of them kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from jaxtyping import Int
from torch import Tensor, nn

from autoprune.compress.importance import IMPORTANCES, Pieces
from autoprune.compress.prune_obs import Reader, refit_error
from autoprune.compress.statistics import Statistics
from autoprune.models.layer_io import matrix_of
from autoprune.models.unit import Unit


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
    )


def removal_orders(unit: Unit, pieces: Pieces) -> dict[str, Int[Tensor, " c"]]:
    """By each importance that the unit names, pieces in the order in which they can best be spared."""
    return {name: IMPORTANCES[name](pieces).argsort(stable=True) for name in unit.importance}


def least_harm(unit: Unit, pieces: Pieces, keeps: Sequence[Int[Tensor, " k"]]) -> Int[Tensor, " k"]:
    """Of several sets of pieces to keep the one that leaves the outputs of the unit's readers least in error.

    The error is that after the refit, weighed by how much each output matters: what `prune_obs` makes small
    piece by piece. Of equal ones the first.
    """

    def error(keep: Int[Tensor, " k"]) -> float:
        return sum(
            refit_error(reader, unit.at(keep, weight.columns))
            for reader, weight in zip(pieces.readers, unit.cols, strict=True)
        )

    return min(keeps, key=error)
