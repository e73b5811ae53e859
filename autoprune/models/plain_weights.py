"""Layers whose weight is computed at each call (weight norm, spectral norm, masks) get it stored as it is.

What is compressed is a weight that a layer has; one that is made anew at each call would undo it.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm

_KINDS = (nn.Linear, nn.Conv2d, nn.Embedding)


def plain_weights_(model: nn.Module) -> None:
    """Store the weights of Linear, Conv2d and Embedding layers as they are computed now, in place.

    Reads torch's parametrizations (`nn.utils.parametrizations`), and what went before them: `weight_norm` and
    `spectral_norm` of `nn.utils`, and the masks of `nn.utils.prune`. The model is in evaluation mode.
    """
    for module in list(model.modules()):
        if not isinstance(module, _KINDS):
            continue
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
                getattr(module, name).requires_grad_(True)
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, WeightNorm):
                hook.remove(module)
                del module._forward_pre_hooks[key]
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                hook.remove(module)
                del module._forward_pre_hooks[key]
