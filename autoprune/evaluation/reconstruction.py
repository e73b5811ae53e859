"""Layer-wise reconstruction: each layer of a compressed model refitted to its own inputs.

The library refits and rounds a layer as if all others were the teacher's. In a candidate they are not: what
comes in is off, and the more so the deeper the layer. Here the candidate and the teacher go through the same
rows layer by layer. Each layer's weight is moved towards the teacher's output at the candidate's own input,
by ridge regression around the weight there was, and rounded with its error compensated under these inputs;
then all rows go on to the next layer. No gradients, one pass.

After GPTAQ (Li et al., arXiv 2504.02692), which rounds so; of pruned weights it is the refit of Kwon et al.
(arXiv 2204.09656, section 4.3) for whole matrices instead of masks. Figures:
docs/decisions/026-layer-wise-reconstruction.md.

Shapes: o output features, i input features of a weight as a matrix, n tokens or spots of pictures.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.compress.activations import RoundedInput
from autoprune.compress.gptq import round_compensated
from autoprune.compress.integers import Integers
from autoprune.compress.statistics import SPOTS
from autoprune.compress.stitch import Stitched
from autoprune.compress.stored import HalfFloats
from autoprune.models.layer_io import has_channel_groups, inputs_of, matrix_of, output_matrix
from autoprune.models.outputs import outputs_of
from autoprune.models.walk import Walk, pausing
from autoprune.tasks.task import Data, Encoded, Task

ROWS = 1024
"""Most rows that go through."""

PLACES = 32_768
"""Tokens, or spots of pictures, from which no more rows are drawn."""

TOGETHER = 32
"""Rows of a batch; those of like length go together."""

RIDGE = 0.1
"""Of the mean of the input's variances: how strongly a weight is held to what it was. A tenth of it left more
divergence, and so did three times as much."""

StepRoom = Callable[[], contextlib.AbstractContextManager[object]]


def reconstruct_(
    stitched: Stitched,
    teacher: nn.Module,
    task: Task,
    data: Data,
    *,
    rows: int,
    seed: int,
    step_room: StepRoom = contextlib.nullcontext,
) -> Stitched:
    """The stitched model with each compressed layer refitted to its inputs, in place.

    Args:
        teacher: on the same device as `stitched.model`; left as it is.
        data: training rows, of which `rows` are drawn, or as many as `ROWS` and `PLACES` allow.
        step_room: entered for each batch at each layer; lets another process of the machine time in peace.
    """
    batches = _batches(data, min(rows, ROWS), seed)
    paths = _paths(stitched, teacher, task, data)
    stored, floats = dict(stitched.stored), dict(stitched.floats)
    run = functools.partial(_run, task=task, data=data)
    with pausing(teacher, paths, before=False), pausing(stitched.model, paths, before=True):
        pairs = [
            (
                Walk(functools.partial(run, teacher, chosen)),
                Walk(functools.partial(run, stitched.model, chosen)),
            )
            for chosen in batches
        ]
        try:
            layer: _Layer | None = None
            for path in paths:
                layer = _Layer.of(stitched, path, after=layer)
                for (ahead, behind), chosen in zip(pairs, batches, strict=True):
                    with step_room(), torch.no_grad():
                        layer.add(_at(path, behind), _at(path, ahead), _lengths(data, chosen))
                with step_room(), torch.no_grad():
                    floats[path] = layer.refitted()
                    weight = layer.rounded(floats[path], stored.get(path))
                    if weight is not None:
                        stored[path] = weight
        finally:
            for pair in pairs:
                for walk in pair:
                    walk.close()
    return replace(stitched, stored=stored, floats=floats)


def _run(model: nn.Module, rows: NDArray[np.int64], *, task: Task, data: Data) -> None:
    where = next(model.parameters()).device
    inputs = {name: torch.from_numpy(x).to(where) for name, x in task.batch(data, rows).items()}
    outputs_of(model, inputs, task.kind)


def _at(path: str, walk: Walk) -> Tensor:
    """The tensor at a layer that the walk comes to; layers before it are passed."""
    while (pause := walk.advance()) is not None:
        if pause.path == path:
            return pause.tensor
    raise RuntimeError(f"the model does not come to {path}")


def _batches(data: Data, rows: int, seed: int) -> list[NDArray[np.int64]]:
    """Numbers of the rows that go through, at random, in batches of like length."""
    drawn = np.random.default_rng(seed).permutation(len(data))[:rows]
    places = data.lengths[drawn] if isinstance(data, Encoded) else np.full(len(drawn), SPOTS)
    drawn = drawn[: max(1, int(np.searchsorted(np.cumsum(places), PLACES)))]
    ordered = drawn[np.argsort(data.lengths[drawn], kind="stable")]
    return [ordered[start : start + TOGETHER] for start in range(0, len(ordered), TOGETHER)]


def _lengths(data: Data, rows: NDArray[np.int64]) -> Tensor | None:
    """Tokens of each row; None where rows have none."""
    return torch.from_numpy(data.lengths[rows]) if isinstance(data, Encoded) else None


def _paths(stitched: Stitched, teacher: nn.Module, task: Task, data: Data) -> list[str]:
    """Layers that are compressed and are used once in a pass, in the order of their use."""
    wanted = [path for path in stitched.touched if _is_refittable(stitched.model.get_submodule(path))]
    uses: list[Counter[str]] = []
    order: list[str] = []
    with pausing(stitched.model, wanted, before=True), pausing(teacher, wanted, before=False):
        for model in (teacher, stitched.model):
            walk = Walk(functools.partial(_run, model, np.arange(1), task=task, data=data))
            order = []
            while (pause := walk.advance()) is not None:
                order.append(pause.path)
            uses.append(Counter(order))
    return [path for path in order if all(used[path] == 1 for used in uses)]


def _is_refittable(layer: nn.Module) -> bool:
    """Whether a layer has one matrix for all its inputs, of which anything is left."""
    if not isinstance(layer, nn.Linear | nn.Conv2d) or has_channel_groups(layer):
        return False
    return layer.weight.numel() > 0


@dataclass
class _Layer:
    """A layer with the moments of what was seen: of its input and of the teacher's output less its own.

    rows: those of the teacher's output that it still has, None for all. inputs: of each batch, as they came.
    after: the layer before, whose moments are taken where its inputs were the same: those of query, key and
    value are.
    """

    module: nn.Module
    weight: Float[Tensor, "o i"]
    rows: Tensor | None
    after: _Layer | None
    inputs: list[Tensor] = field(default_factory=list)
    count: int = 0
    moments: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, stitched: Stitched, path: str, *, after: _Layer | None) -> _Layer:
        module = stitched.model.get_submodule(path)
        weight = stitched.floats.get(path)
        weight = (matrix_of(module) if weight is None else weight).to(module.weight.device)  # type: ignore[arg-type]
        if after is not None:
            after.after = None
        return cls(module, weight.float(), stitched.rows.get(path), after)

    def add(self, x: Tensor, wanted: Tensor, lengths: Tensor | None) -> None:
        """Count a batch: the layer's input, and the teacher's output there."""
        is_shared = self._shares(x)
        self.inputs.append(x)
        y = output_matrix(self.module, wanted)
        x = inputs_of(self.module, x, wanted)
        if isinstance(self.module, nn.Conv2d) and x.shape[1] > SPOTS:
            spots = torch.linspace(0, x.shape[1] - 1, SPOTS).long()
            x, y = x[:, spots], y[:, spots]
        x, y = _without_padding(x, lengths), _without_padding(y, lengths)
        if isinstance(self.module, RoundedInput):
            x = self.module.activations.round(x)
        if self.rows is not None:
            y = y[:, self.rows]
        off = y - x @ self.weight.T
        self.count += len(x)
        new = {"off_x": off.T @ x, "off": off.sum(0)}
        if is_shared and self.after is not None:
            self.moments |= {name: self.after.moments[name] for name in ("xx", "x")}
        else:
            new |= {"xx": x.T @ x, "x": x.sum(0)}
        for name, value in new.items():
            self.moments[name] = self.moments[name] + value if name in self.moments else value

    def _shares(self, x: Tensor) -> bool:
        """Whether the layer before had the same input in this batch, and multiplied it as it was."""
        if self.after is None or not all(type(layer.module) is nn.Linear for layer in (self, self.after)):
            return False
        batch = len(self.inputs)
        return batch < len(self.after.inputs) and self.after.inputs[batch] is x

    @property
    def moment(self) -> Float[Tensor, "i i"]:
        """Second moment of the input."""
        return self.moments["xx"] / self.count

    def refitted(self) -> Float[Tensor, "o i"]:
        """The weight of least squared error, by ridge regression around what it was."""
        moment, cross = self.moment, self.moments["off_x"] / self.count
        if self._bias() is not None:
            mean, off = self.moments["x"] / self.count, self.moments["off"] / self.count
            moment, cross = moment - torch.outer(mean, mean), cross - torch.outer(off, mean)
        spread = float(moment.diagonal().mean())
        moment = moment.clone()
        moment.diagonal().add_(RIDGE * spread + 1e-8)
        factor, failed = torch.linalg.cholesky_ex(moment)
        if int(failed):
            return self.weight
        return self.weight + torch.cholesky_solve(cross.T, factor).T

    def rounded(self, weight: Float[Tensor, "o i"], stored: object) -> Integers | HalfFloats | None:
        """The weight in the layer's storage, None for float32; the layer computes with it from now on."""
        kept: Integers | HalfFloats | None = None
        if isinstance(stored, Integers):
            [kept] = round_compensated(
                weight,
                self.moment,
                bits=[stored.bits],
                group_size=stored.group_size,
                symmetric=stored.is_symmetric,
            )
        elif stored is not None:
            kept = HalfFloats(weight)
        value = weight if kept is None else kept.dequantize()
        parameter: nn.Parameter = self.module.weight  # type: ignore[assignment]
        parameter.data = value.reshape(parameter.shape).to(parameter)
        bias = self._bias()
        if bias is not None:
            mean = self.moments["x"] / self.count
            # Neither refit nor rounding moves the output's mean from the teacher's.
            bias.data = self.moments["off"] / self.count + (self.weight - value) @ mean
        return kept

    def _bias(self) -> nn.Parameter | None:
        return getattr(self.module, "bias", None)


def _without_padding(x: Float[Tensor, "b t i"], lengths: Tensor | None) -> Float[Tensor, "n i"]:
    """Rows of all tokens laid end to end, padding left out; all rows where they are not one a token."""
    if lengths is None or x.shape[0] * x.shape[1] % len(lengths):
        return x.flatten(0, 1)
    apart = x.reshape(len(lengths), -1, x.shape[-1])
    if apart.shape[1] < int(lengths.max()):
        return apart.flatten(0, 1)
    return apart[torch.arange(apart.shape[1]) < lengths[:, None]]
