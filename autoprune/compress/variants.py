"""One unit at one ratio, at all its widths: what is removed, refitted and rounded. No files.

Shapes: o output features, i input features of a weight as a matrix, k kept pieces, rows or columns, v d a
vocabulary's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autoprune.compress.activations import Activations
from autoprune.compress.gptq import round_compensated
from autoprune.compress.integers import Integers, round_nearest
from autoprune.compress.prune_obs import refit
from autoprune.compress.statistics import Statistics
from autoprune.models.layer_io import matrix_of
from autoprune.models.units import Unit, Weight
from autoprune.space.levels import FLOAT_BITS, INTEGER, Level, Width


@dataclass(frozen=True)
class Variant:
    """One matrix of a unit at a level.

    weight: float weight after removal and refit, not rounded [o i]. integers: what it is rounded
    to, None at 16 and 32 bits. bias: refitted and corrected for the mean error of rounding [o].
    activations: the grid its input is rounded to, None where that stays float. places: of an embedding that
    lost rows, the row by which each id is looked up [v].
    """

    weight: Float[Tensor, "o i"]
    bias: Float[Tensor, " o"] | None
    integers: Integers | None
    bits: int
    activations: Activations | None = None
    places: Int[Tensor, " v"] | None = None

    def value(self) -> Float[Tensor, "o i"]:
        """The weight the model computes with."""
        if self.integers is not None:
            return self.integers.dequantize()
        return self.weight.half().float() if self.bits < FLOAT_BITS else self.weight


def make_variants(
    unit: Unit,
    keep: Int[Tensor, " k"] | None,
    teacher: nn.Module,
    statistics: Mapping[str, Statistics],
) -> dict[str, Tensor]:
    """Tensors of a unit with the pieces `keep` (None for all) at all its bit-widths.

    Not for a vocabulary that loses tokens, which `Library` takes from the file of the whole one. Names are
    `keep`, `path.weight` (float), and `path@width.codes`, `.scale`, `.zero`, `.bias`, and for 8-bit
    activations `.activations`: their scale and zero point.
    """
    tensors: dict[str, Tensor] = {} if keep is None else {"keep": keep}
    for one in unit.weights:
        made = _rounded(unit, one, keep, teacher.get_submodule(one.path), statistics[one.path])
        for width, variant in made.items():
            tensors[f"{one.path}.weight"] = variant.weight.contiguous()
            stem = f"{one.path}@{width}"
            if variant.bias is not None:
                tensors[f"{stem}.bias"] = variant.bias.contiguous()
            if variant.integers is not None:
                tensors[f"{stem}.codes"] = variant.integers.codes.contiguous()
                tensors[f"{stem}.scale"] = variant.integers.scale.contiguous()
                tensors[f"{stem}.zero"] = variant.integers.zero.contiguous()
            if variant.activations is not None:
                grid = variant.activations
                tensors[f"{stem}.activations"] = torch.tensor([grid.scale, grid.zero], dtype=torch.float64)
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _rounded(
    unit: Unit,
    one: Weight,
    keep: Int[Tensor, " k"] | None,
    module: nn.Module,
    seen: Statistics,
) -> dict[Width, Variant]:
    """One matrix with rows or columns removed, at every width."""
    weight = matrix_of(module)
    rows = None if keep is None else unit.at(keep, one.rows)
    if one.is_embedding and not one.tied:
        return _looked_up(unit, weight if rows is None else weight[rows], seen)
    old: Tensor | None = getattr(module, "bias", None)
    bias = None if old is None or one.tied else old.detach()
    if one.depthwise:
        left = torch.arange(len(weight)) if rows is None else rows
        part = seen.of_channels(left, one.kernel)
        few = None if bias is None else bias[left]
        levels = unit.levels(0.0)
        return {level.width: _nearest_variant(weight[left], few, level, unit, part) for level in levels}
    if keep is not None and one in unit.cols:
        columns = unit.at(keep, one.columns)
        if len(columns) == 0:
            mean = None if bias is None else bias + weight @ seen.mean
            return _emptied(unit, weight[:, columns], mean)
        weight, bias = refit(weight, bias, seen.moment, seen.mean, columns)
        seen = seen.of_columns(columns)
    elif rows is not None:
        weight, bias = weight[rows], None if bias is None else bias[rows]
        if len(rows) == 0:
            return _emptied(unit, weight, bias)
    return _compensated(unit, weight, bias, seen)


def _looked_up(unit: Unit, weight: Float[Tensor, "v d"], seen: Statistics) -> dict[Width, Variant]:
    """Rows of an embedding at every width, each row's rounding compensated within the row.

    A row v that is off by e does the harm e^T F e wherever it is looked up, with F the Fisher information at
    the embedding's output: the same problem as a product's, with F in the place of the input's moment.
    All-MiniLM's vocabulary at 2 bits: 0.0275 nats, against 0.0348 with each weight rounded by itself.
    """
    few = [bits for bits in unit.bits if bits < 16]
    made = round_compensated(weight, seen.fisher, bits=few, group_size=unit.group_size)
    integers = dict(zip(few, made, strict=True))
    return {bits: Variant(weight, None, integers.get(bits), bits) for bits in unit.bits}


def _compensated(
    unit: Unit, weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None, seen: Statistics
) -> dict[Width, Variant]:
    """A matrix at every width, its rounding compensated."""
    integer_bits = [b for b in unit.bits if b < 16]
    made = round_compensated(weight, seen.moment, bits=integer_bits, group_size=unit.group_size)
    rounded: dict[Width, Integers] = dict(zip(integer_bits, made, strict=True))
    if unit.integer:
        # What is multiplied as integers has one scale a row, which leaves the sum, and no zero point.
        rounded[INTEGER] = round_compensated(
            weight, seen.moment, bits=[8], group_size=weight.shape[1], symmetric=True
        )[0]
    out = {}
    for level in unit.levels(0.0):
        plain = Variant(weight, None, rounded.get(level.width), level.bits)
        # Rounding must not move the output's mean.
        shift = None if bias is None else bias + (weight - plain.value()) @ seen.mean
        out[level.width] = replace(plain, bias=shift, activations=_grid(level, seen))
    return out


def _nearest_variant(
    weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None, level: Level, unit: Unit, seen: Statistics
) -> Variant:
    """A matrix whose weights are rounded each by itself: rows that are looked up, or slid by a channel."""
    if level.bits >= 16 or weight.numel() == 0:
        return Variant(weight, bias, None, level.bits)
    size = weight.shape[1] if level.is_integer else unit.group_size
    integers = round_nearest(weight, bits=level.bits, group_size=size, symmetric=level.is_integer)
    made = Variant(weight, bias, integers, level.bits, _grid(level, seen))
    if bias is None or len(seen.mean) != weight.numel():
        return made
    gap = (weight - made.value()) * seen.mean.reshape(weight.shape)
    return replace(made, bias=bias + gap.sum(1))


def _grid(level: Level, seen: Statistics) -> Activations | None:
    return Activations.of(float(seen.low.min()), float(seen.high.max())) if level.is_integer else None


def _emptied(
    unit: Unit, weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None
) -> dict[Width, Variant]:
    """A matrix of no rows, or of no columns: its bias is all that is left of it, at every width."""
    return {level.width: Variant(weight, bias, None, level.bits) for level in unit.levels(0.0)}
