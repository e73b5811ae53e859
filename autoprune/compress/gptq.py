"""Rounding a weight with its error compensated by the columns not rounded yet.

What a column may be rounded to is a `Grid`: integers of a scale, or the values of a codebook
(`weight_sharing`).
Shapes: o output features, i input features, g groups in a row, s columns of a group, n numbers of bits done
at once. Columns come first here, so that one lies in memory as a whole.
Method: GPTQ (Frantar et al., arXiv 2210.17323, algorithm 1), which is Optimal Brain Quantization
in a fixed column order; then cyclic coordinate descent over the codes (QuantEase, Behdin et al., arXiv
2309.01885, algorithm 1), since GPTQ settles a column before those after it. Several bit-widths share one
pass, since they share the moment and a column costs little more for five widths than for one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from autoprune.compress.integers import SHRINKS, Integers, choose_scale, ends_of
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


class Grid(Protocol):
    """What the weights of a group of columns may be rounded to."""

    def nearest(self, exact: Float[Tensor, "n o"], column: int) -> Float[Tensor, "n o"]:
        """Codes of the values nearest to the weights of a column of the group."""

    def values(self, codes: Float[Tensor, "*s n o"]) -> Float[Tensor, "*s n o"]:
        """What codes stand for."""

    def moved(
        self, codes: Float[Tensor, "n o"], pull: Float[Tensor, "n o"], bend: float, column: int
    ) -> tuple[Float[Tensor, "n o"], Float[Tensor, "n o"]]:
        """Codes of the least error of a column, and how far the values move from those of its codes.

        pull: half of the error's fall along each weight. bend: half of the error's second derivative.
        """


@dataclass(frozen=True)
class IntegerGrid:
    """Integers of a scale and a zero point a row, from `least` to `top`."""

    scale: Float[Tensor, "n o"]
    zero: Float[Tensor, "n o"]
    least: Float[Tensor, "n 1"]
    top: Float[Tensor, "n 1"]

    def nearest(self, exact: Float[Tensor, "n o"], column: int) -> Float[Tensor, "n o"]:
        return torch.clamp((exact / self.scale).round_().add_(self.zero), self.least, self.top)

    def values(self, codes: Float[Tensor, "*s n o"]) -> Float[Tensor, "*s n o"]:
        return (codes - self.zero) * self.scale

    def moved(
        self, codes: Float[Tensor, "n o"], pull: Float[Tensor, "n o"], bend: float, column: int
    ) -> tuple[Float[Tensor, "n o"], Float[Tensor, "n o"]]:
        new = torch.clamp((codes + pull / (self.scale * bend)).round_(), self.least, self.top)
        return new, (new - codes) * self.scale


Choose = Callable[[Float[Tensor, "s n o"], int, Float[Tensor, " s"]], Grid]
"""The grid for columns, from what is left to be rounded there, the number of the first, and by what the error
of each is divided before the columns after it are told."""


def round_compensated(
    weight: Float[Tensor, "o i"],
    moment: Float[Tensor, "i i"],
    *,
    bits: Sequence[int],
    group_size: int,
    reach: int | None = None,
    shrinks: Sequence[float] = SHRINKS,
    sweeps: int = SWEEPS,
) -> list[Integers]:
    """Integers of a weight for each number of bits, of little squared output error.

    Args:
        weight: float weight.
        moment: second moment of the input, E[x xT].
        bits: numbers of bits below 16.
        group_size: weights that should share a scale (`group_size_for` makes it fit).
        reach: zero points in the middle of the codes, which lie so far from it at most, as kernels of signed
            integers want it; None: see `choose_scale`.
        shrinks: of a group's range, tried for its scale.
        sweeps: of the coordinate descent.
    """
    o, i = weight.shape
    if not bits:
        return []
    if o > ROWS_AT_ONCE:
        rounded = functools.partial(
            round_compensated, bits=bits, group_size=group_size, reach=reach, shrinks=shrinks, sweeps=sweeps,
        )  # fmt: skip
        parts = [rounded(part, moment) for part in weight.split(ROWS_AT_ONCE)]  # type: ignore[no-untyped-call]
        return [Integers.stacked(one) for one in zip(*parts, strict=True)]
    importance = importance_of(moment)
    top = torch.tensor([[float(2**b - 1)] for b in bits], device=weight.device)  # largest code there is [n 1]
    ends = torch.tensor([ends_of(b, reach) for b in bits], dtype=top.dtype, device=weight.device)  # [n 2]
    least, most = ends[:, :1], ends[:, 1:]
    grids: list[IntegerGrid] = []

    def choose(left: Float[Tensor, "s n o"], start: int, spread: Float[Tensor, " s"]) -> Grid:
        group, own = left.permute(1, 2, 0).contiguous(), importance[start : start + len(left)]
        scale, zero = choose_scale(group, top, own, reach=reach, shrinks=shrinks)
        grids.append(IntegerGrid(scale, zero, least, most))
        return grids[-1]

    codes = round_on_grids(
        weight, moment, choose, size=group_size_for(i, group_size), count=len(bits), sweeps=sweeps
    )
    scale, zero = (torch.stack([getattr(grid, name) for grid in grids]) for name in ("scale", "zero"))
    return [
        Integers(
            codes[:, k].T.to(torch.uint8, memory_format=torch.contiguous_format),
            scale[:, k].T.half().contiguous(),
            zero[:, k].T.to(torch.uint8, memory_format=torch.contiguous_format),
            b,
        )
        for k, b in enumerate(bits)
    ]


def round_on_grids(
    weight: Float[Tensor, "o i"],
    moment: Float[Tensor, "i i"],
    choose: Choose,
    *,
    size: int,
    count: int,
    sweeps: int = SWEEPS,
) -> Float[Tensor, "i n o"]:
    """Codes of a weight on `count` grids at once, each chosen for `size` columns when their turn has come."""
    damped = damped_moment(moment)
    factor = inverse_factor(damped).to(moment.dtype)
    left = weight.T[:, None].repeat(1, count, 1)  # what is still to be rounded, compensated [i n o]
    codes, grids = torch.empty_like(left), []
    for start in range(0, len(left), size):
        end = start + size
        grids.append(choose(left[start:end], start, factor.diagonal()[start:end]))
        errors = _round_group_(left[start:end], codes[start:end], grids[-1], factor[start:end, start:end])
        left[end:].flatten(1).addmm_(factor[start:end, end:].T, errors.flatten(1), alpha=-1.0)
    _descend_(codes, weight, grids, damped.to(moment.dtype), sweeps=sweeps)
    return codes


def descend(
    codes: Float[Tensor, "i n o"],
    weight: Float[Tensor, "o i"],
    moment: Float[Tensor, "i i"],
    grid: Grid,
    *,
    sweeps: int = SWEEPS,
) -> Float[Tensor, "i n o"]:
    """Codes of less error than those given, on one grid for all columns."""
    better = codes.clone()
    _descend_(better, weight, [grid], damped_moment(moment).to(moment.dtype), sweeps=sweeps)
    return better


def importance_of(moment: Float[Tensor, "i i"]) -> Float[Tensor, " i"]:
    """How much an error of each column weighs, others apart: the diagonal, a little where nothing came in."""
    return moment.diagonal().clamp(min=1e-8 * float(moment.diagonal().mean()) + 1e-12)


def _round_group_(
    left: Float[Tensor, "s n o"],
    codes: Float[Tensor, "s n o"],
    grid: Grid,
    factor: Float[Tensor, "s s"],
) -> Float[Tensor, "s n o"]:
    """Round one group column by column into `codes`; returns each column's scaled error."""
    errors = torch.empty_like(left)
    for j in range(len(left)):
        code = grid.nearest(left[j], j)
        errors[j] = (left[j] - grid.values(code)) / float(factor[j, j])
        left[j + 1 :].addcmul_(factor[j, j + 1 :, None, None], errors[j], value=-1.0)
        codes[j] = code
    return errors


