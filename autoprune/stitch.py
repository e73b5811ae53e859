"""Model + candidate -> a new, really smaller model put together from variants."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from autoprune.compress.activations import Activations, IntegerLinear, activations_of
from autoprune.compress.integers import Integers
from autoprune.library import Library
from autoprune.space import FLOAT_BITS, UNTOUCHED, Candidate
from autoprune.units import Unit


@dataclass(frozen=True)
class Stitched:
    """A compressed model.

    model: a plain module whose weights are the values the integers stand for; it rounds the inputs of
    layers whose level has 8-bit activations. integers: what the file will hold, by module path; half:
    paths stored as half floats. floats: the weights before rounding, where a fine-tune starts from.
    levels: what was done to each unit.
    """

    model: nn.Module
    integers: Mapping[str, Integers]
    half: frozenset[str]
    floats: Mapping[str, Float[Tensor, "o i"]]
    levels: Candidate

    @property
    def activations(self) -> dict[str, Activations]:
        """Grids of the layers whose inputs are rounded to 8 bits, by module path."""
        return activations_of(self.model)


def stitch(teacher: nn.Module, units: Sequence[Unit], candidate: Candidate, library: Library) -> Stitched:
    """A new model with every unit at its candidate's level; `teacher` is left as it is."""
    model = copy.deepcopy(teacher).eval()
    integers: dict[str, Integers] = {}
    floats: dict[str, Tensor] = {}
    half: set[str] = set()
    for unit in units:
        level = candidate[unit.name]
        if level == UNTOUCHED:
            continue
        for path, variant in library.variants(unit, level).items():
            replace_(model, path, variant.value(), variant.bias, variant.activations)
            if variant.integers is not None:
                integers[path] = variant.integers
                floats[path] = variant.weight
            elif level.bits < FLOAT_BITS:
                half.add(path)
    return Stitched(model, integers, frozenset(half), floats, candidate)


def replace_(
    model: nn.Module,
    path: str,
    weight: Float[Tensor, "o i"],
    bias: Float[Tensor, " o"] | None,
    activations: Activations | None = None,
) -> None:
    """Put a Linear or Embedding of the weight's shape at `path`, in place; with 8-bit inputs if given."""
    parent_path, _, name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    old = parent.get_submodule(name)
    rows, columns = weight.shape
    if isinstance(old, nn.Embedding):
        new: nn.Module = nn.Embedding(
            rows, columns, padding_idx=old.padding_idx, device="meta", dtype=weight.dtype
        )
    else:
        if activations is None:
            new = nn.Linear(columns, rows, bias=bias is not None, device="meta", dtype=weight.dtype)
        else:
            new = IntegerLinear(columns, rows, activations, bias=bias is not None)
        if bias is not None:
            new.bias = nn.Parameter(bias.detach().clone())
    new.weight = nn.Parameter(weight.detach().clone())
    setattr(parent, name, new.train(old.training))
