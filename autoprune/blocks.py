"""A model block by block: what each was given in one pass, so that it can be run again alone.

A block is a child of a ModuleList: a layer of a transformer. What it was given in a batch, and the gradient
at what it gave, are all that the gradients inside it depend on; both go to a file, not to memory.

Shapes: a directions, u tensors that a block gives, b rows of a batch.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from autoprune.errors import AutopruneError
from autoprune.units import Unit

ALIKE = 1e-3
"""Of a block's largest output: how far it may be from itself when run again alone."""


def block_of(model: nn.Module, unit: Unit) -> str:
    """Path of the smallest block that holds a whole unit; empty where there is none."""
    paths = [weight.path.split(".") for weight in unit.weights]
    if any(weight.tied for weight in unit.weights):
        return ""
    same = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    shared = [parts[0] for parts in same]
    for end in range(len(shared), 0, -1):
        if isinstance(model.get_submodule(".".join(shared[: end - 1])), nn.ModuleList):
            return ".".join(shared[:end])
    return ""


def by_block(model: nn.Module, units: Sequence[Unit]) -> dict[str, list[Unit]]:
    """Units of each block, in their order; those of none under the empty path."""
    found: dict[str, list[Unit]] = {}
    for unit in units:
        found.setdefault(block_of(model, unit), []).append(unit)
    return found


def shares(model: nn.Module, units: Sequence[Unit], count: int) -> list[tuple[Unit, ...]]:
    """Units dealt out to so many at most: blocks whole and in a row, each share with about the same work.

    Work is counted in weights, as their moments are what takes time; rows that are looked up take none.
    """
    blocks = list(by_block(model, units).values())
    work = [sum(_work(unit) for unit in block) for block in blocks]
    total, before = max(1, sum(work)), 0
    dealt: list[list[Unit]] = [[] for _ in range(count)]
    for block, size in zip(blocks, work, strict=True):
        middle = before + size / 2
        dealt[min(count - 1, int(count * middle / total))] += block
        before += size
    return [tuple(one) for one in dealt if one]


def _work(unit: Unit) -> int:
    return sum(one.rows * one.columns for one in unit.weights if one.tied or not one.is_embedding)


# ---- tensors in a file --------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """Where a tensor is in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


class Store:
    """Tensors in a temporary file without a name, which is gone with the process that made it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="autoprune-", buffering=0)  # noqa: SIM115  closed on exit
        self.size = 0

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, tensor: Tensor) -> Stored:
        """Keep a tensor as it is now.

        Raises:
            AutopruneError: when the disk is full.
        """
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        stored = Stored(self.size, tuple(tensor.shape), tensor.dtype)
        data = _bytes(flat)
        try:
            while len(data):
                written = os.pwrite(self._file.fileno(), data, self.size)
                self.size += written
                data = data[written:]
        except OSError as error:
            raise AutopruneError(
                f"no room for a model's hidden states, {self.size / 1e9:.1f} GB so far, in "
                f"{tempfile.gettempdir()}: {error}. Make room, or point TMPDIR at a larger disk"
            ) from error
        return stored

    def get(self, stored: Stored) -> Tensor:
        """A kept tensor, in new memory."""
        flat = torch.empty(stored.shape, dtype=stored.dtype)
        data = _bytes(flat)
        offset = stored.offset
        while len(data):
            read = os.preadv(self._file.fileno(), [data], offset)
            offset, data = offset + read, data[read:]
        return flat


def _bytes(tensor: Tensor) -> memoryview:
    """A contiguous tensor's memory."""
    if tensor.numel() == 0:
        return memoryview(b"")
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


# ---- what a block was given ---------------------------------------------------------------------


@dataclass
class Call:
    """One run of a block in a batch: what it was given, and the gradients at the u tensors that it gave.

    Tensors are in the store. given: those that it gave, kept of the first batch alone, to compare with.
    """

    args: Any
    kwargs: Any
    rows: int
    edges: list[GradientEdge | None] = field(default_factory=list)
    gradients: list[Stored | None] = field(default_factory=list)
    given: list[Stored] = field(default_factory=list)


Known = dict[tuple[int, int], tuple[Tensor, Stored]]
"""Tensors that are stored already, by identity and version; held, so that no other takes their identity."""


class Catcher:
    """Hooks on a block that keep what it is given, and where the gradients of what it gives are."""

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

    def _put(self, tensor: Tensor) -> Stored:
        """Masks and positions are the same for all blocks of a batch: they are stored once."""
        key = id(tensor), tensor._version
        if key not in self._known:
            self._known[key] = tensor, self._store.put(tensor)
        return self._known[key][1]

    def _after(self, module: nn.Module, args: Any, output: Any) -> Any:
        call = self.calls[-1][-1]
        if isinstance(output, Tensor | tuple):  # a view's place would be lost were it changed in place
            output = mapped(output, lambda one: one.clone() if one._is_view() else one)
        given = list(tensors_of(output))
        call.edges = [get_gradient_edge(one) if one.requires_grad else None for one in given]
        if len(self.calls) == 1:
            call.given = [self._store.put(one) for one in given]
        return output

    def keep(self, gradients: Iterator[Tensor | None]) -> None:
        """Keep the next gradients [a ...], one for each tensor that the block gave in this batch."""
        for call in self.calls[-1]:
            found = [next(gradients) for _ in call.edges]
            call.gradients = [None if one is None else self._store.put(one) for one in found]
            call.edges = []  # which hold the whole graph

    def remove(self) -> None:
        """Take the hooks away."""
        for one in self._handles:
            one.remove()


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors in what a module gives, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from tensors_of(one)
    elif isinstance(value, dict):
        yield from tensors_of(list(value.values()))


def mapped(value: Any, swap: Callable[[Any], Any], kind: type = Tensor) -> Any:
    """The same value with each of a kind swapped, in tuples, lists and dicts too."""
    if isinstance(value, kind):
        return swap(value)
    if isinstance(value, tuple | list):
        return type(value)(mapped(one, swap, kind) for one in value)
    if isinstance(value, dict):
        return {name: mapped(one, swap, kind) for name, one in value.items()}
    return value


def run_again(module: nn.Module, call: Call, store: Store) -> list[Tensor]:
    """What a block gives when it is given the same once more, with gradients."""
    args, kwargs = (mapped(one, store.get, Stored) for one in (call.args, call.kwargs))
    with torch.enable_grad():
        return list(tensors_of(module(*args, **kwargs)))


def is_alike(catcher: Catcher, store: Store) -> bool:
    """Whether a block gives alone what it gave in the model: whether it takes nothing but its arguments."""
    for call in list(catcher.calls[0]):
        given, again = [store.get(one) for one in call.given], run_again(catcher.module, call, store)
        if [one.shape for one in given] != [one.shape for one in again]:
            return False
        for one, other in zip(given, again, strict=True):
            scale = one.float().abs().max().clamp(min=1e-12)
            if not bool((one.float() - other.detach().float()).abs().max() <= ALIKE * scale):
                return False
    return True
