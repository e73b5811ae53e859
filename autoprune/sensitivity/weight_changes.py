"""Changes of a unit's matrices in its variants, and of a layer's output with them.

Shapes: l levels of a unit, a directions, b rows of a batch, s tokens of a row, o and i output and input
features of a weight, v d an embedding's, p weights of a matrix laid flat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autoprune.compress.activations import Activations
from autoprune.compress.library import Library
from autoprune.compress.variants import Variant
from autoprune.models.layer_io import matrix_of
from autoprune.models.unit import Unit, Weight

Kept = Int[Tensor, " k"] | slice
"""Rows or columns that stay: their numbers, or all."""


@dataclass(frozen=True)
class Change:
    """What all levels of a unit do to one matrix, in the shapes it came in: weight and bias.

    rounded: for levels (by number) with 8-bit activations the input's grid and the new weight [o i],
    zero where rows or columns are removed.
    """

    weight: Float[Tensor, "l o i"]
    bias: Float[Tensor, "l o"]
    rounded: dict[int, tuple[Activations, Float[Tensor, "o i"]]]


@dataclass(frozen=True)
class Lookup:
    """What all levels do to an embedding: its rows before, and what they become, made when looked at.

    tied: path of the output layer that has the same weight.
    """

    old: Float[Tensor, "v d"]
    variants: Sequence[Variant]
    tied: str

    def rows(self, ids: Int[Tensor, " n"]) -> Iterator[Float[Tensor, "n d"]]:
        """What each level adds to the rows that are looked up."""
        for variant in self.variants:
            places = ids if variant.places is None else variant.places[ids].long()
            new = (
                variant.weight[places] if variant.stored is None else variant.stored.rows(places).dequantize()
            )
            yield new - self.old[ids]


Changes = dict[str, Change | Lookup]
"""Of a unit, by module path."""


def is_looked_up(weight: Weight) -> bool:
    """Whether only the rows that a batch looks up are changed: a vocabulary may have very many."""
    return weight.is_embedding


def changes_bytes(unit: Unit) -> int:
    """Memory that the changes of a unit take."""
    return 4 * len(unit.levels()) * sum(w.rows * w.columns for w in unit.weights if not is_looked_up(w))


def weight_changes(unit: Unit, teacher: nn.Module, library: Library) -> Changes:
    """Changes of a unit's matrices by module path, levels in the order of `Unit.levels`."""
    levels = unit.levels()
    changes: Changes = {}
    every = [library.variants(unit, level) for level in levels]
    for weight in unit.weights:
        old = matrix_of(teacher.get_submodule(weight.path))
        if is_looked_up(weight):
            changes[weight.path] = Lookup(old, [weights[weight.path] for weights in every], weight.tied)
            continue
        shape = (len(levels), weight.rows, weight.columns)
        change = Change(torch.empty(*shape), torch.empty(*shape[:2]), {})
        for k, level in enumerate(levels):
            kept = library.kept(unit, level.ratio) if level.ratio else None
            _move_(change, k, teacher.get_submodule(weight.path), every[k][weight.path], unit, weight, kept)
        changes[weight.path] = change
    return changes


def _move_(
    change: Change,
    k: int,
    module: nn.Module,
    variant: Variant,
    unit: Unit,
    weight: Weight,
    kept: Int[Tensor, " k"] | None,
) -> None:
    """Put what a variant, of pieces `kept`, adds to a matrix and its bias into level `k` of a change.

    Removed columns go to zero. Removed rows count as they were: that nothing reads them any more is
    in the columns that did.
    """
    old, is_col = matrix_of(module), weight in unit.cols
    rows: Kept = slice(None) if kept is None or is_col else unit.at(kept, weight.rows)
    columns: Kept = unit.at(kept, weight.columns) if kept is not None and is_col else slice(None)
    new = torch.zeros_like(old) if is_col else old.clone()
    new[rows, columns] = variant.value()
    change.weight[k] = new - old
    change.bias[k] = 0.0
    if variant.bias is not None:
        change.bias[k, rows] = variant.bias - module.bias.detach()[rows]  # type: ignore[operator]
    if variant.activations is not None:
        rounded = torch.zeros_like(old)
        rounded[rows, columns] = variant.value()
        change.rounded[k] = variant.activations, rounded
