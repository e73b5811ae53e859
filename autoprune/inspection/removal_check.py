"""Whether pieces of a unit can be removed: on an example batch, removing must give the same as masking.

Masking zeroes the columns that read the pieces; removing takes their rows and these columns away, as a
stitched model does. Where something else reads the pieces, or knows how many there are, the two differ.

Shapes: o output features, i input features of a weight as a matrix, k kept pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from autoprune.compress.surgery import replace_
from autoprune.inspection.coupling import Call, removing
from autoprune.models.canonical import settle_
from autoprune.models.unit import Unit

TOLERANCE, ROUNDING = 1e-3, 1e-5
"""How far apart removing and masking may be: of what masking changes, and of the largest number compared."""

Change = tuple[Float[Tensor, "o i"], Float[Tensor, " o"] | None]
"""Another weight and bias of a layer."""

Changes = Mapping[str, Change]
"""By path of the layer."""


def faults_of(model: nn.Module, call: Call, units: Sequence[Unit]) -> dict[str, str]:
    """Why pieces cannot be removed, by name of the unit; units that are not named are proven on the example.

    Half the pieces of all units, which have no layer in common, go at once. Removing them must give what
    zeroing the columns that read them gives, at the readers and in the answers; where it does not, the units
    are halved until those that are to blame stand alone.
    """
    fault = _fault(model, call, units) if units else None
    if fault is None:
        return {}
    if len(units) == 1:
        return {units[0].name: fault}
    middle = len(units) // 2
    return faults_of(model, call, units[:middle]) | faults_of(model, call, units[middle:])


def _fault(model: nn.Module, call: Call, units: Sequence[Unit]) -> str | None:
    """What is wrong when half the pieces of all units are removed."""
    masks: dict[str, Change] = {}
    cuts: dict[str, Change] = {}
    for unit in units:
        order = torch.randperm(unit.pieces, generator=torch.Generator().manual_seed(0))
        keep = order[: max(1, unit.pieces // 2)].sort().values
        masks |= _masked(model, unit, keep)
        cuts |= _removed(model, unit, keep)
    masked, changes = _heard(model, call, masks, list(masks))
    try:
        removed, _ = _heard(model, call, cuts, list(masks))
    except Exception as error:  # a model of the user's own may raise anything
        return f"the model does not run without part of it ({_first_line(error)})"
    if min(changes) == 0:
        return "removing part of it changes nothing on the example, so nothing is proven"
    for wanted, got, change in zip(masked, removed, [*changes, max(changes)], strict=True):
        allowed = TOLERANCE * change + ROUNDING * float(wanted.abs().max())
        if got.shape != wanted.shape or not float((got - wanted).abs().max()) <= allowed:
            return "removing part of it is not the same as masking it: something else reads it"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _masked(model: nn.Module, unit: Unit, keep: Int[Tensor, " k"]) -> Changes:
    """Readers with zeros in the columns of all pieces but some."""
    changes = {}
    for column in unit.cols:
        weight, bias = _values(model, column.path)
        chosen = unit.at(keep, column.columns)
        zeros = torch.zeros_like(weight)
        zeros[:, chosen] = weight[:, chosen]
        changes[column.path] = (zeros, bias)
    return changes


def _removed(model: nn.Module, unit: Unit, keep: Int[Tensor, " k"]) -> Changes:
    """Feeders without the rows, and readers without the columns, of all pieces but some."""
    changes = {}
    for row in unit.rows:
        weight, bias = _values(model, row.path)
        chosen = unit.at(keep, row.rows)
        changes[row.path] = (weight[chosen], None if bias is None else bias[chosen])
    for column in unit.cols:
        weight, bias = _values(model, column.path)
        changes[column.path] = (weight[:, unit.at(keep, column.columns)], bias)
    return changes


def _values(model: nn.Module, path: str) -> tuple[Float[Tensor, "o i"], Float[Tensor, " o"] | None]:
    """Weight, as a matrix, and bias of a layer."""
    layer: Any = model.get_submodule(path)
    return layer.weight.detach().flatten(1), None if layer.bias is None else layer.bias.detach()


def _heard(
    model: nn.Module, call: Call, changes: Changes, paths: Sequence[str]
) -> tuple[list[Tensor], list[float]]:
    """What layers at `paths`, and at last the model, give with other weights; how far each layer's differ.

    A layer's own change is against its old weights on the same input, where that still fits them.
    """
    heard: list[Tensor] = []
    by: list[float] = []
    old = {path: model.get_submodule(path) for path in paths}

    def hook(before: nn.Module) -> Callable[[nn.Module, Any, Tensor], None]:
        def note(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            heard.append(out.clone())
            if layer.weight.shape == before.weight.shape:
                by.append(float((before.forward(args[0]) - out).abs().max()))

        return note

    with changed(model, changes), torch.no_grad():
        hooks = [model.get_submodule(path).register_forward_hook(hook(old[path])) for path in paths]
        with removing(hooks):
            answers = call(model)
    return [*heard, answers.clone()], by


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
