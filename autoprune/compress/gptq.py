"""Rounding a weight with its error compensated by the columns not rounded yet.

Shapes: o output features, i input features, g groups in a row, s columns of a group, n numbers of bits done
at once. Columns come first here, so that one lies in memory as a whole.
Method: GPTQ (Frantar et al., arXiv 2210.17323, algorithm 1), which is Optimal Brain Quantization
in a fixed column order; then cyclic coordinate descent over the codes (QuantEase, Behdin et al., arXiv
2309.01885, algorithm 1), since GPTQ settles a column before those after it. Several bit-widths share one
pass, since they share the moment and a column costs little more for five widths than for one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from autoprune.compress.integers import Integers, choose_scale
from autoprune.space.storage import group_size_for

DAMPING = 0.01
"""Share of the mean diagonal added to the diagonal of H (GPTQ, section 3.3, step 3)."""

SWEEPS = 2
"""Of the coordinate descent. On MiniLM's layers the first takes 3 to 12 % off the output's squared error at 2
bits and 3 to 9 % at 4, two together 4 to 15 and 4 to 11 %, a third one hundredth more."""

COLUMNS_AT_ONCE = 128
"""Columns whose codes are chosen before all later ones are told."""

ROWS_AT_ONCE = 8192
"""Rows are rounded apart from each other; a vocabulary's, at five widths, would take gigabytes at once."""


def round_compensated(
    weight: Float[Tensor, "o i"],
    moment: Float[Tensor, "i i"],
    *,
    bits: Sequence[int],
    group_size: int,
    symmetric: bool = False,
    sweeps: int = SWEEPS,
) -> list[Integers]:
    """Integers of a weight for each number of bits, of little squared output error.

    Args:
        weight: float weight.
        moment: second moment of the input, E[x xT].
        bits: numbers of bits below 16.
        group_size: weights that should share a scale (`group_size_for` makes it fit).
        symmetric: zero points in the middle of the codes, the lowest of which is not used, as kernels
            of signed integers want it.
        sweeps: of the coordinate descent.
    """
    o, i = weight.shape
    if not bits:
        return []
    if o > ROWS_AT_ONCE:
        rounded = functools.partial(
            round_compensated, bits=bits, group_size=group_size, symmetric=symmetric, sweeps=sweeps
        )
        parts = [rounded(part, moment) for part in weight.split(ROWS_AT_ONCE)]  # type: ignore[no-untyped-call]
        return [Integers.stacked(one) for one in zip(*parts, strict=True)]
    size = group_size_for(i, group_size)
    damped = _damped(moment)
    factor = _inverse_factor(damped).to(moment.dtype)
    importance = moment.diagonal().clamp(min=1e-8 * float(moment.diagonal().mean()) + 1e-12)
    top = torch.tensor([[float(2**b - 1)] for b in bits], device=weight.device)  # largest code [n 1]
    least = torch.full_like(top, float(symmetric))
    left = weight.T[:, None].repeat(1, len(bits), 1)  # what is still to be rounded, compensated [i n o]
    codes, scales, zeros = torch.empty_like(left), [], []
    for start in range(0, i, size):
        end = start + size
        group = left[start:end].permute(1, 2, 0).contiguous()
        scale, zero = choose_scale(group, top, importance[start:end], symmetric=symmetric)
        errors = _round_group_(
            left[start:end], codes[start:end], scale, zero, least, top, factor[start:end, start:end]
        )
        left[end:].flatten(1).addmm_(factor[start:end, end:].T, errors.flatten(1), alpha=-1.0)
        scales.append(scale)
        zeros.append(zero)
    scale, zero = torch.stack(scales), torch.stack(zeros)
    _descend_(codes, weight, scale, zero, least, top, damped.to(moment.dtype), sweeps=sweeps)
    return [
        Integers(
            codes[:, k].T.to(torch.uint8, memory_format=torch.contiguous_format),
            scale[:, k].T.half().contiguous(),
            zero[:, k].T.to(torch.uint8, memory_format=torch.contiguous_format),
            b,
        )
        for k, b in enumerate(bits)
    ]


def _round_group_(
    left: Float[Tensor, "s n o"],
    codes: Float[Tensor, "s n o"],
    scale: Float[Tensor, "n o"],
    zero: Float[Tensor, "n o"],
    least: Float[Tensor, "n 1"],
    top: Float[Tensor, "n 1"],
    factor: Float[Tensor, "s s"],
) -> Float[Tensor, "s n o"]:
    """Round one group column by column into `codes`; returns each column's scaled error."""
    errors = torch.empty_like(left)
    for j in range(len(left)):
        code = torch.clamp((left[j] / scale).round_().add_(zero), least, top)
        errors[j] = (left[j] - (code - zero) * scale) / float(factor[j, j])
        left[j + 1 :].addcmul_(factor[j, j + 1 :, None, None], errors[j], value=-1.0)
        codes[j] = code
    return errors


def _descend_(
    codes: Float[Tensor, "i n o"],
    weight: Float[Tensor, "o i"],
    scale: Float[Tensor, "g n o"],
    zero: Float[Tensor, "g n o"],
    least: Float[Tensor, "n 1"],
    top: Float[Tensor, "n 1"],
    moment: Float[Tensor, "i i"],
    *,
    sweeps: int,
) -> None:
    """Choose each column's codes anew, one column after another with all others as they are.

    Each choice is the best there is for its column, so the error under `moment` never grows.
    """
    i, size = len(codes), len(codes) // len(scale)
    values = (codes - zero.repeat_interleave(size, 0)) * scale.repeat_interleave(size, 0)
    error = weight.T[:, None] - values
    pull = (moment @ error.flatten(1)).view_as(error)  # half of the error's fall along each weight
    for start in (*range(0, i, COLUMNS_AT_ONCE),) * sweeps:
        near = pull[start : start + COLUMNS_AT_ONCE].clone()
        moved = torch.empty_like(near)
        for k in range(len(near)):
            j = start + k
            own = scale[j // size]
            code = torch.clamp((codes[j] + near[k] / (own * float(moment[j, j]))).round_(), least, top)
            moved[k] = (code - codes[j]) * own
            near[k + 1 :].addcmul_(moment[j, j + 1 : start + len(near), None, None], moved[k], value=-1.0)
            codes[j] = code
        pull.flatten(1).addmm_(moment[:, start : start + len(near)], moved.flatten(1), alpha=-1.0)


def _damped(moment: Float[Tensor, "i i"]) -> Float[Tensor, "i i"]:
    """The moment with its diagonal raised, float64; columns never seen count as seen once."""
    h = moment.double().clone()
    diagonal = h.diagonal()
    diagonal[diagonal == 0] = float(diagonal.mean()) or 1.0
    diagonal += DAMPING * diagonal.mean()
    return h


def _inverse_factor(damped: Float[Tensor, "i i"]) -> Float[Tensor, "i i"]:
    """Upper Cholesky factor of H^-1."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor
