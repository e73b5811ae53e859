"""One pass over calibration batches: what each weight sees, and how much its output matters.

Shapes: o output features, i input features, n calibration rows, v rows of an embedding, b rows of a batch.
Rounding and removal are compensated under the second moment of the input (C); rows to remove are
chosen under that and g, the second moment of the loss gradient at the output: the Fisher information
with independent tokens and a diagonal output side (K-FAC: Martens & Grosse, arXiv 1503.05671, section
3), with labels drawn from the teacher's own distribution, as the true Fisher information asks. What a
variant harms is measured by `sensitivity`, which takes no token as independent of another.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.models.layer_io import channel_range, has_channel_groups, inputs_of, matrix_of
from autoprune.models.layer_io import output_matrix as layer_outputs
from autoprune.models.outputs import answered, outputs_of
from autoprune.tasks.task import Data, Encoded, Task


@dataclass(frozen=True)
class Statistics:
    """What one weight saw.

    moment: mean of x x^T over tokens [i i]; for an embedding, the mean count of each of its rows
    in a calibration row [v], of a token in a row of all data; empty for a depthwise convolution.
    mean: mean input [i]; empty for an embedding. gradient: mean square of the loss gradient at each
    output feature [o]. uses: tokens, or spots of a picture, that pass the weight per row. low, high:
    smallest and largest input of each feature [i]; empty for an embedding. fisher: of an embedding the
    second moment of the loss gradient at its output [d d], under which an error in a row does its harm.
    contributions: of each input feature in each calibration row the loss gradient times what it adds to the
    output, summed over tokens: the gradient times the weights of its column [n i]; empty where not asked for.
    gates: of the first weight that reads a unit's pieces what gates have learned of each piece [c]; likewise.
    """

    moment: Float[Tensor, ...]
    mean: Float[Tensor, " i"]
    gradient: Float[Tensor, " o"]
    uses: float
    low: Float[Tensor, " i"] = field(default_factory=lambda: torch.empty(0))
    high: Float[Tensor, " i"] = field(default_factory=lambda: torch.empty(0))
    fisher: Float[Tensor, "d d"] = field(default_factory=lambda: torch.empty(0, 0))
    contributions: Float[Tensor, "n i"] = field(default_factory=lambda: torch.empty(0, 0))
    gates: Float[Tensor, " c"] = field(default_factory=lambda: torch.empty(0))

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The same as arrays by name, on the tensors' memory."""
        arrays = {
            "moment": self.moment.numpy(),
            "mean": self.mean.numpy(),
            "gradient": self.gradient.numpy(),
            "uses": np.asarray(self.uses, np.float32),
            "low": self.low.numpy(),
            "high": self.high.numpy(),
            "fisher": self.fisher.numpy(),
        }
        asked = {"contributions": self.contributions, "gates": self.gates}
        return arrays | {name: tensor.numpy() for name, tensor in asked.items() if tensor.numel()}

    def of_columns(self, columns: Int[Tensor, " k"]) -> Statistics:
        """Of a weight that has these columns alone."""
        return replace(
            self,
            moment=self.moment[columns][:, columns],
            mean=self.mean[columns],
            low=self.low[columns],
            high=self.high[columns],
        )

    def of_channels(self, channels: Int[Tensor, " k"], taps: int) -> Statistics:
        """Of a depthwise convolution that has these channels alone."""
        at = (channels[:, None] * taps + torch.arange(taps)).reshape(-1)
        return replace(self, mean=self.mean[at], low=self.low[at], high=self.high[at])

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> Statistics:
        """Inverse of `arrays`; the tensors share the arrays' memory."""
        moment, mean, gradient, low, high = (
            torch.from_numpy(arrays[k]) for k in ("moment", "mean", "gradient", "low", "high")
        )
        fisher, contributions = (
            torch.from_numpy(arrays[k]) if k in arrays else torch.empty(0, 0)
            for k in ("fisher", "contributions")
        )
        gates = torch.from_numpy(arrays["gates"]) if "gates" in arrays else torch.empty(0)
        return cls(moment, mean, gradient, float(arrays["uses"]), low, high, fisher, contributions, gates)


def calibrate(
    model: nn.Module,
    paths: Sequence[str],
    task: Task,
    data: Data,
    *,
    rows: int,
    seed: int,
    tied: Mapping[str, str] | None = None,
    contributions: AbstractSet[str] = frozenset(),
) -> dict[str, Statistics]:
    """Statistics of the weights at `paths` over the first `rows` rows of shuffled `data`.

    Rows of equal length go together, so no padding is ever counted. The model is left as it was.

    Args:
        tied: for an embedding that is an output layer's weight too that layer's path; its inputs count.
        contributions: paths of products whose `Statistics.contributions` are recorded too.
    """
    at = {path: (tied or {}).get(path) or path for path in paths}
    recorders = {
        path: _Recorder(model.get_submodule(where), by_row=path in contributions)
        for path, where in at.items()
    }
    was_training = model.training
    model.eval()
    chosen = np.random.default_rng(seed).permutation(len(data))[:rows]
    draws = torch.Generator().manual_seed(seed)
    try:
        for batch_rows in _equal_lengths(data, chosen, task.evaluation_batch):
            inputs = {k: torch.from_numpy(x) for k, x in task.batch(data, batch_rows).items()}
            if isinstance(data, Encoded):
                length = int(data.lengths[batch_rows[0]])
                inputs = {k: x[:, :length] for k, x in inputs.items()}
            for recorder in recorders.values():
                recorder.begin(len(batch_rows))
            answers = answered(outputs_of(model, inputs, task.kind), task.answered(data, batch_rows))
            _surprise(answers, draws, is_probable=task.is_probable).backward()  # type: ignore[no-untyped-call]
            model.zero_grad(set_to_none=True)
    finally:
        for recorder in recorders.values():
            recorder.remove()
        model.train(was_training)
    found = {path: recorder.statistics(len(chosen)) for path, recorder in recorders.items()}
    if not isinstance(data, Encoded):
        return found
    counts = {path: recorder.moment for path, recorder in recorders.items() if recorder.is_embedding}
    return found | _of_every_row(found, counts, data, chosen)


