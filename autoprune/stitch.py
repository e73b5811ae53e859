"""Model + candidate -> a new, really smaller model put together from variants.

Shapes: o output features, i input features of a weight as a matrix, v tokens of a vocabulary.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int32
from torch import Tensor, nn

from autoprune.architecture import Architecture
from autoprune.canonical import settle_
from autoprune.compress.activations import Activations, activations_of, integer_class
from autoprune.compress.integers import Integers
from autoprune.kinds import CLASSES
from autoprune.library import Library
from autoprune.space import FLOAT_BITS, UNTOUCHED, Candidate
from autoprune.units import Unit
from autoprune.vocabulary import COMMON, RARE, Parted, join_, joined, parted


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
            elif level.bits < FLOAT_BITS:
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
            parent.keep_(_embedding(old, weight, None), places)
            return
        new: nn.Module = _embedding(old, weight, places)
    else:
        new = _layer(old, weight, bias)
        if activations is not None:
            new.__class__ = integer_class(type(old))  # type: ignore[arg-type]
            new.activations = activations  # type: ignore[assignment]
    setattr(parent, name, new)


def _embedding(old: nn.Embedding, weight: Tensor, places: Tensor | None) -> nn.Embedding:
    rows, columns = weight.shape
    padding = old.padding_idx if places is None else None
    kind = nn.Embedding if places is None else FewerTokens
    new = kind(rows, columns, padding_idx=padding, device="meta", dtype=weight.dtype)
    new.weight = nn.Parameter(weight.detach().clone())
    if places is not None:
        new.register_buffer("places", places.to(torch.int32))
    return new.train(old.training)


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
