"""A vocabulary in two parts: the tokens that are used most, and all others, each stored in its own width.

Words are used very unequally (Zipf), so that rounding harms most through a few rows. With the commonest
fifteenth in twice the bits, the harm more than halves (docs/decisions/020-common-and-rare-tokens.md).

Shapes: v tokens, n of them common, d features, b rows of a batch, s tokens of a row.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.models.row_lookup import with_rows

COMMON, RARE, RANKS = "common", "rare", "ranks"
"""Names of the parts, and of the table that tells where a token is."""

NARROW = torch.iinfo(torch.int16).max
"""Most tokens whose ranks are stored in 16 bits."""


class Parted(nn.Module):
    """An embedding in two parts. Token t is row `ranks[t]` of the common ones with the rare ones below.

    Of removed tokens, all of them rare, the row of another is looked up.
    """

    ranks: Int[Tensor, " v"]

    common: nn.Embedding
    rare: nn.Embedding

    def __init__(self, common: nn.Embedding, rare: nn.Embedding, ranks: Int[Tensor, " v"]) -> None:
        super().__init__()
        self.common, self.rare = common, rare
        self.register_buffer("ranks", ranks.to(ranks_type(len(ranks))))

    def forward(self, input: Int[Tensor, "b s"]) -> Float[Tensor, "b s d"]:
        last = self.common.num_embeddings - 1
        rank = self.ranks[input].to(torch.int32)
        common, rare = self.common(rank.clamp(max=last)), self.rare((rank - last - 1).clamp(min=0))
        out: Tensor = torch.where((rank <= last)[..., None], common, rare)
        return out

    def order(self) -> Int[Tensor, " v"]:
        """Tokens by rank, while none is removed."""
        return self.ranks.long().argsort()

    @property
    def is_whole(self) -> bool:
        """Whether no token is removed."""
        return len(self.ranks) == self.common.num_embeddings + self.rare.num_embeddings

    def keep_(self, rare: nn.Embedding, places: Int[Tensor, " v-n"]) -> None:
        """Keep some of the rare tokens, in place. For each old token: the number of the row to look up."""
        self.ranks = self.ranks_by(places)
        self.rare = rare

    def ranks_by(self, places: Int[Tensor, " v-n"]) -> Int[Tensor, " v"]:
        """The ranks once rare tokens are looked up at these places among those that stay."""
        last = self.common.num_embeddings - 1
        ranks = self.ranks.long()
        looked_up = places.long()[(ranks - last - 1).clamp(min=0)] + last + 1
        return torch.where(ranks <= last, ranks, looked_up).to(self.ranks.dtype)

    def joined(self) -> nn.Embedding:
        """One embedding of all tokens, which gives the same."""
        weight = torch.cat([self.common.weight, self.rare.weight])
        return with_rows(self.common, weight.detach()[self.ranks.long()])


def ranks_type(tokens: int) -> torch.dtype:
    """What ranks of so many tokens are stored as."""
    return torch.int16 if tokens <= NARROW else torch.int32


def part_(model: nn.Module, path: str, order: Int[Tensor, " v"], common: int) -> None:
    """Part the embedding at `path`, in place: the first `common` tokens of an order, and all others."""
    old: nn.Embedding = model.get_submodule(path)  # type: ignore[assignment]
    weight = old.weight.detach()
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    first, rest = (_part(old, weight[rows]) for rows in (order[:common], order[common:]))
    _put(model, path, Parted(first, rest, ranks).train(old.training))


def part_as_(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Part the embeddings that a model's saved tensors have in parts, in place; the tensors are loaded later.

    Raises:
        ValueError: where they are not the parts of such an embedding. KeyError: where one is missing.
    """
    for name, ranks in state.items():
        path = name.removesuffix(f".{RANKS}")
        if path == name or not isinstance(old := model.get_submodule(path), nn.Embedding):
            continue
        shapes = [state[f"{path}.{part}.weight"].shape for part in (COMMON, RARE)]
        common, rare = (_part(old, torch.empty(shape)) for shape in shapes)
        rows = common.num_embeddings + rare.num_embeddings
        if len(ranks) != len(old.weight) or not 0 <= int(ranks.min()) <= int(ranks.max()) < rows:
            raise ValueError(f"{path}: its ranks are not those of {len(old.weight)} tokens among {rows} rows")
        _put(model, path, Parted(common, rare, ranks).train(old.training))


def parted(model: nn.Module) -> dict[str, Parted]:
    """Embeddings in two parts, by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Parted)}


def parts_of(model: nn.Module) -> dict[str, int]:
    """How many common tokens each embedding in two parts has, by path."""
    return {path: embedding.common.num_embeddings for path, embedding in parted(model).items()}


def part_anyhow_(model: nn.Module, parts: Mapping[str, int]) -> None:
    """Part embeddings into parts of the sizes in `parts_of`, in place; which tokens go where is arbitrary."""
    for path, common in parts.items():
        part_(model, path, torch.arange(len(model.get_submodule(path).weight)), common)  # type: ignore[arg-type]


def limits_of_parts(model: nn.Module) -> dict[str, int]:
    """Most numbers in each tensor of an embedding's parts, by name, for all embeddings that may be parted."""
    out: dict[str, int] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            out |= {f"{path}.{part}.weight": module.weight.numel() for part in (COMMON, RARE)}
            out[f"{path}.{RANKS}"] = module.num_embeddings
    return out


def join_(model: nn.Module, paths: Iterable[str]) -> None:
    """Join the parted embeddings at `paths` again, in place."""
    for path in paths:
        _put(model, path, model.get_submodule(path).joined())  # type: ignore[operator]


def whole(model: nn.Module) -> nn.Module:
    """The model as it came, on the same tensors but those of embeddings in two parts, which are joined."""
    paths = parted(model)
    return joined(model, paths) if paths else model


def joined(model: nn.Module, paths: Iterable[str]) -> nn.Module:
    """A copy with the parted embeddings at `paths` joined, on the same tensors for all else."""
    tensors = [*model.parameters(), *model.buffers()]
    out = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    join_(out, paths)
    return out


def part_by_use_(model: nn.Module, path: str, uses: NDArray[np.float64], share: float) -> None:
    """Part the embedding at `path`, in place, if that leaves something in both parts.

    Args:
        uses: how often each token is looked up [v]; infinite for those that always are.
        share: of all look-ups that the common tokens make up.
    """
    order = np.argsort(-uses, kind="stable")
    finite = np.where(np.isfinite(uses), uses, 0.0)[order]
    always = int(np.isinf(uses).sum())
    common = max(always, int(np.searchsorted(np.cumsum(finite), share * finite.sum())) + 1)
    if 0 < common < len(order):
        # Both in the vocabulary's own order, which says nothing of what this text holds.
        inside = np.concatenate([np.sort(order[:common]), np.sort(order[common:])])
        part_(model, path, torch.from_numpy(inside), common)


def _part(old: nn.Embedding, weight: Float[Tensor, "v d"]) -> nn.Embedding:
    """One that looks rows up as another does; which of them is padding is not known of a part."""
    new = with_rows(old, weight)
    new.padding_idx = None
    return new


def _put(model: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
