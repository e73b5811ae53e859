"""Gates on the pieces of units, learned while the weights stay as they are: which pieces the answers need.

Shapes: c pieces of a unit; b rows of a batch, k answers of a row.
A gate lies between a piece and the weights that read it. It is drawn anew at each step from the hard concrete
distribution, which is 0 or 1 with some probability (Louizos et al., arXiv 1712.01312, section 2.3; of
structured pieces: CoFi, Xia et al., arXiv 2204.00408); one that is 0 hands on the piece's mean, which a
refitted bias takes over. In place of a penalty and its multipliers the expected share of closed gates is
set: at each step every unit draws one, and its gates are shifted together until they have it, so that only
their order is learned, for all shares at once. A step is as long as the gradient of a gate is beside those
of its unit: one that followed each gate's own spread (Adam) would learn a gate that hardly matters as fast
as one that does.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from autoprune.models.outputs import answered, outputs_of
from autoprune.models.unit import Unit
from autoprune.tasks.task import Data, Encoded, Task

STEPS, ROWS = 160, 16
"""Steps of learning, and rows of each."""

_TEMPERATURE, _LOW, _HIGH = 2 / 3, -0.1, 1.1
_SHIFT = _TEMPERATURE * math.log(-_LOW / _HIGH)
_LEARNING_RATE = 0.2
_TINY = 1e-30
_LEAST = 1e-6  # of a number that is drawn between 0 and 1
_HALVINGS = 40


def learn_gates(
    model: nn.Module,
    units: Sequence[Unit],
    task: Task,
    data: Data,
    means: Mapping[str, Float[Tensor, " i"]],
    *,
    seed: int,
    steps: int = STEPS,
    on_step: Callable[[int], object] = lambda _: None,
) -> dict[str, Float[Tensor, " c"]]:
    """By unit, how much each piece is worth to the model's own answers to rows of `data`; larger is more.

    means: of the inputs of each weight that reads pieces, by its path (`Statistics.mean`).
    The model is left as it was. It takes `steps` passes forward and backward and as many forward, of 16 rows.
    """
    wanted = {unit.name: torch.zeros(unit.pieces, requires_grad=True) for unit in units}
    squares = dict.fromkeys(wanted, 0.0)
    draws, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    drawn: dict[str, Tensor] = {}
    with _frozen(model), _gated(model, units, means, drawn):
        for step in range(steps):
            rows = np.sort(rng.permutation(len(data))[:ROWS])
            inputs = {k: torch.from_numpy(x) for k, x in task.batch(data, rows).items()}
            if isinstance(data, Encoded):
                inputs = {k: x[:, : int(data.lengths[rows].max())] for k, x in inputs.items()}
            places = task.answered(data, rows)
            drawn.clear()
            with torch.no_grad():
                before = answered(outputs_of(model, inputs, task.kind), places)
            for unit in units:
                share = float(rng.uniform(0.0, max(unit.ratios)))
                drawn[unit.name] = _draw(with_closed(wanted[unit.name], share), draws)
            after = answered(outputs_of(model, inputs, task.kind), places)
            distance = _distance(after, before, is_probable=task.is_probable)
            gradients = torch.autograd.grad(distance, list(wanted.values()))
            for (name, gates), gradient in zip(wanted.items(), gradients, strict=True):
                squares[name] += float(gradient.square().mean())
                size = math.sqrt(squares[name] / (step + 1))
                with torch.no_grad():
                    gates -= _LEARNING_RATE * gradient / max(size, _TINY)
            on_step(step + 1)
    return {name: gates.detach().clone() for name, gates in wanted.items()}


def with_closed(gates: Float[Tensor, " c"], share: float) -> Float[Tensor, " c"]:
    """The gates, shifted together so that this share of them, between 0 and 1, is expected to be closed."""
    low, high = -float(gates.detach().abs().max()) - 30.0, float(gates.detach().abs().max()) + 30.0
    for _ in range(_HALVINGS):
        shift = (low + high) / 2
        closed = 1 - float(_open(gates.detach() + shift).mean())
        low, high = (shift, high) if closed > share else (low, shift)
    return gates + (low + high) / 2


def _open(gates: Float[Tensor, " c"]) -> Float[Tensor, " c"]:
    """With what probability each gate is not 0."""
    return torch.sigmoid(gates - _SHIFT)


def _draw(gates: Float[Tensor, " c"], draws: torch.Generator) -> Float[Tensor, " c"]:
    """A draw of each gate, between 0 and 1, that its gradient passes through."""
    uniform = torch.rand(gates.shape, generator=draws).clamp(_LEAST, 1 - _LEAST)
    smooth = torch.sigmoid((uniform.log() - (1 - uniform).log() + gates) / _TEMPERATURE)
    return (smooth * (_HIGH - _LOW) + _LOW).clamp(0.0, 1.0)


def _distance(after: Tensor, before: Tensor, *, is_probable: bool) -> Float[Tensor, ""]:
    """Divergence of the answers in nats a row; of others than probabilities the error as a share of them."""
    if is_probable:
        return nn.functional.kl_div(
            after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="batchmean"
        )
    return (after - before).square().sum() / before.square().sum().clamp(min=_LEAST)


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No weight learns, nothing is dropped out; afterwards all is as it was."""
    learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    was_training = model.training
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(learns[name])
        model.train(was_training)


@contextlib.contextmanager
def _gated(
    model: nn.Module, units: Sequence[Unit], means: Mapping[str, Tensor], drawn: Mapping[str, Tensor]
) -> Iterator[None]:
    """What reads a unit's pieces gets them through the gates in `drawn`, where the unit has any there."""

    def hook(unit: Unit, mean: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def times(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
            gates = drawn.get(unit.name)
            if gates is None:
                return None
            x = given[0]
            is_picture = isinstance(module, nn.Conv2d)
            features = x.shape[1] if is_picture else x.shape[-1]
            each = gates.repeat_interleave(features // len(gates))
            middle = mean.reshape(features, -1).mean(1)
            if is_picture:
                each, middle = each[:, None, None], middle[:, None, None]
            return (middle + (x - middle) * each, *given[1:])

        return times

    handles = [
        model.get_submodule(weight.path).register_forward_pre_hook(hook(unit, means[weight.path]))
        for unit in units
        for weight in unit.cols
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
