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
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.compress.statistics import SPOTS
from autoprune.compress.stitch import Stitched
from autoprune.evaluation.layer_refit import LayerRefit
from autoprune.models.layer_io import has_channel_groups
from autoprune.models.outputs import outputs_of
from autoprune.models.walk import Walk, pausing
from autoprune.tasks.task import Data, Encoded, Task

ROWS = 2048
"""Most rows that go through. Uniform 2 bits of MiniLM, 0.0334 nats a row before: 0.0208 with half of them,
0.0185 with all."""

PLACES = 65_536
"""Tokens, or spots of pictures, from which no more rows are drawn."""

VALUES = 2**28
"""Most outputs of the widest layer for all rows, which are in memory at once (1 GiB)."""

WIDEST = 16_384
"""Outputs of a layer from which it is left as it is: a vocabulary's."""

TOGETHER = 32
"""Rows of a batch; those of like length go together."""

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
        data: training rows, of which `rows` are drawn, or as many as `ROWS`, `PLACES` and `VALUES` allow.
        step_room: entered for each batch at each layer; lets another process of the machine time in peace.
    """
    paths = _paths(stitched, teacher, task, data)
    widest = max((len(teacher.get_submodule(path).weight) for path in paths), default=1)  # type: ignore[arg-type]
    batches = _batches(data, min(rows, ROWS), min(PLACES, VALUES // widest), seed)
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
            layer: LayerRefit | None = None
            for path in paths:
                layer = LayerRefit.of(stitched, path, after=layer)
                for (ahead, behind), chosen in zip(pairs, batches, strict=True):
                    with step_room(), torch.no_grad():
                        layer.add(_at(path, behind), _at(path, ahead), _lengths(data, chosen))
                with step_room(), torch.no_grad():
                    floats[path], weight = layer.settle(stored.get(path))
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


def _batches(data: Data, rows: int, most_places: int, seed: int) -> list[NDArray[np.int64]]:
    """Numbers of the rows that go through, at random, in batches of like length."""
    drawn = np.random.default_rng(seed).permutation(len(data))[:rows]
    places = data.lengths[drawn] if isinstance(data, Encoded) else np.full(len(drawn), SPOTS)
    drawn = drawn[: max(1, int(np.searchsorted(np.cumsum(places), most_places)))]
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
    """Whether a layer has one matrix for all inputs, of which anything is left, and is no vocabulary's."""
    if not isinstance(layer, nn.Linear | nn.Conv2d) or has_channel_groups(layer):
        return False
    return layer.weight.numel() > 0 and len(layer.weight) < WIDEST
