"""What a fine-tune takes of memory, held against what it was seen to take."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import hypothesis
import hypothesis.strategies as some
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoprune.evaluation.training_memory import MARGIN, TrainingMemory, free_bytes, training_memory
from autoprune.models.outputs import answered, outputs_of
from tests.support.families import Case, make_case


class Peak(TorchDispatchMode):
    """The most bytes of tensors that were alive at once, those from before not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {
            tensor.untyped_storage()._cdata for tensor in tree_leaves(args) if isinstance(tensor, Tensor)
        }
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), known)
        return out

    def _count(self, storage: Any, known: set[int]) -> None:
        if storage._cdata in known or storage._cdata in self._alive:
            return
        key, size = storage._cdata, storage.nbytes()
        self._alive.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


def step_(case: Case, model: nn.Module, optimizer: torch.optim.Optimizer, rows: list[int]) -> None:
    task = case.tiny.task
    inputs = {name: torch.from_numpy(x) for name, x in task.batch(task.train, rows).items()}
    places = task.answered(task.train, rows)
    answered(outputs_of(model, inputs, task.kind), places).float().log_softmax(-1).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", ["bert", "resnet", "gpt2"])
@pytest.mark.parametrize("count", [1, 8, 32])
def test_what_a_step_takes_is_within_what_was_predicted(name: str, count: int, tmp_path: Any) -> None:
    case = make_case(name, tmp_path)
    model, task = copy.deepcopy(case.tiny.model).eval(), case.tiny.task
    predicted = training_memory(model, task, task.train)
    held = sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
    with Peak() as peak:
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(2):
            step_(case, model, optimizer, [int(task.train.lengths.argmax())] * count)
    took = held + peak.most
    assert took <= predicted.needed(count)
    assert predicted.needed(count) <= 3 * MARGIN * took


@hypothesis.given(
    some.integers(1, 10**9), some.integers(1, 10**8), some.integers(1, 256), some.integers(1, 10**11)
)
def test_each_part_of_a_batch_fits_and_fewer_would_not(fixed: int, row: int, rows: int, free: int) -> None:
    memory = TrainingMemory(fixed, row)
    parts = memory.parts(rows, free)
    if memory.needed(1) > free:  # row by row, which takes less than was predicted
        assert parts in (1, rows)
        return
    assert 1 <= parts <= rows
    assert memory.needed(-(-rows // parts)) <= free * 1.001 + 2
    if parts > 1:
        assert memory.needed(-(-rows // (parts - 1))) > free * 0.999 - 2
    assert memory.parts(rows, None) == 1


def test_the_memory_of_this_machine_is_known() -> None:
    free = free_bytes(torch.device("cpu"))
    assert free is not None
    assert free > 10**8
