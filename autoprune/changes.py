"""What the variants of a unit change in its matrices, and what that does to a layer's output.

Shapes: l levels of a unit, a directions, b rows of a batch, s tokens of a row, o and i output and input
features of a weight, v d an embedding's, p weights of a matrix laid flat.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from autoprune.compress.activations import Activations
from autoprune.layers import inputs_of, moment_of
from autoprune.layers import outputs_of as layer_outputs
from autoprune.library import Library
from autoprune.space import FLOAT_BITS
from autoprune.units import Unit, Weight
from autoprune.variants import Variant, matrix_of

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
        for one in self.variants:
            at = ids if one.places is None else one.places[ids].long()
            new = one.weight[at] if one.integers is None else one.integers.rows(at).dequantize()
            new = new.half().float() if one.integers is None and one.bits < FLOAT_BITS else new
            yield new - self.old[ids]


Changes = dict[str, Change | Lookup]
"""Of a unit, by module path."""


def is_looked_up(weight: Weight) -> bool:
    """Whether only the rows that a batch uses are changed for it, as there may be very many."""
    return weight.is_embedding


def changes_bytes(unit: Unit) -> int:
    """Memory that the changes of a unit take."""
    return 4 * len(unit.levels()) * sum(w.rows * w.columns for w in unit.weights if not is_looked_up(w))


def weight_changes(unit: Unit, teacher: nn.Module, library: Library) -> Changes:
    """Changes of a unit's matrices by module path, levels in the order of `Unit.levels`."""
    levels = unit.levels()
    made: Changes = {}
    every = [library.variants(unit, level) for level in levels]
    for weight in unit.weights:
        old = matrix_of(teacher.get_submodule(weight.path))
        if is_looked_up(weight):
            made[weight.path] = Lookup(old, [one[weight.path] for one in every], weight.tied)
            continue
        shape = (len(levels), weight.rows, weight.columns)
        change = Change(torch.empty(*shape), torch.empty(*shape[:2]), {})
        for k, level in enumerate(levels):
            kept = library.kept(unit, level.ratio) if level.ratio else None
            _move_(change, k, teacher.get_submodule(weight.path), every[k][weight.path], unit, weight, kept)
        made[weight.path] = change
    return made


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