def _descend_(
    codes: Float[Tensor, "i n o"],
    weight: Float[Tensor, "o i"],
    grids: Sequence[Grid],
    moment: Float[Tensor, "i i"],
    *,
    sweeps: int,
) -> None:
    """Choose each column's codes anew, one column after another with all others as they are.

    Each choice is the best there is for its column, so the error under `moment` never grows.
    """
    i, size = len(codes), -(-len(codes) // len(grids))
    values = torch.cat([grid.values(codes[k * size : (k + 1) * size]) for k, grid in enumerate(grids)])
    error = weight.T[:, None] - values
    pull = (moment @ error.flatten(1)).view_as(error)  # half of the error's fall along each weight
    for start in (*range(0, i, COLUMNS_AT_ONCE),) * sweeps:
        near = pull[start : start + COLUMNS_AT_ONCE].clone()
        moved = torch.empty_like(near)
        for k in range(len(near)):
            j = start + k
            codes[j], moved[k] = grids[j // size].moved(codes[j], near[k], float(moment[j, j]), j % size)
            near[k + 1 :].addcmul_(moment[j, j + 1 : start + len(near), None, None], moved[k], value=-1.0)
        pull.flatten(1).addmm_(moment[:, start : start + len(near)], moved.flatten(1), alpha=-1.0)


def damped_moment(moment: Float[Tensor, "i i"]) -> Float[Tensor, "i i"]:
    """The moment with its diagonal raised, float64; columns never seen count as seen once."""
    h = moment.double().clone()
    diagonal = h.diagonal()
    diagonal[diagonal == 0] = float(diagonal.mean()) or 1.0
    diagonal += DAMPING * diagonal.mean()
    return h


def inverse_factor(damped: Float[Tensor, "i i"]) -> Float[Tensor, "i i"]:
    """Upper Cholesky factor of H^-1."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor
