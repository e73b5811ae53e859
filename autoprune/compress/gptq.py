"""Rounding a weight with its error compensated by the columns not rounded yet.

Shapes: o output features, i input features, g groups in a row, n numbers of bits done at once.
Method: GPTQ (Frantar et al., arXiv 2210.17323, algorithm 1), which is Optimal Brain Quantization
in a fixed column order. Several bit-widths share one pass, since they share the Cholesky factor
and a column costs little more for five widths than for one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from autoprune.compress.integers import Integers, choose_scale
from autoprune.space.storage import group_size_for

DAMPING = 0.01
"""Share of the mean diagonal added to the diagonal of H (GPTQ, section 3.3, step 3)."""

ROWS_AT_ONCE = 8192
"""Rows are rounded apart from each other; a vocabulary's, at five widths, would take gigabytes at once."""


def round_compensated(
    weight: Float[Tensor, "o i"],
    moment: Float[Tensor, "i i"],
    *,
    bits: Sequence[int],
    group_size: int,
    symmetric: bool = False,
) -> list[Integers]:
    """Integers of a weight for each number of bits, least output error column by column.

    Args:
        weight: float weight.
        moment: second moment of the input, E[x xT].
        bits: numbers of bits below 16.
        group_size: weights that should share a scale (`group_size_for` makes it fit).
        symmetric: zero points in the middle of the codes, the lowest of which is not used, as kernels
            of signed integers want it.
    """
    o, i = weight.shape
    if o > ROWS_AT_ONCE:
        parts = [
            round_compensated(one, moment, bits=bits, group_size=group_size, symmetric=symmetric)
            for one in weight.split(ROWS_AT_ONCE)  # type: ignore[no-untyped-call]
        ]
        return [Integers.stacked(one) for one in zip(*parts, strict=True)]
    size = group_size_for(i, group_size)
    factor = _inverse_factor(moment)
    importance = moment.diagonal().clamp(min=1e-8 * float(moment.diagonal().mean()) + 1e-12)
    top = torch.tensor([[float(2**b - 1)] for b in bits], device=weight.device)  # [n 1]
    left = weight.expand(len(bits), o, i).clone()  # what is still to be rounded, compensated
    codes, scales, zeros = torch.empty_like(left), [], []
    for start in range(0, i, size):
        end = start + size
        scale, zero = choose_scale(left[:, :, start:end], top, importance[start:end], symmetric=symmetric)
        errors = _round_group_(left[:, :, start:end], codes[:, :, start:end], scale, zero, top,
                               factor[start:end, start:end], floor=float(symmetric))  # fmt: skip
        left[:, :, end:] -= errors @ factor[start:end, end:]
        scales.append(scale)
        zeros.append(zero)
    scale, zero = torch.stack(scales, -1), torch.stack(zeros, -1)
    return [
        Integers(codes[k].to(torch.uint8), scale[k].half(), zero[k].to(torch.uint8), b)
        for k, b in enumerate(bits)
    ]


def _round_group_(
    left: Float[Tensor, "n o s"],
    codes: Float[Tensor, "n o s"],
    scale: Float[Tensor, "n o"],
    zero: Float[Tensor, "n o"],
    top: Float[Tensor, "n 1"],
    factor: Float[Tensor, "s s"],
    *,
    floor: float,
) -> Float[Tensor, "n o s"]:
    """Round one group column by column into `codes`; returns each column's scaled error."""
    errors = torch.empty_like(left)
    least = torch.full_like(top, floor)
    for j in range(left.shape[-1]):
        column = left[:, :, j]
        code = torch.clamp((column / scale).round_().add_(zero), least, top)
        error = (column - (code - zero) * scale) / factor[j, j]
        left[:, :, j + 1 :] -= error[:, :, None] * factor[j, j + 1 :]
        codes[:, :, j] = code
        errors[:, :, j] = error
    return errors


def _inverse_factor(moment: Float[Tensor, "i i"]) -> Float[Tensor, "i i"]:
    """Upper Cholesky factor of H^-1, H damped; columns never seen count as seen once."""
    h = moment.double().clone()
    diagonal = h.diagonal()
    diagonal[diagonal == 0] = float(diagonal.mean()) or 1.0
    diagonal += DAMPING * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.to(moment.dtype)
