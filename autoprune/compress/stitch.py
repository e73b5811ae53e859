"""Model + candidate -> a new, really smaller model put together from variants.

Shapes: o output features, i input features of a weight as a matrix, v tokens of a vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from autoprune.compress.activations import Activations, activations_of
from autoprune.compress.library import Library
from autoprune.compress.stored import StoredWeight
from autoprune.compress.surgery import replace_
from autoprune.models.canonical import settle_
from autoprune.models.spec import Architecture
from autoprune.models.split_embedding import COMMON, RARE, join_, joined, parted
from autoprune.models.unit import Unit
from autoprune.space.levels import UNTOUCHED, Candidate
from autoprune.tasks.kinds import TEXT_CLASSIFICATION

W = TypeVar("W")


@dataclass(frozen=True)
class Stitched:
    """A compressed model.

    model: a plain module whose weights are the values that the stored ones stand for; it rounds the inputs of
    layers whose storage asks for it. stored: what the file will hold of each weight that is not float32, by
    module path, as matrices [o i]. levels: what was done to each unit. architecture: what the model was
    before. floats: the weights before rounding, where a fine-tune starts from. touched: module paths of the
    layers that are not as they were; pruned: of those that lost rows or columns. rows: by module path, the
    numbers of the rows that stay where some are gone.
    """

    model: nn.Module
    stored: Mapping[str, StoredWeight]
    levels: Candidate
    architecture: Architecture = field(default_factory=lambda: Architecture(TEXT_CLASSIFICATION))
    floats: Mapping[str, Float[Tensor, "o i"]] = field(default_factory=dict)
    touched: tuple[str, ...] = ()
    pruned: frozenset[str] = frozenset()
    rows: Mapping[str, Int[Tensor, " k"]] = field(default_factory=dict)

    @classmethod
    def plain(cls, model: nn.Module, architecture: Architecture) -> Stitched:
        """A model with nothing done to it."""
        return cls(model, {}, Candidate(()), architecture)

    def stored_as(self, kind: type[W]) -> dict[str, W]:
        """The weights that are stored in one way, by module path."""
        return {path: weight for path, weight in self.stored.items() if isinstance(weight, kind)}

    @property
    def activations(self) -> dict[str, Activations]:
        """Grids of the layers whose inputs are rounded to 8 bits, by module path."""
        return activations_of(self.model)


def stitch(
    teacher: nn.Module,
    units: Sequence[Unit],
    candidate: Candidate,
    library: Library,
    architecture: Architecture | None = None,
) -> Stitched:
    """A new model with every unit at its candidate's level; `teacher` is left as it is.

    architecture: of the teacher; a text classifier's by its config where None.
    """
    touched = [w for u in units if candidate[u.name] != UNTOUCHED for w in u.weights]
    model = _copied(teacher, {w.path for w in touched} | {w.tied for w in touched if w.tied}).eval()
    stored: dict[str, StoredWeight] = {}
    floats: dict[str, Tensor] = {}
    for unit in units:
        level = candidate[unit.name]
        if level == UNTOUCHED:
            continue
        for path, variant in library.variants(unit, level).items():
            replace_(model, path, variant.value(), variant.bias, variant.activations, places=variant.places)
            if variant.stored is not None:
                stored[path], floats[path] = variant.stored, variant.weight
        for weight in unit.weights:
            if weight.tied:
                model.get_submodule(weight.tied).weight = model.get_submodule(weight.path).weight
    join_(model, [path for path in parted(model) if not any(w.path.startswith(f"{path}.") for w in touched)])
    settle_(model)
    known = architecture or architecture_of(teacher)
    pruned = [unit for unit in units if candidate[unit.name].ratio > 0]
    return Stitched(
        model,
        stored,
        candidate,
        known,
        floats,
        touched=tuple(weight.path for weight in touched),
        pruned=frozenset(weight.path for unit in pruned for weight in unit.weights),
        rows=_rows_left(pruned, candidate, library),
    )


def _rows_left(
    pruned: Sequence[Unit], candidate: Candidate, library: Library
) -> dict[str, Int[Tensor, " k"]]:
    """Numbers of the rows that stay of each matrix that lost some, by module path."""
    out: dict[str, Tensor] = {}
    for unit in pruned:
        keep = library.kept(unit, candidate[unit.name].ratio)
        out |= {weight.path: unit.at(keep, weight.rows) for weight in unit.rows}
    return out


def _copied(teacher: nn.Module, replaced: set[str]) -> nn.Module:
    """A copy, whose layers at `replaced` still hold the teacher's tensors, as they get others."""
    holders: dict[int, list[str]] = {}
    for name, one in teacher.named_parameters(remove_duplicate=False):
        holders.setdefault(id(one), []).append(name.rpartition(".")[0])
    shared = {
        id(parameter): parameter
        for parameter in teacher.parameters()
        if replaced.issuperset(holders[id(parameter)])
    }
    return copy.deepcopy(teacher, shared)


def with_whole_vocabulary(stitched: Stitched) -> Stitched:
    """The same model with each embedding in two parts joined, its integers in the wider of their two widths.

    One that lost tokens, or whose parts cannot be one weight, as with integers in one of them alone, is left
    as it is; floats can always.
    """
    stored, paths = dict(stitched.stored), []
    for path, embedding in parted(stitched.model).items():
        if not embedding.is_whole:
            continue
        names = [f"{path}.{part}" for part in (COMMON, RARE)]
        common, rare = (stitched.stored.get(name) for name in names)
        whole = None if common is None or rare is None else common.stacked_on(rare)
        if whole is None and any(part is not None and not part.storage.is_float for part in (common, rare)):
            continue
        paths.append(path)
        for name in names:
            stored.pop(name, None)
        if whole is not None:
            stored[path] = whole.rows(embedding.ranks.long())
    if not paths:
        return stitched
    return replace(stitched, model=joined(stitched.model, paths), stored=stored, floats={})


def architecture_of(model: nn.Module) -> Architecture:
    """A text classifier's architecture, from the config that it carries."""
    config = getattr(model, "config", None)
    return Architecture(TEXT_CLASSIFICATION, {} if config is None else config.to_dict())
