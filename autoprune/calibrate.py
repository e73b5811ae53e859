"""One pass over calibration batches: what each weight sees, and how much its output matters.

Shapes: o output features, i input features, n calibration rows, v rows of an embedding.
Rounding and removal are compensated under the second moment of the input (C); rows to remove are
chosen under that and g, the second moment of the loss gradient at the output: the Fisher information
with independent tokens and a diagonal output side (K-FAC: Martens & Grosse, arXiv 1503.05671, section
3), with labels drawn from the teacher's own distribution, as the true Fisher information asks. What a
variant harms is measured by `sensitivity`, which takes no token as independent of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.task import Encoded, Task


@dataclass(frozen=True)
class Statistics:
    """What one weight saw.

    moment: mean of x x^T over tokens [i i]; for an embedding, the mean count of each of its rows
    in a calibration row [v]. mean: mean input [i]; empty for an embedding. gradient: mean square
    of the loss gradient at each output feature [o]. uses: tokens that pass the weight per row.
    low, high: smallest and largest input of each feature [i]; empty for an embedding.
    """

    moment: Float[Tensor, ...]
    mean: Float[Tensor, " i"]
    gradient: Float[Tensor, " o"]
    uses: float
    low: Float[Tensor, " i"] = field(default_factory=lambda: torch.empty(0))
    high: Float[Tensor, " i"] = field(default_factory=lambda: torch.empty(0))

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The same as arrays by name, on the tensors' memory."""
        return {
            "moment": self.moment.numpy(),
            "mean": self.mean.numpy(),
            "gradient": self.gradient.numpy(),
            "uses": np.asarray(self.uses, np.float32),
            "low": self.low.numpy(),
            "high": self.high.numpy(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> Statistics:
        """Inverse of `arrays`; the tensors share the arrays' memory."""
        moment, mean, gradient, low, high = (
            torch.from_numpy(arrays[k]) for k in ("moment", "mean", "gradient", "low", "high")
        )
        return cls(moment, mean, gradient, float(arrays["uses"]), low, high)


def calibrate(
    model: nn.Module, paths: Sequence[str], task: Task, data: Encoded, *, rows: int, seed: int
) -> dict[str, Statistics]:
    """Statistics of the weights at `paths` over the first `rows` rows of shuffled `data`.

    Rows of equal length go together, so no padding is ever counted. The model is left as it was.
    """
    recorders = {path: _Recorder(model.get_submodule(path)) for path in paths}
    was_training = model.training
    model.eval()
    chosen = np.random.default_rng(seed).permutation(len(data))[:rows]
    draws = torch.Generator().manual_seed(seed)
    try:
        for batch_rows in _equal_lengths(data, chosen):
            inputs = {k: torch.from_numpy(x) for k, x in task.batch(data, batch_rows).items()}
            length = int(data.lengths[batch_rows[0]])
            logits = model(**{k: x[:, :length] for k, x in inputs.items()}).logits
            labels = torch.multinomial(logits.detach().softmax(-1), 1, generator=draws)[:, 0]
            nn.functional.cross_entropy(logits, labels, reduction="sum").backward()  # type: ignore[no-untyped-call]
            model.zero_grad(set_to_none=True)
    finally:
        for one in recorders.values():
            one.remove()
        model.train(was_training)
    return {path: one.statistics(len(chosen)) for path, one in recorders.items()}


def _equal_lengths(data: Encoded, rows: NDArray[np.int64]) -> Iterable[NDArray[np.int64]]:
    lengths = data.lengths[rows]
    for length in np.unique(lengths):
        same = rows[lengths == length]
        for start in range(0, len(same), 32):
            yield same[start : start + 32]


class _Recorder:
    """Hooks on one Linear or Embedding that add up its input and output-gradient moments."""

    def __init__(self, module: nn.Module) -> None:
        self.is_embedding = isinstance(module, nn.Embedding)
        weight: Tensor = module.weight  # type: ignore[assignment]
        size = weight.shape[0] if self.is_embedding else weight.shape[1]
        self.moment = torch.zeros(size) if self.is_embedding else torch.zeros(size, size)
        self.mean = torch.zeros(0 if self.is_embedding else size)
        self.gradient = torch.zeros(weight.shape[1] if self.is_embedding else weight.shape[0])
        self.uses = 0
        self.low = torch.full_like(self.mean, torch.inf)
        self.high = torch.full_like(self.mean, -torch.inf)
        self._handle = module.register_forward_hook(self._forward)

    def _forward(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        output.register_hook(self._backward)  # type: ignore[no-untyped-call]
        x = args[0].detach()
        if self.is_embedding:
            self.moment += torch.bincount(x.reshape(-1), minlength=len(self.moment))
            self.uses += x.numel()
            return
        x = x.reshape(-1, x.shape[-1])
        self.moment += x.T @ x
        self.mean += x.sum(0)
        self.low, self.high = torch.minimum(self.low, x.amin(0)), torch.maximum(self.high, x.amax(0))
        self.uses += len(x)

    def _backward(self, gradient: Tensor) -> None:
        # Returns None: a hook's return value would replace the gradient.
        self.gradient += gradient.reshape(-1, gradient.shape[-1]).square().sum(0)

    def statistics(self, rows: int) -> Statistics:
        """Means of what was added up; a module never reached counts as used once."""
        uses = max(self.uses, 1)
        moment = self.moment / (rows if self.is_embedding else uses)
        each = uses / max(rows, 1)
        return Statistics(moment, self.mean / uses, self.gradient / uses, each, self.low, self.high)

    def remove(self) -> None:
        self._handle.remove()
