"""Whether pieces of a unit can be removed from a model: removing must equal masking, on an example batch.

Masking zeroes the columns that read the pieces; removing takes their rows and these columns away, as a
stitched model does. Where something else reads the pieces, or knows how many there are, the two differ.

Shapes: o output features, i input features of a weight as a matrix, k kept pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autoprune.canonical import settle_
from autoprune.coupling import Call, removing
from autoprune.stitch import replace_
from autoprune.units import Unit

TOLERANCE, ROUNDING = 1e-3, 1e-5
"""How far apart removing and masking may be: of what masking changes, and of the largest number compared."""

Changes = Mapping[str, tuple[Float[Tensor, "o i"], Float[Tensor, " o"] | None]]
"""Other weights and biases by path of their layer."""


def fault_of(model: nn.Module, call: Call, unit: Unit) -> str | None:
    """Why half a unit's pieces cannot be removed, or None where that is proven on the example.

    Removing them must give what zeroing the columns that read them gives, at the readers and in the answers.
    """
    order = torch.randperm(unit.pieces, generator=torch.Generator().manual_seed(0))
    keep = order[: max(1, unit.pieces // 2)].sort().values
    paths = [one.path for one in unit.cols]
    before = _heard(model, call, {}, paths)
    masked = _heard(model, call, _masked(model, unit, keep), paths)
    try:
        removed = _heard(model, call, _removed(model, unit, keep), paths)
    except Exception as error:  # a model of the user's own may raise anything
        return f"the model does not run without part of it ({_first_line(error)})"
    if all(torch.equal(was, now) for was, now in zip(before, masked, strict=True)):
        return "removing part of it changes nothing on the example, so nothing is proven"
    for was, wanted, got in zip(before, masked, removed, strict=True):
        allowed = TOLERANCE * (was - wanted).abs().max() + ROUNDING * was.abs().max()
        if got.shape != wanted.shape or not (got - wanted).abs().max() <= allowed:
            return "removing part of it is not the same as masking it: something else reads it"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _masked(model: nn.Module, unit: Unit, keep: Int[Tensor, " k"]) -> Changes:
    """Readers with zeros in the columns of all pieces but some."""
    changes = {}
    for one in unit.cols:
        weight, bias = _values(model, one.path)
        chosen = unit.at(keep, one.columns)
        zeros = torch.zeros_like(weight)
        zeros[:, chosen] = weight[:, chosen]
        changes[one.path] = (zeros, bias)
    return changes


def _removed(model: nn.Module, unit: Unit, keep: Int[Tensor, " k"]) -> Changes:
    """Feeders without the rows, and readers without the columns, of all pieces but some."""
    changes = {}
    for one in unit.rows:
        weight, bias = _values(model, one.path)
        chosen = unit.at(keep, one.rows)
        changes[one.path] = (weight[chosen], None if bias is None else bias[chosen])
    for one in unit.cols:
        weight, bias = _values(model, one.path)
        changes[one.path] = (weight[:, unit.at(keep, one.columns)], bias)
    return changes


def _values(model: nn.Module, path: str) -> tuple[Float[Tensor, "o i"], Float[Tensor, " o"] | None]:
    """Weight, as a matrix, and bias of a layer."""
    layer: Any = model.get_submodule(path)
    return layer.weight.detach().flatten(1), None if layer.bias is None else layer.bias.detach()


def _heard(model: nn.Module, call: Call, changes: Changes, paths: Sequence[str]) -> list[Tensor]:
    """What the layers at `paths` give, and the model, with other weights for this run."""
    heard: list[Tensor] = []
    with changed(model, changes), torch.no_grad():
        hooks = [
            model.get_submodule(path).register_forward_hook(
                lambda layer, args, out: heard.append(out.clone())
            )
            for path in paths
        ]
        with removing(hooks):
            return [call(model).clone(), *heard]


@contextmanager
def changed(model: nn.Module, changes: Changes) -> Iterator[None]:
    """The model with other weights at some paths until the block ends."""
    before = {path: model.get_submodule(path) for path in changes}
    try:
        for path, (weight, bias) in changes.items():
            replace_(model, path, weight, bias)
        settle_(model)
        yield
    finally:
        for path, layer in before.items():
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, layer)
        settle_(model)