# ---- where they show ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """One use of a layer by a model: its input, and where its output's gradient is to be had.

    The place in the graph is noted, not the output: a function that works in place may change that.
    """

    input: Tensor
    edge: GradientEdge | None


class Recorder:
    """A hook on one layer that keeps the inputs of a batch, and where the gradients of its outputs are.

    Positions are looked up once for all rows of a batch; here each row gets its own, and its gradient.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.is_embedding = isinstance(module, nn.Embedding)
        self.rows = 1
        self.uses: list[Use] = []
        self._handle = module.register_forward_hook(self._forward)

    def begin(self, rows: int) -> None:
        """Forget the last batch; the next has so many rows."""
        self.rows, self.uses = rows, []

    def _forward(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0].detach()
        if self.is_embedding and len(output) == 1:
            x, output = x.expand(self.rows, -1), output.expand(self.rows, -1, -1)
        if output._is_view():  # whose place in the graph would be lost were it changed in place
            output = output.clone()
        self.uses.append(Use(x, get_gradient_edge(output) if output.requires_grad else None))
        return output

    def scores(
        self, gradients: Sequence[Float[Tensor, "a b *s o"] | None], change: Change | Lookup
    ) -> Scores:
        """sum_t g_t^T (D x_t + c) of each level, row and direction, over all uses; None where there is none.

        gradients: those of each use's output, None where it has no say.
        """
        total: Scores = None
        for use, gradient in zip(self.uses, gradients, strict=True):
            if gradient is not None:
                total = added(total, self._scores(use.input, gradient, change))
        return total

    def _scores(self, x: Tensor, gradient: Float[Tensor, "a b *s o"], change: Change | Lookup) -> Scores:
        x, gradient = self.by_row(x, gradient)
        if isinstance(change, Lookup):
            return _looked_up(x, gradient, change)
        return _multiplied(self.module, x, gradient, change)

    def by_row(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Input and gradients by row, also where the model laid tokens or windows of all rows end to end."""
        uses = len(x) // self.rows
        if isinstance(self.module, nn.Conv2d) or len(x) == self.rows or len(x) % self.rows:
            return x, gradient
        apart = x.reshape(self.rows, uses * x.shape[1:-1].numel(), x.shape[-1])
        return apart, gradient.reshape(len(gradient), self.rows, -1, gradient.shape[-1])

    def remove(self) -> None:
        """Take the hook away."""
        self._handle.remove()


Scores = Float[Tensor, "l a b"] | None
"""Of each level, direction and row; None stands for zeros."""


def added(one: Scores, other: Scores) -> Scores:
    """The sum."""
    return other if one is None else one if other is None else one + other


def _looked_up(
    ids: Int[Tensor, "b s"], gradient: Float[Tensor, "a b s d"], change: Lookup
) -> Float[Tensor, "l a b"]:
    """sum_t g_t^T d_t, with d_t the change of the row that is looked up; each row is changed once."""
    known, at = torch.unique(ids, return_inverse=True)
    return torch.stack([(new[at] * gradient).sum((2, 3)) for new in change.rows(known)])


def _multiplied(
    module: nn.Module, x: Tensor, gradient: Float[Tensor, "a b *s o"], change: Change
) -> Float[Tensor, "l a b"]:
    """A row's uses of a matrix are summed once for all levels, to its moments [a b p]."""
    rows = inputs_of(module, x, gradient[0])
    moments = torch.stack([moment_of(module, one, rows) for one in gradient])
    sums = torch.stack([layer_outputs(module, one).sum(1) for one in gradient])
    flat = change.weight.flatten(1)
    scores = flat @ moments.flatten(0, 1).T + change.bias @ sums.flatten(0, 1).T
    scores = scores.reshape(-1, *moments.shape[:2])
    by_grid: dict[Activations, Tensor] = {}
    for k, (grid, weight) in change.rounded.items():
        if grid not in by_grid:
            left = grid.round(rows) - rows
            by_grid[grid] = torch.stack([moment_of(module, one, left) for one in gradient])
        scores[k] += by_grid[grid] @ weight.flatten()
    return scores


# ---- together -----------------------------------------------------------------------------------


@contextlib.contextmanager
def recording(teacher: nn.Module, changes: Mapping[str, Changes]) -> Iterator[dict[str, Recorder]]:
    """A recorder for each matrix, and for each output layer that shares an embedding's weight."""
    paths = [path for parts in changes.values() for path in parts]
    tied = [one.tied for parts in changes.values() for one in parts.values() if isinstance(one, Lookup)]
    recorders = {path: Recorder(teacher.get_submodule(path)) for path in (*paths, *filter(None, tied))}
    try:
        yield recorders
    finally:
        for one in recorders.values():
            one.remove()


def gradients_at(
    outputs: Sequence[Tensor], vectors: Iterable[Sequence[Tensor]], edges: Sequence[GradientEdge | None]
) -> tuple[list[Tensor | None], int]:
    """Gradients [a ...] at places of a graph, of the outputs times each of `a` vectors; and `a`.

    One backward pass a direction; none of weights.
    """
    wanted = [one for one in edges if one is not None]
    found = [
        torch.autograd.grad(outputs, wanted, vector, retain_graph=True, allow_unused=True) if wanted else ()
        for vector in vectors
    ]
    stacked = iter([None if one[0] is None else torch.stack(one) for one in zip(*found, strict=True)])
    return [None if one is None else next(stacked) for one in edges], len(found)


def scored(
    changes: Mapping[str, Changes],
    recorders: Mapping[str, Recorder],
    gradients: Mapping[str, Sequence[Tensor | None]],
) -> dict[str, Scores]:
    """Scores of what recorders saw, by unit."""
    found: dict[str, Scores] = {}
    for unit, parts in changes.items():
        found[unit] = None
        for path, change in parts.items():
            found[unit] = added(found[unit], recorders[path].scores(gradients[path], change))
    return found
