"""A layer's inputs and outputs as rows that its weight matrix maps, also for a convolution.

Shapes: b rows of a batch, t times the matrix is used in a row (tokens, or spots of a picture), i columns and
o rows of the matrix, c channels, q taps of a kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoprune.core.errors import AutopruneError

Layer = nn.Linear | nn.Conv2d | nn.Embedding


def inputs_of(layer: nn.Module, x: Tensor, outputs: Tensor) -> Float[Tensor, "b t i"]:
    """A layer's input as rows that its matrix is multiplied with; of a depthwise convolution [b t c*q]."""
    if not isinstance(layer, nn.Conv2d):
        return x.reshape(len(x), -1, x.shape[-1])
    padded, padding = _padded(layer, x)
    if layer.kernel_size == (1, 1) and padding == (0, 0):
        rows, columns = layer.stride
        spots = padded[:, :, ::rows, ::columns].flatten(2)
    else:
        spots = nn.functional.unfold(padded, layer.kernel_size, layer.dilation, padding, layer.stride)
    if spots.shape[2] != outputs.shape[2:].numel():
        raise AutopruneError(
            f"a {type(layer).__name__} {tuple(layer.weight.shape)} pads its input in a way not known here: "
            "leave it out of the search space, or make it a Conv2d after a ZeroPad2d"
        )
    return spots.mT


def _padded(layer: nn.Conv2d, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """The input, padded where `unfold` cannot pad so, and the zero padding that is left to do."""
    own: Any = getattr(layer, "static_padding", None)
    if isinstance(own, nn.Module):
        x = own(x)
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        around = list(layer._reversed_padding_repeated_twice)
        return nn.functional.pad(x, around, mode=mode), (0, 0)
    return x, (int(layer.padding[0]), int(layer.padding[1]))


def output_matrix(layer: nn.Module, y: Tensor) -> Float[Tensor, "b t o"]:
    """A layer's output, or its gradient, as rows."""
    return y.flatten(2).mT if isinstance(layer, nn.Conv2d) else y.reshape(len(y), -1, y.shape[-1])


def has_channel_groups(layer: nn.Module) -> bool:
    """Whether each channel has a kernel of its own."""
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def channel_range(layer: nn.Module, x: Tensor) -> tuple[Float[Tensor, " i"], Float[Tensor, " i"]]:
    """Smallest and largest input of each column [i]; of a convolution those of its channel."""
    if not isinstance(layer, nn.Conv2d):
        flat = x.reshape(-1, x.shape[-1])
        return flat.amin(0), flat.amax(0)
    taps = layer.kernel_size[0] * layer.kernel_size[1]
    low, high = x.amin((0, 2, 3)), x.amax((0, 2, 3))
    return low.repeat_interleave(taps), high.repeat_interleave(taps)


def moment_of(layer: nn.Module, gradient: Tensor, x: Float[Tensor, "b t i"]) -> Float[Tensor, "b p"]:
    """Sum over uses of gradient times input, for each row of a batch: as the weight matrix, laid flat."""
    g = output_matrix(layer, gradient)
    if not has_channel_groups(layer):
        moment: Tensor = g.mT @ x
        return moment.flatten(1)
    taps = x.reshape(*x.shape[:2], g.shape[-1], -1)  # [b t c q]
    return torch.einsum("btc,btcq->bcq", g, taps).flatten(1)


def matrix_of(module: nn.Module) -> Float[Tensor, "o i"]:
    """A layer's weight as a matrix: a convolution's has a column for each input channel and tap."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.detach().flatten(1)
