"""How much each piece of a unit matters, by eight scores of one signature: pieces in, scores out.

Shapes: o output features, i input features of a weight as a matrix, c the pieces that can go (heads, neurons
or channels), each of neighbouring rows of the weights that make it and of neighbouring columns of those that
read it; n calibration rows.

What has the largest score stays. Scores of one function are comparable within a unit alone. What each brings:
docs/decisions/032-importance-allocation-schedules.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from autoprune.compress.prune_obs import Reader, removal_order


@dataclass(frozen=True)
class Pieces:
    """What can be removed from a unit, with all that a score may read.

    makers: weights that lose rows. readers: weights that lose columns, with the statistics of their inputs.
    count: the number of pieces. step: pieces that second-order removal takes between updates. seed: of scores
    that are drawn. gates: what was learned of each piece (`gates`); empty where it was not asked for.
    """

    makers: tuple[Float[Tensor, "o i"], ...]
    readers: tuple[Reader, ...]
    count: int
    step: int = 1
    seed: int = 0
    gates: Float[Tensor, " c"] = field(default_factory=lambda: torch.empty(0))

    def of_rows(self, values: Float[Tensor, " o"]) -> Float[Tensor, " c"]:
        """Sums over the rows, or the columns, of each piece."""
        sums: Tensor = values.reshape(self.count, -1).sum(1)
        return sums


Scores = Float[Tensor, " c"]


def magnitude_l1(pieces: Pieces) -> Scores:
    """Sum of |w| over a piece's rows and columns: Li et al., arXiv 1608.08710, of whole units."""
    return _summed(pieces, torch.abs)


def magnitude_l2(pieces: Pieces) -> Scores:
    """Euclidean norm of a piece's rows and columns together."""
    return _summed(pieces, torch.square).sqrt()


def activation(pieces: Pieces) -> Scores:
    """Sum of |w_oj| * ||x_j|| over a piece's columns, with ||x_j|| the root of the mean square of its input.

    Wanda (Sun et al., arXiv 2306.11695, eq. 1), summed over columns as for structured removal.
    """
    parts = [
        pieces.of_rows(reader.weight.abs().sum(0) * reader.moment.diagonal().clamp(min=0).sqrt())
        for reader in pieces.readers
    ]
    return torch.stack(parts).sum(0)


def taylor(pieces: Pieces) -> Scores:
    """Mean over calibration rows of (sum of gradient * weight over a piece's columns)^2.

    Molchanov et al., arXiv 1906.10771, eq. 8, for a group of weights: what the loss changes by where a gate
    on the piece is closed, to first order, squared row by row.

    Raises:
        ValueError: where calibration recorded no contributions.
    """
    if any(reader.contributions.numel() == 0 for reader in pieces.readers):
        raise ValueError("calibration recorded no gradient * weight of this unit")
    by_row = [
        reader.contributions.reshape(len(reader.contributions), pieces.count, -1).sum(2)
        for reader in pieces.readers
    ]
    return torch.stack(by_row).sum(0).square().mean(0)


def second_order(pieces: Pieces) -> Scores:
    """Place in the order of structured Optimal Brain Surgeon, which knows what went before: `prune_obs`."""
    order = removal_order(pieces.readers, pieces=pieces.count, step=pieces.step)
    return order.argsort().float()


def learned_gates(pieces: Pieces) -> Scores:
    """What gates on the pieces, trained with the weights as they are, have learned of each: `compress/gates`.

    Raises:
        ValueError: where none were trained.
    """
    if pieces.gates.numel() == 0:
        raise ValueError("no gates were trained on this unit")
    return pieces.gates


def random(pieces: Pieces) -> Scores:
    """Numbers drawn by the seed: the baseline of all others, as random masks."""
    return torch.rand(pieces.count, generator=torch.Generator().manual_seed(pieces.seed))


def hybrid(pieces: Pieces) -> Scores:
    """Mean of the ranks by Euclidean norm, activation, Taylor and second order."""
    parts = (magnitude_l2, activation, taylor, second_order)
    return torch.stack([_ranks(score(pieces)) for score in parts]).mean(0)


IMPORTANCES: Mapping[str, Callable[[Pieces], Scores]] = {
    "l1": magnitude_l1,
    "l2": magnitude_l2,
    "activation": activation,
    "taylor": taylor,
    "obs": second_order,
    "gates": learned_gates,
    "random": random,
    "hybrid": hybrid,
}
"""By the names that a space file has; those of `space_file.Importance`."""

BY_GRADIENT = frozenset({"taylor", "hybrid"})
"""Scores that read each calibration row's gradients, which are recorded for them alone."""


BY_GATES = frozenset({"gates"})
"""Scores for which gates are trained."""


def _summed(pieces: Pieces, of: Callable[[Tensor], Tensor]) -> Scores:
    rows = [pieces.of_rows(of(weight).sum(1)) for weight in pieces.makers]
    columns = [pieces.of_rows(of(reader.weight).sum(0)) for reader in pieces.readers]
    return torch.stack(rows + columns).sum(0)


def _ranks(scores: Scores) -> Scores:
    """Places of scores in ascending order; of equal ones the first is lower."""
    return scores.argsort(stable=True).argsort().float()
