"""Layers that a draft leaves as they came because of how the model uses them, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from autoprune.inspection.coupling import Call, Trace

UNREACHED = "the example batch does not come by it"
UNCALLED = "its weight is read without the layer itself being called, so that it cannot be followed"
UNREAD = "no answer depends on what it gives"
FIXED = "what it is given is the same for all inputs, so that runtimes compute it once and keep the result"


def not_followed(model: nn.Module, call: Call, traced: Trace) -> dict[str, str]:
    """Why layers cannot be in any unit, by path."""
    layers: dict[str, Any] = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding)
    }
    unread, fixed = _unread(model, call, layers), fixed_layers(traced)
    reasons = {}
    for path in layers:
        if path not in traced.layers:
            reasons[path] = UNREACHED if path in unread else UNCALLED
        elif path in unread or path in fixed:
            reasons[path] = UNREAD if path in unread else FIXED
    return reasons


def _unread(model: nn.Module, call: Call, layers: Mapping[str, Any]) -> set[str]:
    """Layers whose weights have no say in the answers."""
    weights = {path: layer.weight for path, layer in layers.items() if layer.weight.requires_grad}
    if not weights:
        return set()
    with torch.enable_grad():
        answers = call(model)
    if not answers.requires_grad:
        return set(weights)
    gradients = torch.autograd.grad(answers.sum(), list(weights.values()), allow_unused=True)
    return {path for path, gradient in zip(weights, gradients, strict=True) if gradient is None}


def fixed_layers(traced: Trace) -> set[str]:
    """Layers that are given tensors of the model itself alone, or what such layers give.

    Swin v2's biases of relative places are made so: two layers are run on a table.
    """
    fixed = {path for path, seen in traced.layers.items() if seen.stored}
    while True:
        more = {
            path
            for path, feeders in traced.feeders.items()
            if path in traced.layers and path not in fixed and feeders and set(feeders) <= fixed
        }
        if not more:
            return fixed
        fixed |= more
