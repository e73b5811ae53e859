"""Which heads or neurons go, and the least-squares refit of what stays.

Shapes: o output features, i input features of the weight that loses columns, c = i / block the
heads or neurons, k kept input features.
Method: structured Optimal Brain Surgeon, as in ZipLM (Kurtic et al., arXiv 2302.04089, eq. 3-4):
the cost of removing a block S of columns is tr(W_S (H^-1_SS)^-1 W_S^T), and removal updates W and
H^-1 so that the next cost knows what is gone. The bias is one more column, of ones, that never
goes: removed neurons rarely have mean zero, and the bias takes over their mean.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

RIDGE = 1e-4
"""Share of the mean diagonal added before solving; calibration data are few."""


def removal_order(
    weight: Float[Tensor, "o i"],
    moment: Float[Tensor, "i i"],
    mean: Float[Tensor, " i"],
    *,
    block: int,
    step: int,
    row_weight: Float[Tensor, " o"],
) -> Int[Tensor, " c"]:
    """Blocks of input columns in the order in which they can best be spared.

    Args:
        weight: the weight that loses columns.
        moment: second moment of its input.
        mean: mean of its input.
        block: neighbouring columns that go together (a head's size; 1 for neurons).
        step: blocks removed between updates; 1 is exact, more is faster.
        row_weight: how much an error in each output feature matters.
    """
    blocks = weight.shape[1] // block
    inverse = torch.linalg.inv(_with_ones(moment, mean).double())
    left = (weight * row_weight.clamp(min=0).sqrt()[:, None]).double()
    left = torch.cat([left, left.new_zeros(len(left), 1)], dim=1)
    alive = torch.arange(blocks)
    order: list[Tensor] = []
    while len(alive) > 0:
        cost = _costs(left, inverse, alive, block)
        gone = alive[cost.argsort()[: min(step, len(alive))]]
        order.append(gone)
        alive = alive[~torch.isin(alive, gone)]
        if len(alive) > 0:
            left, inverse = _without(left, inverse, _columns(gone, block))
    return torch.cat(order)


def refit(
    weight: Float[Tensor, "o i"],
    bias: Float[Tensor, " o"],
    moment: Float[Tensor, "i i"],
    mean: Float[Tensor, " i"],
    keep: Int[Tensor, " k"],
) -> tuple[Float[Tensor, "o k"], Float[Tensor, " o"]]:
    """Weight on the kept columns, and bias, with the least squared error of the output.

    Solves min over (W', b') of E||W x + b - W' x_keep - b'||^2 by its normal equations.
    """
    i = weight.shape[1]
    full = _with_ones(moment, mean).double()
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
