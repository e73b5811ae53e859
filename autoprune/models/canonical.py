"""A model in the one form that everything here works on: Linear, Embedding and Conv2d layers.

Batch norms are folded into the convolutions before them, as every runtime does at load, so that removing
a channel or rounding a weight concerns one layer (Jacob et al., arXiv 1712.05877, section 3.2). GPT-2's
Conv1D, a Linear stored the other way round, becomes one, and its fused query, key and value become three, as
do those of torch's own attention (`attention`). Weights under a norm or a mask are stored as they come out
(`plain_weights`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoprune.models.attention import separate_attention_
from autoprune.models.plain_weights import plain_weights_

TOLERANCE = 1e-3
"""Of the largest output: how far a model with folded norms may be from the one that came."""


class Joined(nn.Module):
    """Separate layers for query, key and value, in place of a joint one; outputs side by side."""

    def __init__(self, query: nn.Linear, key: nn.Linear, value: nn.Linear) -> None:
        super().__init__()
        self.query, self.key, self.value = query, key, value

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o3"]:
        return torch.cat([self.query(x), self.key(x), self.value(x)], -1)


WIDEST = 256
"""Spots of a side that no picture has left where a mean is taken over windows of as many."""


def straighten_(model: nn.Module) -> None:
    """Replace layers that runtimes or this package do not know with equivalent ones, in place.

    Every Conv1D of transformers becomes Linear layers, a fused one three, torch's attention its own ones.
    Weights that are computed at each call are stored. A mean over windows wider than any picture, as
    EfficientNet's, becomes one over the picture.
    """
    from transformers.pytorch_utils import Conv1D

    plain_weights_(model)
    separate_attention_(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv1D):
                fused = child.nf == 3 * int(getattr(parent, "split_size", 0))
                parts = _linears(child, 3 if fused else 1)
                setattr(parent, name, Joined(*parts) if fused else parts[0])
            elif isinstance(child, nn.AvgPool2d) and child.ceil_mode and _narrowest(child) >= WIDEST:
                setattr(parent, name, nn.AdaptiveAvgPool2d(1))


def _narrowest(pool: nn.AvgPool2d) -> int:
    """The shorter side of a pool's window."""
    size = pool.kernel_size
    return size if isinstance(size, int) else min(size)


def _linears(layer: Any, count: int) -> list[nn.Linear]:
    """A Conv1D [i o] as `count` Linear layers, each with its share of the outputs."""
    linears = []
    for weight, bias in zip(layer.weight.T.chunk(count), layer.bias.chunk(count), strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        linear.weight = nn.Parameter(weight.detach().clone())
        linear.bias = nn.Parameter(bias.detach().clone())
        linears.append(linear)
    return linears


def settle_(model: nn.Module) -> None:
    """Update the shapes that a model stores as attributes to those of its layers, in place."""
    for parent in model.modules():
        for child in parent.children():
            if isinstance(child, Joined):
                # A list, as a split by a size of nothing gives one part.
                parent.split_size = [child.query.out_features] * 3  # type: ignore[assignment]


def fold_norms_(model: nn.Module, run: Callable[[nn.Module], object]) -> int:
    """Fold batch norms into the convolutions that only they read, in place; returns the count.

    Args:
        model: in evaluation mode.
        run: runs the model once, on anything of a shape that it takes.
    """
    pairs = _pairs(model, run)
    for conv_path, norm_path in pairs:
        parent_path, _, name = norm_path.rpartition(".")
        norm = model.get_submodule(norm_path)
        _fold_(model.get_submodule(conv_path), norm)  # type: ignore[arg-type]
        setattr(model.get_submodule(parent_path), name, getattr(norm, "act", None) or nn.Identity())
    return len(pairs)


@dataclass(frozen=True)
class _Made:
    """What a convolution gave: the tensor, kept alive so that its identity stays its own."""

    path: str
    output: Tensor
    version: int


def _pairs(model: nn.Module, run: Callable[[nn.Module], object]) -> list[tuple[str, str]]:
    """Paths of convolutions and of the norms that read their unchanged outputs."""
    outputs: dict[int, _Made] = {}
    pairs: list[tuple[str, str]] = []
    handles = []

    def note(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(module, nn.Conv2d):
                outputs[id(output)] = _Made(path, output, output._version)
            elif (
                source := outputs.get(id(args[0]))
            ) is not None and source.output._version == source.version:
                pairs.append((source.path, path))

        return hook

    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            handles.append(module.register_forward_hook(note(path)))
    try:
        with torch.no_grad():
            run(model)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(pairs))


def _fold_(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """w' = w g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + beta, in place."""
    weight = norm.weight if norm.affine else torch.ones(norm.num_features)
    shift = norm.bias if norm.affine else torch.zeros(norm.num_features)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = conv.bias.double() if conv.bias is not None else torch.zeros_like(factor)
    folded = (bias - norm.running_mean.double()) * factor + shift.double()
    conv.weight = nn.Parameter(
        (conv.weight.double() * factor[:, None, None, None]).to(conv.weight.dtype).detach()
    )
    conv.bias = nn.Parameter(folded.to(conv.weight.dtype).detach())


def same_outputs(before: Tensor, after: Tensor) -> bool:
    """Whether a model's outputs are as before, up to the rounding of sums."""
    return bool((before - after).abs().max() <= TOLERANCE * before.abs().max().clamp(min=1e-6))
