"""Which layers of a model are coupled: one's output features are another's input features, piece by piece.

Found by gradients on one example batch. Every layer's output is cut out of the graph and made a leaf, so that
the gradient of a layer's input reaches the layers that feed it directly, through whatever is computed between
them, and no others; depthwise convolutions are passed through. Layers that feed a common reader form a group.
It has p pieces where, for every bit of a piece's number, readers' features in pieces with that bit have no
gradient at features in pieces without it: then piece k of the readers depends on piece k of the feeders only.

Shapes: r output features of a layer, p pieces of a group.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

Call = Callable[[nn.Module], Tensor]
"""Runs a model on the example batch and gives its answers."""

ANSWER = ""
"""The model's answers as a reader; a path no layer has."""


def is_depthwise(module: nn.Module) -> bool:
    """Whether each output channel reads the one input channel of its number."""
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels


@dataclass(frozen=True)
class Group:
    """Layers that lose features together: output features of `rows`, the input features of `cols`.

    pieces: what can go one by one (heads, groups of heads, neurons, channels); 1: nothing can.
    feeds_answer: whether the model's answers read it.
    """

    rows: tuple[str, ...]
    cols: tuple[str, ...]
    pieces: int
    feeds_answer: bool = False

    @property
    def members(self) -> tuple[str, ...]:
        """All its layers."""
        return self.rows + self.cols


@contextmanager
def removing(hooks: Sequence[RemovableHandle]) -> Iterator[None]:
    """Remove hooks when the block ends."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class Seen:
    """One layer in one run: what it gave, where gradients end, and what it read, each per call.

    stored: whether all that it read are whole tensors of the model itself, whatever the example.
    """

    module: nn.Module
    outputs: list[Tensor]
    inputs: list[Tensor]
    stored: bool = True

    @property
    def rows(self) -> int:
        """Output features."""
        layer: Any = self.module
        return int(layer.weight.shape[1 if isinstance(layer, nn.Embedding) else 0])

    @property
    def columns(self) -> int:
        """Input features, as the layer before gave them."""
        layer: Any = self.module
        return int(layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features)

    @property
    def dimension(self) -> int:
        """Which dimension of inputs and outputs is the features'."""
        return -3 if isinstance(self.module, nn.Conv2d) else -1


@dataclass(frozen=True)
class Trace:
    """All layers that a run called, and which of them feed which reader."""

    layers: Mapping[str, Seen]
    feeders: Mapping[str, tuple[str, ...]]


def trace(model: nn.Module, call: Call) -> Trace:
    """Run the model once and see which layers feed which; the model is left as it was."""
    layers: dict[str, Seen] = {}
    hooks = []
    own = {tensor.data_ptr(): tensor.numel() for tensor in (*model.parameters(), *model.buffers())}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            layers[path] = seen = Seen(module, [], [])
            hooks.append(module.register_forward_pre_hook(_note_input(seen, own), with_kwargs=True))
            hooks.append(module.register_forward_hook(_cut_output(seen)))
    with removing(hooks), torch.enable_grad():
        answers = call(model)
    layers = {path: layer for path, layer in layers.items() if layer.outputs}
    sources = {path: layer.outputs for path, layer in layers.items()}
    readers = {
        path: layer.inputs
        for path, layer in layers.items()
        if layer.inputs and not is_depthwise(layer.module)
    }
    generator = torch.Generator().manual_seed(0)
    feeders = {}
    for path, tensors in {**readers, ANSWER: [answers]}.items():
        weights = [torch.randn(tensor.shape, generator=generator) for tensor in tensors]
        by_source = gradients(tensors, weights, sources)
        feeders[path] = tuple(
            name for name, gradient in by_source.items() if any(bool(g.any()) for g in gradient)
        )
    return Trace(layers, feeders)


