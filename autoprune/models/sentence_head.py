"""How a sentence encoder makes one vector of its tokens' vectors, as sentence-transformers describe it.

A folder of sentence-transformers has a `modules.json`: a transformer, a pooling, and maybe dense layers and
a normalisation. Without one the mean of the tokens is taken (Reimers and Gurevych, arXiv 1908.10084,
section 3).

Shapes: b rows, s tokens of a row, d features of a token, k of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

HEAD = "sentence_head"
"""Where a model keeps its `SentenceHead`: an attribute, so that its weights are among the model's own."""

Seen = Float[Tensor, "b s 1"]
"""1 for a token, 0 for padding."""


def _mean(hidden: Float[Tensor, "b s d"], seen: Seen) -> Float[Tensor, "b d"]:
    return (hidden * seen).sum(1) / seen.sum(1).clamp(min=1.0)


def _mean_by_root(hidden: Float[Tensor, "b s d"], seen: Seen) -> Float[Tensor, "b d"]:
    return (hidden * seen).sum(1) / seen.sum(1).clamp(min=1.0).sqrt()


def _by_place(hidden: Float[Tensor, "b s d"], seen: Seen) -> Float[Tensor, "b d"]:
    """The mean with weights 1, 2, 3, ... (Muennighoff, arXiv 2202.08904, section 4.1)."""
    return _mean(hidden, seen * _places(hidden))


def _largest(hidden: Float[Tensor, "b s d"], seen: Seen) -> Float[Tensor, "b d"]:
    return hidden.masked_fill(seen == 0, -1e9).amax(1)


def _first(hidden: Float[Tensor, "b s d"], seen: Seen) -> Float[Tensor, "b d"]:
    return hidden[:, 0]


def _last(hidden: Float[Tensor, "b s d"], seen: Seen) -> Float[Tensor, "b d"]:
    """The last token that is no padding, on whichever side that stands."""
    places = seen * _places(hidden)
    is_last = (places == places.amax(1, keepdim=True)).to(hidden.dtype)
    return (hidden * is_last).sum(1)


def _places(hidden: Float[Tensor, "b s d"]) -> Float[Tensor, "s 1"]:
    """1 to s."""
    return torch.arange(1, hidden.shape[1] + 1, device=hidden.device, dtype=hidden.dtype)[:, None]


_POOLINGS: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "mean": ("the mean of its tokens' vectors", _mean),
    "cls": ("the vector of its first token", _first),
    "lasttoken": ("the vector of its last token", _last),
    "max": ("the largest of its tokens' values, feature by feature", _largest),
    "mean_sqrt_len_tokens": ("the sum of its tokens' vectors by the root of their number", _mean_by_root),
    "weightedmean": ("the mean of its tokens' vectors, with weights 1, 2, 3, ...", _by_place),
}
"""What each pooling is in words, and how it is done; the names are those of sentence-transformers."""

POOLINGS = tuple(_POOLINGS)
"""The poolings that are known."""

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}
"""What may follow a dense layer, by name of torch's class."""


@dataclass(frozen=True)
class DenseLayer:
    """A dense layer after the pooling: its sizes, and the activation that follows it."""

    inputs: int
    outputs: int
    has_bias: bool = True
    activation: str = "Tanh"

    def described(self) -> dict[str, Any]:
        """As plain data."""
        return dict(vars(self))


@dataclass(frozen=True)
class SentencePooling:
    """How a vector is made: one of `POOLINGS`, then dense layers in order. Its length is always made 1."""

    pooling: str = "mean"
    layers: tuple[DenseLayer, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether it is the mean alone."""
        return self == PLAIN

    def in_words(self) -> str:
        """What a sentence's vector is.

        >>> SentencePooling("cls").in_words()
        'the vector of its first token, made of length 1'
        """
        layers = "".join(
            f", through a dense layer to {layer.outputs} features ({layer.activation})"
            for layer in self.layers
        )
        return f"{_POOLINGS[self.pooling][0]}{layers}, made of length 1"

    def described(self) -> dict[str, Any]:
        """As plain data; `from_data` is the inverse."""
        return {"pooling": self.pooling, "layers": [layer.described() for layer in self.layers]}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> SentencePooling:
        """Inverse of `described`.

        Raises:
            ValueError: for a pooling or an activation that is not known. KeyError, TypeError: for other data.
        """
        layers = tuple(DenseLayer(**layer) for layer in data["layers"])
        unknown = {data["pooling"]} - {*POOLINGS} | {layer.activation for layer in layers} - {*ACTIVATIONS}
        if unknown:
            raise ValueError(f"sentence pooling {', '.join(map(str, sorted(unknown)))} is not known")
        return cls(data["pooling"], layers)


class SentenceHead(nn.Module):
    """Makes a row's vector of its tokens' vectors, before its length is made 1."""

    def __init__(self, how: SentencePooling) -> None:
        super().__init__()
        self.pooling = how.pooling
        self.dense = nn.ModuleList(
            nn.Linear(layer.inputs, layer.outputs, bias=layer.has_bias) for layer in how.layers
        )
        self.activations = nn.ModuleList(ACTIVATIONS[layer.activation]() for layer in how.layers)

    def forward(self, hidden: Float[Tensor, "b s d"], mask: Int[Tensor, "b s"]) -> Float[Tensor, "b k"]:
        vectors = _POOLINGS[self.pooling][1](hidden, mask[..., None].to(hidden.dtype))
        for dense, activation in zip(self.dense, self.activations, strict=True):
            vectors = activation(dense(vectors))
        return vectors


PLAIN = SentencePooling()
"""The mean of the tokens."""


def attach_(model: nn.Module, how: SentencePooling) -> None:
    """Give a model the head that makes its vectors, in place, if it has none and needs more than the mean."""
    if not how.is_plain and getattr(model, HEAD, None) is None:
        setattr(model, HEAD, SentenceHead(how).train(model.training))


def vectors_of(
    model: nn.Module, hidden: Float[Tensor, "b s d"], mask: Int[Tensor, "b s"]
) -> Float[Tensor, "b k"]:
    """Unit vectors of rows: the model's own head over its tokens' vectors, or the mean where it has none."""
    head = getattr(model, HEAD, None)
    vectors = _mean(hidden, mask[..., None].to(hidden.dtype)) if head is None else head(hidden, mask)
    return nn.functional.normalize(vectors, dim=-1)
