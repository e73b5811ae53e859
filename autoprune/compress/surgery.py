"""Replacing a layer of a model, in place, by one with fewer rows or columns."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict

import torch
from jaxtyping import Float, Int32
from torch import Tensor, nn

from autoprune.compress.activations import Activations, integer_class
from autoprune.models.row_lookup import with_rows
from autoprune.models.split_embedding import Parted


class FewerTokens(nn.Embedding):
    """An embedding of some tokens alone; each id is looked up at its place [v] among these."""

    places: Int32[Tensor, " v"]

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(self.places[input])


def replace_(
    model: nn.Module,
    path: str,
    weight: Float[Tensor, "o i"],
    bias: Float[Tensor, " o"] | None,
    activations: Activations | None = None,
    *,
    places: Int32[Tensor, " v"] | None = None,
) -> None:
    """Put a layer with another weight, given as a matrix, and bias at `path`, in place.

    activations: rounds its input to 8 bits. places: of tokens among those that an embedding keeps.
    """
    parent_path, _, name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    old = parent.get_submodule(name)
    if isinstance(old, nn.Embedding):
        if isinstance(parent, Parted) and places is not None:
            parent.keep_(with_rows(old, weight), places)
            return
        new: nn.Module = _embedding(old, weight, places)
    else:
        new = _layer(old, weight, bias)
        if activations is not None:
            new.__class__ = integer_class(type(old))  # type: ignore[arg-type]
            new.activations = activations  # type: ignore[assignment]
    setattr(parent, name, new)


def _embedding(old: nn.Embedding, weight: Tensor, places: Tensor | None) -> nn.Embedding:
    """One that looks rows up as the old one does: each its own, or those of fewer tokens at `places`."""
    kind = type(old)
    if isinstance(old, FewerTokens):
        kind = nn.Embedding if kind is FewerTokens else kind.__bases__[1]
    new = with_rows(old, weight)
    new._buffers.pop("places", None)
    new.__class__ = kind
    if places is not None:
        new.__class__ = fewer_tokens_class(kind)  # type: ignore[arg-type]
        new.padding_idx = None
        new.register_buffer("places", places.to(torch.int32))
    return new


@functools.cache
def fewer_tokens_class(embedding: type[nn.Embedding]) -> type[FewerTokens]:
    """The class of embeddings of fewer tokens that look rows up as `embedding` does."""
    return FewerTokens if embedding is nn.Embedding else type("FewerTokens", (FewerTokens, embedding), {})


def _layer(old: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A layer of the old one's class and settings, whose weight and bias are new."""
    new = copy.copy(old)
    new._parameters = {"weight": None, "bias": None}
    new._forward_hooks, new._forward_pre_hooks = OrderedDict(), OrderedDict()  # the old layer's are its own
    o, i = weight.shape
    if isinstance(old, nn.Conv2d) and isinstance(new, nn.Conv2d):
        depthwise = old.groups > 1
        kernel = old.weight.shape[2:]
        weight = weight.reshape(o, -1, *kernel)
        new.out_channels, new.in_channels = o, o if depthwise else weight.shape[1]
        new.groups = o if depthwise else 1
    elif isinstance(new, nn.Linear):
        new.out_features, new.in_features = o, i
    new.weight = nn.Parameter(weight.detach().clone())
    new.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
    return new
