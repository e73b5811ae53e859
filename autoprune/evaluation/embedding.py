"""A model's embedding of rows: one vector each, before its head.

Shapes: n rows, b rows of a batch, s tokens, d features.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.models.outputs import outputs_of
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.task import Data, Task


def embedded_rows(
    model: nn.Module, task: Task, data: Data, *, on_rows: Callable[[int], object] = lambda rows: None
) -> NDArray[np.float32]:
    """Vectors [n d] of all rows of a split, in their order.

    Of text the mean of the last hidden states over a row's tokens; of other inputs, and of models that have
    no such states, what the last linear layer is given; without one the model's answers.

    Args:
        on_rows: is told how many more rows are done.
    """
    out: NDArray[np.float32] | None = None
    with torch.inference_mode():
        for rows, batch in task.sorted_batches(data, task.evaluation_batch):
            inputs = {name: torch.from_numpy(values) for name, values in batch.items()}
            vectors = _vectors(model, inputs, task.kind).float().numpy()
            if out is None:
                out = np.empty((len(data), vectors.shape[1]), np.float32)
            out[rows] = vectors
            on_rows(len(rows))
    if out is None:
        raise ValueError("no rows to embed")
    return out


def _vectors(model: nn.Module, inputs: Mapping[str, Tensor], kind: TaskKind) -> Float[Tensor, "b d"]:
    body: Any = getattr(model, "base_model", None)
    mask = inputs.get("attention_mask")
    if mask is not None and body is not None and body is not model:
        hidden = getattr(body(**inputs), "last_hidden_state", None)
        if hidden is not None:
            weights = mask[..., None].to(hidden.dtype)
            means: Tensor = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)
            return means
    with _last_input(model) as seen:
        answers = outputs_of(model, inputs, kind)
    vectors = seen[-1] if seen else answers
    return vectors.reshape(len(vectors), -1, vectors.shape[-1]).mean(1)


@contextlib.contextmanager
def _last_input(model: nn.Module) -> Iterator[list[Tensor]]:
    """What the linear layers of a model are given while it runs; the last one's is last."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[:] = [inputs[0].detach()]

    hooks = [
        module.register_forward_pre_hook(keep) for module in model.modules() if isinstance(module, nn.Linear)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
