"""What a weight is multiplied with, rounded to 8 bits: its static range, and a layer that computes so.

Shapes: o output features, i input features. An input x stands as (code - zero) * scale with codes in
0 .. 255 (asymmetric affine quantization: Jacob et al., arXiv 1712.05877, eq. 1), one scale a layer,
settled beforehand on calibration rows, so that a runtime multiplies integers and rounds nothing twice.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

TOP = 255
"""Largest code of 8 bits."""

SMALLEST_SCALE = 1e-8


@dataclass(frozen=True)
class Activations:
    """The 8-bit grid of a layer's input: value = (code - zero) * scale."""

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Activations:
        """The grid from `low` to `high`; zero is always on it, so that padding stays what it is.

        >>> Activations.of(-64.0, 191.0)
        Activations(scale=1.0, zero=64)
        """
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / TOP, SMALLEST_SCALE)
        return cls(scale, min(TOP, round(-low / scale)))

    def round(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b i"]:
        """The nearest value on the grid; the gradient passes where x is within its range."""
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, TOP)


class RoundedInput(nn.Module):
    """A layer whose input is rounded to 8 bits first; mixed into the class of the layer."""

    activations: Activations

    def forward(self, input: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        out: Tensor = super().forward(self.activations.round(input))
        return out


@functools.cache
def integer_class(layer: type[nn.Module]) -> type[RoundedInput]:
    """The class of layers that compute as `layer` does, their input rounded."""
    return type(f"Integer{layer.__name__}", (RoundedInput, layer), {})


def activations_of(model: nn.Module) -> dict[str, Activations]:
    """The layers of a model that compute with 8-bit inputs, by module path."""
    return {
        path: module.activations for path, module in model.named_modules() if isinstance(module, RoundedInput)
    }
