"""torch's `nn.MultiheadAttention` with a layer of its own for query, key, value and output.

torch's module keeps one joint weight, reads its output layer's weight without calling the layer, and, inside
`nn.TransformerEncoderLayer`, is passed by altogether on a fast path. What is compressed here are layers that
are called: statistics, rounded inputs and exporters all meet a layer where it is called.

Shapes: b rows, s places that ask, t places that are asked, h heads, e features of a head, d features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SeparateAttention(nn.Module):
    """Computes what an `nn.MultiheadAttention` does, called as it is called.

    Heads may be removed: their number follows from the layers' widths.
    """

    in_proj_bias = None
    """Tells torch's fast path that it is not for this module."""
    _qkv_same_embed_dim = False

    def __init__(self, old: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim = old.embed_dim
        self.head_size = int(old.head_dim)
        self.batch_first, self.dropout = old.batch_first, old.dropout
        weights = _weights(old)
        biases = (None,) * 3 if old.in_proj_bias is None else old.in_proj_bias.detach().chunk(3)
        self.query, self.key, self.value = map(_linear, weights, biases)
        out = old.out_proj
        self.out_proj = _linear(out.weight.detach(), None if out.bias is None else out.bias.detach())
        self.train(old.training)

    @property
    def num_heads(self) -> int:
        """Heads that are left."""
        return int(self.query.out_features) // int(self.head_size)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention.forward`; `is_causal` is a hint that `attn_mask` makes redundant.

        Raises:
            ValueError: for the hint without the mask.
        """
        if is_causal and attn_mask is None:
            raise ValueError("is_causal is a hint about attn_mask, which is missing")
        has_rows, side = query.dim() == 3, 0 if self.batch_first else 1
        if not has_rows:
            query, key, value = (x.unsqueeze(side) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            self._by_head(layer(x))
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = _mask(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = q @ k.mT * self.head_size**-0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            heads = nn.functional.dropout(weights, dropout) @ v
        else:
            heads = nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        joined = heads.transpose(1, 2).flatten(2)
        out: Tensor = self.out_proj(joined)
        if not self.batch_first:
            out = out.transpose(0, 1)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not has_rows:
            out, weights = out.squeeze(side), None if weights is None else weights.squeeze(0)
        return out, weights

    def _by_head(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b h s e"]:
        rows, places, features = x.shape
        return x.view(rows, places, features // self.head_size, self.head_size).transpose(1, 2)


def _mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor) -> Tensor | None:
    """What is added to scores [b h s t], of a mask of places [s t] or [b*h s t] and one of padding [b t]."""
    added: Tensor | None = None
    if attn_mask is not None:
        added = _as_added(attn_mask, q)
        added = added.reshape(len(q), -1, *added.shape[1:]) if added.dim() == 3 else added
    if key_padding_mask is not None:
        padding = _as_added(key_padding_mask, q)[:, None, None]
        added = padding if added is None else added + padding
    return added


def _as_added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask that is true where nothing is seen, as minus infinity; one of numbers as it is."""
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def _weights(old: nn.MultiheadAttention) -> tuple[Tensor, ...]:
    """Weights of query, key and value, each [o i]."""
    if old.in_proj_weight is not None:
        return old.in_proj_weight.detach().chunk(3)
    return tuple(getattr(old, f"{name}_proj_weight").detach() for name in ("q", "k", "v"))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    o, i = weight.shape
    linear = nn.Linear(i, o, bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.clone())
    return linear


def separate_attention_(model: nn.Module) -> None:
    """Replace each `nn.MultiheadAttention` of a model, in place; those with extra keys and values stay.

    A `nn.TransformerEncoder` is told not to skip padding by nested tensors, which goes round its layers too.
    """
    for parent in list(model.modules()):
        if isinstance(parent, nn.TransformerEncoder):
            parent.use_nested_tensor = False
        for name, child in list(parent.named_children()):
            if type(child) is nn.MultiheadAttention and child.bias_k is None and not child.add_zero_attn:
                setattr(parent, name, SeparateAttention(child))


def head_size_at(model: nn.Module, path: str) -> int | None:
    """Features of a head of the attention that a layer is of; None of another layer."""
    parent = model.get_submodule(path.rpartition(".")[0])
    return parent.head_size if isinstance(parent, SeparateAttention) else None


def separate_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's tensors under the names that its attention has now; earlier versions kept the joint ones."""
    out = dict(state)
    for path, module in model.named_modules():
        if not isinstance(module, SeparateAttention):
            continue
        for last in ("weight", "bias"):
            joint = out.pop(f"{path}.in_proj_{last}", None)
            if joint is not None:
                names = (f"{path}.{part}.{last}" for part in ("query", "key", "value"))
                out |= dict(zip(names, joint.chunk(3), strict=True))
    return out