def _of_every_row(
    found: Mapping[str, Statistics], counts: Mapping[str, Tensor], data: Encoded, chosen: NDArray[np.int64]
) -> dict[str, Statistics]:
    """Statistics of the embeddings that tokens were looked up in, with counts of all rows of `data`.

    Which tokens are rare a few rows cannot tell, and all of them are counted in no time.
    """
    some, every = (torch.from_numpy(one.ids).long() for one in (data.pick(chosen), data))
    out = {}
    for path, seen in counts.items():
        size = len(seen)
        if int(every.max()) < size and torch.equal(seen, torch.bincount(some, minlength=size).to(seen)):
            whole = torch.bincount(every, minlength=size).to(seen)
            out[path] = replace(found[path], moment=whole / len(data))
    return out


def _surprise(
    answers: Float[Tensor, "m k"], draws: torch.Generator, *, is_probable: bool
) -> Float[Tensor, ""]:
    """A loss whose gradient's second moment is the Fisher information of the answers' distribution.

    Of probabilities the cross-entropy of labels drawn from them; of others a draw of the normal distribution
    about them, in units of its spread, whose size is of no account here.
    """
    if is_probable:
        labels = torch.multinomial(answers.detach().softmax(-1), 1, generator=draws)[:, 0]
        return nn.functional.cross_entropy(answers, labels, reduction="sum")
    return (answers * torch.randn(answers.shape, generator=draws)).sum()


def _equal_lengths(data: Data, rows: NDArray[np.int64], size: int) -> Iterable[NDArray[np.int64]]:
    lengths = data.lengths[rows]
    for length in np.unique(lengths):
        same = rows[lengths == length]
        for start in range(0, len(same), size):
            yield same[start : start + size]


SPOTS = 64
"""Spots of a picture whose inputs are counted, spread evenly: neighbours are much alike."""


class _Recorder:
    """Hooks on one layer that add up its input and output-gradient moments.

    by_row: whether contributions of input features are kept, row by row.
    """

    def __init__(self, module: nn.Module, *, by_row: bool = False) -> None:
        self.is_embedding = isinstance(module, nn.Embedding)
        self.is_depthwise = has_channel_groups(module)
        weight: Tensor = module.weight  # type: ignore[assignment]
        size = weight.shape[0] if self.is_embedding else weight[0].numel()
        columns = weight.numel() if self.is_depthwise else 0 if self.is_embedding else size
        square = 0 if self.is_depthwise else size
        self.moment = torch.zeros(size) if self.is_embedding else torch.zeros(square, square)
        self.mean = torch.zeros(columns)
        self.gradient = torch.zeros(weight.shape[1] if self.is_embedding else weight.shape[0])
        features = weight.shape[1] if self.is_embedding else 0
        self.fisher = torch.zeros(features, features)
        self.uses, self.counted = 0, 0
        self.low = torch.full_like(self.mean, torch.inf)
        self.high = torch.full_like(self.mean, -torch.inf)
        self._by_row = by_row
        self._contributions: list[Tensor] = []
        self._handle = module.register_forward_hook(self._forward)

    def begin(self, rows: int) -> None:
        """The next batch has so many rows."""
        if self._by_row:
            self._contributions.append(torch.zeros(rows, len(self.mean)))

    def _forward(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        x = args[0].detach()
        kept = x if self._by_row else None
        output.register_hook(functools.partial(self._backward, module, kept))  # type: ignore[no-untyped-call]
        if self.is_embedding:
            self.moment += torch.bincount(x.reshape(-1), minlength=len(self.moment))
            self.uses += x.numel()
            self.counted = self.uses
            return
        low, high = channel_range(module, x)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        rows = inputs_of(module, x, output)
        self.uses += rows.shape[0] * rows.shape[1]
        if isinstance(module, nn.Conv2d) and rows.shape[1] > SPOTS:
            rows = rows[:, torch.linspace(0, rows.shape[1] - 1, SPOTS).long()]
        rows = rows.reshape(-1, rows.shape[-1])
        if not self.is_depthwise:
            self.moment += rows.T @ rows
        self.mean += rows.sum(0)
        self.counted += len(rows)

    def _backward(self, module: nn.Module, x: Tensor | None, gradient: Tensor) -> None:
        # Returns None: a hook's return value would replace the gradient.
        rows = layer_outputs(module, gradient)
        if x is not None:
            added = ((rows @ matrix_of(module)) * inputs_of(module, x, gradient)).sum(1)
            batch = self._contributions[-1]  # windows of a picture are laid end to end
            batch += added.reshape(len(batch), -1, added.shape[1]).sum(1)
        rows = rows.reshape(-1, rows.shape[-1])
        self.gradient += rows.square().sum(0)
        if self.is_embedding:
            self.fisher += rows.T @ rows

    def statistics(self, rows: int) -> Statistics:
        """Means of what was added up; a module never reached counts as used once."""
        uses, counted = max(self.uses, 1), max(self.counted, 1)
        moment = self.moment / (rows if self.is_embedding else counted)
        each = uses / max(rows, 1)
        fisher, gradient = self.fisher / uses, self.gradient / uses
        by_row = torch.cat(self._contributions) if self._contributions else torch.empty(0, 0)
        return Statistics(moment, self.mean / counted, gradient, each, self.low, self.high, fisher, by_row)

    def remove(self) -> None:
        self._handle.remove()
