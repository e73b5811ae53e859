"""Which heads, neurons or channels go, and the least-squares refit of what stays.

Shapes: o output features, i input features of a weight that loses columns, c the pieces that can go, each
i / c neighbouring columns; k kept input features; n calibration rows.
Method: structured Optimal Brain Surgeon, as in ZipLM (Kurtic et al., arXiv 2302.04089, eq. 3-4):
the cost of removing a block S of columns is tr(W_S (H^-1_SS)^-1 W_S^T), and removal updates W and
H^-1 so that the next cost knows what is gone. The bias is one more column, of ones, that never
goes: removed neurons rarely have mean zero, and the bias takes over their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

RIDGE = 1e-4
"""Share of the mean diagonal added before solving; calibration data are few."""


@dataclass(frozen=True)
class Reader:
    """A weight that loses columns, the second moment and mean of its input, and how much an error in each
    output feature matters, so that errors of several readers can be added up.

    contributions: `Statistics.contributions` of its inputs; empty where they were not recorded.
    """

    weight: Float[Tensor, "o i"]
    moment: Float[Tensor, "i i"]
    mean: Float[Tensor, " i"]
    row_weight: Float[Tensor, " o"]
    contributions: Float[Tensor, "n i"] = field(default_factory=lambda: torch.empty(0, 0))


def removal_order(readers: Sequence[Reader], *, pieces: int, step: int) -> Int[Tensor, " c"]:
    """Pieces in the order in which they can best be spared.

    Args:
        readers: all weights that read them; the costs of a piece add up.
        pieces: how many there are.
        step: pieces removed between updates; 1 is exact, more is faster.
    """
    blocks = [reader.weight.shape[1] // pieces for reader in readers]
    states = [_state(reader) for reader in readers]
    alive = torch.arange(pieces)
    order: list[Tensor] = []
    while len(alive) > 0:
        costs = [_costs(*state, alive, block) for state, block in zip(states, blocks, strict=True)]
        gone = alive[torch.stack(costs).sum(0).argsort()[: min(step, len(alive))]]
        order.append(gone)
        alive = alive[~torch.isin(alive, gone)]
        if len(alive) > 0:
            states = [
                _without(*state, _columns(gone, block)) for state, block in zip(states, blocks, strict=True)
            ]
    return torch.cat(order)


def _state(one: Reader) -> tuple[Float[Tensor, "o i1"], Float[Tensor, "i1 i1"]]:
    """The weight with its rows weighed, and the inverse of its input's second moment, with the bias's."""
    inverse = torch.linalg.inv(_with_ones(one.moment, one.mean).double())
    left = (one.weight * one.row_weight.clamp(min=0).sqrt()[:, None]).double()
    return torch.cat([left, left.new_zeros(len(left), 1)], dim=1), inverse


def refit(
    weight: Float[Tensor, "o i"],
    bias: Float[Tensor, " o"] | None,
    moment: Float[Tensor, "i i"],
    mean: Float[Tensor, " i"],
    keep: Int[Tensor, " k"],
) -> tuple[Float[Tensor, "o k"], Float[Tensor, " o"] | None]:
    """Weight on the kept columns, and bias where there is one, with the least squared error of the output.

    Solves min over (W', b') of E||W x + b - W' x_keep - b'||^2 by its normal equations.
    """
    i = weight.shape[1]
    full = _with_ones(moment, mean).double()
    if bias is None:
        gram, seen = full[keep][:, keep], weight.double() @ full[:i, keep]
        return torch.linalg.solve(gram, seen.T).T.to(weight.dtype), None
    columns = torch.cat([keep, torch.tensor([i])])
    target = torch.cat([weight, bias[:, None]], dim=1).double()
    gram = full[columns][:, columns]
    solution = torch.linalg.solve(gram, (target @ full[:, columns]).T).T
    return solution[:, :-1].to(weight.dtype), solution[:, -1].to(bias.dtype)


def _with_ones(moment: Float[Tensor, "i i"], mean: Float[Tensor, " i"]) -> Float[Tensor, "i1 i1"]:
    """Second moment of [x, 1], with a ridge on x alone."""
    i = len(mean)
    full = moment.new_ones(i + 1, i + 1)
    full[:i, :i] = moment
    full[:i, :i].diagonal().add_(RIDGE * float(moment.diagonal().mean()) + 1e-12)
    full[:i, i] = mean
    full[i, :i] = mean
    return full


def _costs(
    left: Float[Tensor, "o i1"],
    inverse: Float[Tensor, "i1 i1"],
    alive: Int[Tensor, " c"],
    block: int,
) -> Float[Tensor, " c"]:
    """Error that removing each block alone would bring."""
    if block == 1:
        return left[:, alive].square().sum(0) / inverse.diagonal()[alive]
    columns = _columns(alive, block).reshape(-1, block)
    parts = left[:, columns].transpose(0, 1)  # [c o block]
    inner = inverse[columns[:, :, None], columns[:, None, :]]  # [c block block]
    costs: Tensor = (parts * torch.linalg.solve(inner, parts.mT).mT).sum((1, 2))
    return costs


def _without(
    left: Float[Tensor, "o i1"], inverse: Float[Tensor, "i1 i1"], gone: Int[Tensor, " s"]
) -> tuple[Float[Tensor, "o i1"], Float[Tensor, "i1 i1"]]:
    """W and H^-1 once the columns `gone` are removed (ZipLM, eq. 4)."""
    share = torch.linalg.solve(inverse[gone][:, gone], inverse[gone])  # [s i1]
    left = left - left[:, gone] @ share
    inverse = inverse - inverse[:, gone] @ share
    left[:, gone] = 0.0
    inverse[gone] = 0.0
    inverse[:, gone] = 0.0
    return left, inverse


def _columns(blocks: Int[Tensor, " c"], block: int) -> Int[Tensor, " s"]:
    """Column numbers of blocks, in order."""
    return (blocks[:, None] * block + torch.arange(block)).reshape(-1)
