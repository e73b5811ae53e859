"""Hooks that record what passes each layer, and the score of each change of its weight."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from autoprune.compress.activations import Activations
from autoprune.models.layer_io import inputs_of, moment_of
from autoprune.models.layer_io import output_matrix as layer_outputs
from autoprune.models.row_lookup import row_factor
from autoprune.sensitivity.weight_changes import Change, Changes, Lookup

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
            return _looked_up(x, gradient, change) * row_factor(self.module)
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


def added(first: Scores, other: Scores) -> Scores:
    """The sum."""
    return other if first is None else first if other is None else first + other


def _looked_up(
    ids: Int[Tensor, "b s"], gradient: Float[Tensor, "a b s d"], change: Lookup
) -> Float[Tensor, "l a b"]:
    """sum_t g_t^T d_t, with d_t the change of the row that is looked up; each row is changed once."""
    known, places = torch.unique(ids, return_inverse=True)
    return torch.stack([(new[places] * gradient).sum((2, 3)) for new in change.rows(known)])


def _multiplied(
    module: nn.Module, x: Tensor, gradient: Float[Tensor, "a b *s o"], change: Change
) -> Float[Tensor, "l a b"]:
    """A row's uses of a matrix are summed once for all levels, to its moments [a b p]."""
    rows = inputs_of(module, x, gradient[0])
    moments = torch.stack([moment_of(module, vector, rows) for vector in gradient])
    sums = torch.stack([layer_outputs(module, vector).sum(1) for vector in gradient])
    flat = change.weight.flatten(1)
    scores = flat @ moments.flatten(0, 1).T + change.bias @ sums.flatten(0, 1).T
    scores = scores.reshape(-1, *moments.shape[:2])
    by_grid: dict[Activations, Tensor] = {}
    for k, (grid, weight) in change.rounded.items():
        if grid not in by_grid:
            left = grid.round(rows) - rows
            by_grid[grid] = torch.stack([moment_of(module, vector, left) for vector in gradient])
        scores[k] += by_grid[grid] @ weight.flatten()
    return scores


# ---- together -----------------------------------------------------------------------------------


@contextlib.contextmanager
def recording(teacher: nn.Module, changes: Mapping[str, Changes]) -> Iterator[dict[str, Recorder]]:
    """A recorder for each matrix, and for each output layer that shares an embedding's weight."""
    paths = [path for parts in changes.values() for path in parts]
    tied = [part.tied for parts in changes.values() for part in parts.values() if isinstance(part, Lookup)]
    recorders = {path: Recorder(teacher.get_submodule(path)) for path in (*paths, *filter(None, tied))}
    try:
        yield recorders
    finally:
        for recorder in recorders.values():
            recorder.remove()


def gradients_at(
    outputs: Sequence[Tensor], vectors: Iterable[Sequence[Tensor]], edges: Sequence[GradientEdge | None]
) -> tuple[list[Tensor | None], int]:
    """Gradients [a ...] at places of a graph, of the outputs times each of `a` vectors; and `a`.

    One backward pass a direction; none of weights.
    """
    wanted = [edge for edge in edges if edge is not None]
    by_vector = [
        torch.autograd.grad(outputs, wanted, vector, retain_graph=True, allow_unused=True) if wanted else ()
        for vector in vectors
    ]
    stacked = iter(
        [
            None if gradients[0] is None else torch.stack(gradients)
            for gradients in zip(*by_vector, strict=True)
        ]
    )
    return [None if edge is None else next(stacked) for edge in edges], len(by_vector)


def scores_of_changes(
    changes: Mapping[str, Changes],
    recorders: Mapping[str, Recorder],
    gradients: Mapping[str, Sequence[Tensor | None]],
) -> dict[str, Scores]:
    """Scores of what recorders saw, by unit."""
    by_unit: dict[str, Scores] = {}
    for unit, parts in changes.items():
        by_unit[unit] = None
        for path, change in parts.items():
            by_unit[unit] = added(by_unit[unit], recorders[path].scores(gradients[path], change))
    return by_unit
