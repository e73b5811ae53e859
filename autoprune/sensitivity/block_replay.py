"""Replay of a model block by block: one pass keeps each block's inputs, so that it can be run again alone.

A block is a child of a ModuleList: a layer of a transformer. What it was given in a batch, and the gradient
at what it gave, are all that the gradients inside it depend on; both go to a file, not to memory.

Shapes: a directions, u tensors that a block gives, b rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from autoprune.sensitivity.tensor_file import Store, StoredTensor

ALIKE = 1e-3
"""Of a block's largest output: how far it may be from itself when run again alone."""


@dataclass
class Call:
    """One run of a block in a batch: its inputs, and the gradients of its u output tensors.

    Tensors are in the store. given: those that it gave, kept of the first batch alone, to compare with.
    """

    args: Any
    kwargs: Any
    rows: int
    edges: list[GradientEdge | None] = field(default_factory=list)
    gradients: list[StoredTensor | None] = field(default_factory=list)
    given: list[StoredTensor] = field(default_factory=list)


Known = dict[tuple[int, int], tuple[Tensor, StoredTensor]]
"""Tensors that are stored already, by identity and version; held, so that no other takes their identity."""


class Catcher:
    """Hooks on a block that keep its inputs, and where to find the gradients of its outputs."""

    def __init__(self, module: nn.Module, store: Store) -> None:
        self.module, self._store = module, store
        self.calls: list[list[Call]] = []
        self._handles = [
            module.register_forward_pre_hook(self._before, with_kwargs=True),
            module.register_forward_hook(self._after),
        ]
        self._rows, self._known = 1, Known()

    def begin(self, rows: int, known: Known) -> None:
        """The next batch has so many rows. known: what is stored already, for all blocks together."""
        self._rows, self._known = rows, known
        self.calls.append([])

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        call = Call(mapped(args, self._put), mapped(kwargs, self._put), self._rows)
        self.calls[-1].append(call)

    def _put(self, tensor: Tensor) -> StoredTensor:
        """Masks and positions are the same for all blocks of a batch: they are stored once."""
        key = id(tensor), tensor._version
        if key not in self._known:
            self._known[key] = tensor, self._store.put(tensor)
        return self._known[key][1]

    def _after(self, module: nn.Module, args: Any, output: Any) -> Any:
        call = self.calls[-1][-1]
        if isinstance(output, Tensor | tuple):  # a view's place would be lost were it changed in place
            output = mapped(output, lambda tensor: tensor.clone() if tensor._is_view() else tensor)
        given = list(tensors_of(output))
        call.edges = [get_gradient_edge(tensor) if tensor.requires_grad else None for tensor in given]
        if len(self.calls) == 1:
            call.given = [self._store.put(tensor) for tensor in given]
        return output

    def keep(self, gradients: Iterator[Tensor | None]) -> None:
        """Keep the next gradients [a ...], one for each tensor that the block gave in this batch."""
        for call in self.calls[-1]:
            received = [next(gradients) for _ in call.edges]
            call.gradients = [
                None if gradient is None else self._store.put(gradient) for gradient in received
            ]
            call.edges = []  # which hold the whole graph

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors in what a module gives, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_of(item)
    elif isinstance(value, dict):
        yield from tensors_of(list(value.values()))


def mapped(value: Any, swap: Callable[[Any], Any], kind: type = Tensor) -> Any:
    """The same value with each of a kind swapped, in tuples, lists and dicts too."""
    if isinstance(value, kind):
        return swap(value)
    if isinstance(value, tuple | list):
        return type(value)(mapped(item, swap, kind) for item in value)
    if isinstance(value, dict):
        return {name: mapped(item, swap, kind) for name, item in value.items()}
    return value


def run_again(module: nn.Module, call: Call, store: Store) -> list[Tensor]:
    """Run a block again on the stored inputs, with gradients; returns its outputs."""
    args, kwargs = (mapped(value, store.get, StoredTensor) for value in (call.args, call.kwargs))
    with torch.enable_grad():
        return list(tensors_of(module(*args, **kwargs)))


def is_alike(catcher: Catcher, store: Store) -> bool:
    """Whether a block alone repeats its outputs in the model, so depends on nothing but its arguments."""
    for call in list(catcher.calls[0]):
        given, again = [store.get(tensor) for tensor in call.given], run_again(catcher.module, call, store)
        if [tensor.shape for tensor in given] != [tensor.shape for tensor in again]:
            return False
        for tensor, other in zip(given, again, strict=True):
            scale = tensor.float().abs().max().clamp(min=1e-12)
            if not bool((tensor.float() - other.detach().float()).abs().max() <= ALIKE * scale):
                return False
    return True