def _note_input(seen: Seen, own: Mapping[int, int]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = _given(args, named)
        seen.stored &= isinstance(given, Tensor) and own.get(given.data_ptr()) == given.numel()
        if isinstance(given, Tensor) and given.is_floating_point():
            seen.inputs.append(given.clone())  # the model may go on to change it in place

    return hook


def _given(args: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    """A layer's input, by position or by name."""
    given: Tensor = args[0] if args else next(iter(named.values()))
    return given


def _cut_output(seen: Seen) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        through = is_depthwise(module) and output.requires_grad
        end = output if through else output.detach().requires_grad_()
        seen.outputs.append(end)
        return end.clone()

    return hook


def gradients(
    tensors: Sequence[Tensor], weights: Sequence[Tensor], sources: Mapping[str, Sequence[Tensor]]
) -> dict[str, list[Tensor]]:
    """Gradients of the weighted sum of tensors at the sources it depends on."""
    pairs = [
        (tensor, weight) for tensor, weight in zip(tensors, weights, strict=True) if tensor.requires_grad
    ]
    ends = [(name, tensor) for name, some in sources.items() for tensor in some]
    if not pairs or not ends:
        return {}
    outputs, weighted = zip(*pairs, strict=True)
    by_tensor = torch.autograd.grad(
        outputs, [tensor for _, tensor in ends], weighted, retain_graph=True, allow_unused=True
    )
    out: dict[str, list[Tensor]] = {}
    for (name, _), gradient in zip(ends, by_tensor, strict=True):
        if gradient is not None:
            out.setdefault(name, []).append(gradient)
    return out


# ---- groups -------------------------------------------------------------------------------------


def find_groups(model: nn.Module, call: Call, traced: Trace | None = None) -> list[Group]:
    """All layers that the example calls, in order; layers whose outputs share readers form a group.

    traced: the same run, where it is known already.
    """
    traced = trace(model, call) if traced is None else traced
    leader = {name: name for name in traced.layers}

    def first(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for names in traced.feeders.values():
        for name in names:
            leader[first(name)] = first(names[0])
    members: dict[str, list[str]] = {}
    for name in traced.layers:
        members.setdefault(first(name), []).append(name)
    return [_group(traced, tuple(rows)) for rows in members.values()]


def _group(traced: Trace, rows: tuple[str, ...]) -> Group:
    """The group of layers that share readers, in as many independent pieces as possible."""
    readers = [path for path, names in traced.feeders.items() if set(names) & set(rows)]
    cols = tuple(path for path in readers if path != ANSWER)
    features = [traced.layers[path].rows for path in rows] + [traced.layers[path].columns for path in cols]
    most = math.gcd(*features) if cols and ANSWER not in readers else 1
    divisors = [n for n in range(most, 0, -1) if most % n == 0]
    pieces = next(n for n in divisors if _is_apart(traced, rows, cols, n))
    return Group(rows, cols, pieces, ANSWER in readers)


def _is_apart(traced: Trace, rows: Sequence[str], cols: Sequence[str], pieces: int) -> bool:
    """Whether piece k of the inputs depends only on piece k of the outputs, for every k."""
    generator = torch.Generator().manual_seed(0)
    sources = {name: traced.layers[name].outputs for name in rows}
    readers = [traced.layers[path] for path in cols]
    for bit, value in itertools.product(range((pieces - 1).bit_length()), (False, True)):
        tensors, weights = [], []
        for reader in readers:
            chosen = _along(_has_bit(reader.columns, pieces, bit) == value, reader.dimension)
            for tensor in reader.inputs:
                tensors.append(tensor)
                weights.append(torch.randn(tensor.shape, generator=generator) * chosen)
        for name, found_at in gradients(tensors, weights, sources).items():
            source = traced.layers[name]
            other = _along(_has_bit(source.rows, pieces, bit) != value, source.dimension)
            if any(bool((bits * other).any()) for bits in found_at):
                return False
    return True


def _has_bit(features: int, pieces: int, bit: int) -> Bool[Tensor, " features"]:
    """For each feature, whether its piece's number has this bit set.

    >>> _has_bit(6, 3, 1).tolist()
    [False, False, False, False, True, True]
    """
    return (torch.arange(features) // (features // pieces)) >> bit & 1 == 1


def _along(mask: Tensor, dimension: int) -> Tensor:
    """A mask of features, shaped to be multiplied with what has them in `dimension`."""
    return mask.reshape(-1, *[1] * (-dimension - 1))


def is_summed(model: nn.Module, call: Call, group: Group) -> bool:
    """Whether a group's layers are added up, as in a residual stream.

    Two of them each reach the readers when all others give zeros; factors of a product (a gate, a query) do
    not, terms of a sum do.
    """
    if len(group.rows) == 1:
        return False
    silent = _read(model, call, group.rows, group.cols)
    heard = 0
    for name in group.rows:
        alone = _read(model, call, [row for row in group.rows if row != name], group.cols)
        heard += any(not torch.equal(a, b) for a, b in zip(alone, silent, strict=True))
        if heard > 1:
            return True
    return False


def _read(model: nn.Module, call: Call, silenced: Sequence[str], cols: Sequence[str]) -> list[Tensor]:
    """What the readers get when some layers give zeros."""
    read: list[Tensor] = []
    hooks = [
        model.get_submodule(path).register_forward_hook(lambda layer, args, out: torch.zeros_like(out))
        for path in silenced
    ]
    hooks += [
        model.get_submodule(path).register_forward_pre_hook(
            lambda layer, args, named: read.append(_given(args, named).clone()), with_kwargs=True
        )
        for path in cols
    ]
    with removing(hooks), torch.no_grad():
        call(model)
    return read
