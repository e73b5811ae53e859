"""Embeddings whose class looks rows up in a way of its own: with a factor, which is known, or otherwise.

Gemma, BART and others multiply what is looked up with a constant; an output layer with the same weight does
not. Tables of positions often take tokens in and compute the places themselves, which is not known here.

Shapes: v rows of an embedding, d features.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

E = TypeVar("E", bound=nn.Embedding)

_FACTOR = "embed_scale"
"""What classes of transformers call the factor of their rows."""


def row_factor(embedding: nn.Module) -> float:
    """What an embedding multiplies its rows with where it looks them up; 1 of a plain one.

    >>> row_factor(nn.Embedding(4, 2))
    1.0
    """
    is_own = isinstance(embedding, nn.Embedding) and not _is_plain(embedding)
    return float(getattr(embedding, _FACTOR, 1.0)) if is_own else 1.0


def row_factors(model: nn.Module, paths: Iterable[str]) -> dict[str, float]:
    """Factors, by path, of those layers of a model that look rows up with one that is not 1."""
    factors = {path: row_factor(model.get_submodule(path)) for path in paths}
    return {path: factor for path, factor in factors.items() if factor != 1.0}


def lookup_obstacle(embedding: nn.Embedding) -> str:
    """Why an embedding's rows cannot be changed without changing more than them; empty where they can.

    >>> lookup_obstacle(nn.Embedding(4, 2, max_norm=1.0))
    'shortens its rows at each call (max_norm)'
    """
    if embedding.max_norm is not None:
        return "shortens its rows at each call (max_norm)"
    if _is_plain(embedding) or hasattr(embedding, _FACTOR):
        return ""
    return f"is a {type(embedding).__name__}, which looks its rows up in a way of its own"


def with_rows(embedding: E, weight: Float[Tensor, "v d"]) -> E:
    """An embedding of the same class and factor with other rows; the first is left as it is."""
    new = copy.copy(embedding)
    new._parameters = {"weight": None}
    new._buffers = dict(embedding._buffers)
    new._forward_hooks, new._forward_pre_hooks = OrderedDict(), OrderedDict()  # the old one's are its own
    new.num_embeddings, new.embedding_dim = weight.shape
    new.weight = nn.Parameter(weight.detach().clone())
    return new


def _is_plain(embedding: nn.Embedding) -> bool:
    """Whether its class gives rows as they are."""
    kind: Any = type(embedding)
    return kind.forward is nn.Embedding.forward
