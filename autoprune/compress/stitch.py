"""Model + candidate -> a new, really smaller model put together from variants.

Shapes: o output features, i input features of a weight as a matrix, v tokens of a vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Tensor, nn

from autoprune.compress.activations import Activations, activations_of
from autoprune.compress.integers import Integers
from autoprune.compress.library import Library
from autoprune.compress.surgery import replace_
from autoprune.models.canonical import settle_
from autoprune.models.spec import Architecture
from autoprune.models.split_embedding import COMMON, RARE, join_, joined, parted
from autoprune.models.units import Unit
from autoprune.space.levels import UNTOUCHED, Candidate
from autoprune.space.storage import FLOAT32
from autoprune.tasks.kinds import CLASSES


@dataclass(frozen=True)
class Stitched:
    """A compressed model.

    model: a plain module whose weights are the values the integers stand for; it rounds the inputs of
    layers whose level has 8-bit activations. integers: what the file will hold, by module path, as matrices
    [o i]; half: paths stored as half floats. floats: the weights before rounding, where a fine-tune starts
    from. levels: what was done to each unit. architecture: what the model was before.
    """

    model: nn.Module
    integers: Mapping[str, Integers]
    half: frozenset[str]
    floats: Mapping[str, Float[Tensor, "o i"]]
    levels: Candidate
    architecture: Architecture = field(default_factory=lambda: Architecture(CLASSES))

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
    integers: dict[str, Integers] = {}
    floats: dict[str, Tensor] = {}
    half: set[str] = set()
    for unit in units:
        level = candidate[unit.name]
        if level == UNTOUCHED:
            continue
        for path, variant in library.variants(unit, level).items():
            replace_(model, path, variant.value(), variant.bias, variant.activations, places=variant.places)
            if variant.integers is not None:
                integers[path] = variant.integers
                floats[path] = variant.weight
            elif level.storage != FLOAT32:
                half.add(path)
        for weight in unit.weights:
            if weight.tied:
                model.get_submodule(weight.tied).weight = model.get_submodule(weight.path).weight
    join_(model, [path for path in parted(model) if not any(w.path.startswith(f"{path}.") for w in touched)])
    settle_(model)
    known = architecture or architecture_of(teacher)
    return Stitched(model, integers, frozenset(half), floats, candidate, known)


def _copied(teacher: nn.Module, replaced: set[str]) -> nn.Module:
    """A copy, whose layers at `replaced` still hold the teacher's tensors, as they get others."""
    holders: dict[int, list[str]] = {}
    for name, one in teacher.named_parameters(remove_duplicate=False):
        holders.setdefault(id(one), []).append(name.rpartition(".")[0])
    shared = {id(one): one for one in teacher.parameters() if replaced.issuperset(holders[id(one)])}
    return copy.deepcopy(teacher, shared)


def with_whole_vocabulary(stitched: Stitched) -> Stitched:
    """The same model with each embedding in two parts joined, its integers in the wider of their two widths.

    One that lost tokens, or is in integers in one part alone, is left as it is.
    """
    integers, half, paths = dict(stitched.integers), set(stitched.half), []
    for path, one in parted(stitched.model).items():
        parts = [f"{path}.{part}" for part in (COMMON, RARE)]
        stored = [integers[part] for part in parts if part in integers]
        if not one.is_whole or len(stored) == 1:
            continue
        paths.append(path)
        if stored:
            integers[path] = Integers.stacked(stored).rows(one.ranks.long())
        if half.issuperset(parts):
            half.add(path)
        for part in parts:
            integers.pop(part, None)
            half.discard(part)
    if not paths:
        return stitched
    model = joined(stitched.model, paths)
    return replace(stitched, model=model, integers=integers, half=frozenset(half), floats={})


def architecture_of(model: nn.Module) -> Architecture:
    """A text classifier's architecture, from the config that it carries."""
    config = getattr(model, "config", None)
    return Architecture(CLASSES, {} if config is None else config.to_dict())
