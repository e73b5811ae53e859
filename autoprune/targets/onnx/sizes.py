"""Bytes of a unit's weights in an ONNX file: their codes, and the text of their operators.

Text is what a file is longer by than with the float weight, beside the numbers themselves: counted from saved
files (torch 2.13, ONNX 1.23), less the names, which are made from the weight's path.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from autoprune.space.levels import UNTOUCHED, Level
from autoprune.space.storage import FLOAT16, FLOAT32, group_size_for
from autoprune.targets.onnx.convolutions import is_multiplied

if TYPE_CHECKING:
    from autoprune.models.unit import Unit, Weight


_HALF = 14
_NAMES, _MULTIPLIED_NAMES = 4, 2
"""Times that a weight's path is written more often; products with 8-bit activations have no zero points."""

_LOOKED_UP, _TIED, _PRODUCT, _CONVOLVED = 202, 388, 138, 259
"""With weight-only integers."""

_MULTIPLIED, _ROUNDED = 70, 125
"""A product with 8-bit activations, and the rounding of its input, which some read together."""

_TO_CODES, _SPOTS, _ON_FLOATS = 121, 242, 353
_TAP = 65
"""Convolutions with 8-bit activations: from codes to codes; to floats, and a tap of its kernel; on floats."""


_PARTS = 850
"""Looking up a token in the part of a vocabulary that it is in."""


def size_bytes(unit: Unit, level: Level) -> int:
    """Bytes of a unit at a level; the zero points of each row end with a byte."""
    shapes = unit.shapes(level.ratio)
    parts = _PARTS if unit.ranked and level != UNTOUCHED else 0
    return (
        unit.size_bytes(level)
        + parts
        + sum(
            _beside(unit, weight, shapes[weight.path], level)
            for weight in unit.weights
            if level.storage != FLOAT32
        )
    )


def _beside(unit: Unit, weight: Weight, shape: tuple[int, int], level: Level) -> int:
    """What a weight's numbers take more than counted, and the text of its operators."""
    rows, columns = shape
    if level.storage == FLOAT16 or not rows or not columns:
        return _HALF
    if level.storage.rounds_inputs:
        return _multiplied_text(unit, weight) - rows  # signed codes have no zero points
    zeros = columns // group_size_for(columns, unit.group_size) * level.storage.bits
    padding = 0 if weight.is_conv else rows * math.ceil(zeros / 8) - math.ceil(rows * zeros / 8)
    if weight.is_embedding:
        text = _TIED if weight.tied else _LOOKED_UP
    else:
        text = _CONVOLVED if weight.is_conv else _PRODUCT
    return padding + text + _NAMES * len(weight.path)


def _multiplied_text(unit: Unit, weight: Weight) -> int:
    """Text of a weight that is multiplied with 8-bit activations."""
    names = _MULTIPLIED_NAMES * len(weight.path)
    shares = unit.prunable and weight in unit.rows
    if not weight.is_conv:
        return names + _MULTIPLIED + (0 if shares and weight != unit.rows[0] else _ROUNDED)
    if shares:  # cut off at zero and rounded for what reads it, as in most nets
        return _NAMES * len(weight.path) + _TO_CODES
    if not is_multiplied(weight.columns, weight.kernel, depthwise=weight.depthwise):
        return names + _ON_FLOATS
    return names + _SPOTS + (weight.kernel * _TAP if weight.kernel > 1 else 0)
