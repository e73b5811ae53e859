"""The teacher without its layers: the mean of a text's token vectors, and a linear head.

As fastText (Joulin et al., arXiv 1607.01759), but for the table, which is the teacher's and stays as it is.
The head is distilled as trials are. A linear function of a mean is the mean of that function, so the head is
multiplied into the table: what is stored is one score of each token for each class, not its vector.

Shapes: v tokens, d numbers of a token's vector, k classes, n rows, t tokens of all rows, b s of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autoprune.compress.integers import Integers, round_nearest
from autoprune.evaluation.distillation import Targets, distillation_loss
from autoprune.evaluation.lines.line import HeldOut, LoadedLine, listed_numbers
from autoprune.evaluation.workbench import Workbench
from autoprune.models.split_embedding import Parted
from autoprune.tasks.task import Data, Encoded

DECAYS = (0.01, 0.03, 0.1, 0.3)
"""Weight decay of the head, on features of variance one; which of these is decided on validation."""

BITS, GROUP = 8, 64
"""How the scores are stored: bits of each, and how many have a scale in common."""

ITERATIONS = 100
"""Steps at most of L-BFGS (Liu and Nocedal, 1989): the loss is convex."""


def token_table(model: nn.Module) -> Float[Tensor, "v d"] | None:
    """A model's vectors of its tokens; None where it looks none up."""
    get = getattr(model, "get_input_embeddings", None)
    try:
        table: Any = None if get is None else get()
    except NotImplementedError:  # transformers, of models that are fed no tokens
        return None
    table = table.joined() if isinstance(table, Parted) else table
    return table.weight.detach().float() if isinstance(table, nn.Embedding) else None


@dataclass(frozen=True)
class LayerlessLine:
    """A line that reads the teacher's tokens."""

    @property
    def name(self) -> str:
        return "averaged token vectors"

    def fit(self, bench: Workbench, path: Path) -> str:
        """Distil a head with each weight decay, and keep what scores best on validation.

        Raises:
            ValueError: where the teacher looks no tokens up.
        """
        task, table = bench.task, token_table(bench.teacher)
        if table is None:
            raise ValueError("the teacher has no table of tokens")
        features, held_out = _means(table, task.train), _means(table, task.validation)
        every = np.arange(len(task.train))
        wanted = Targets.of(bench.setting.train_answers, every)
        labels = torch.from_numpy(task.labels(task.train, every))
        best: tuple[float, float, _Head] | None = None
        for decay in DECAYS:
            head = _Head.fitted(
                features, lambda answers: distillation_loss(answers, wanted, labels, task),
                decay=decay, classes=wanted.values.shape[1],
            )  # fmt: skip
            score = task.score(task.validation, (held_out @ head.weight + head.bias).numpy())
            if best is None or score > best[0]:
                best = score, decay, head
        assert best is not None
        _, decay, head = best
        _save(table @ head.weight, head.bias, path)
        return (
            "the mean of the vectors that the original has of a text\u2019s tokens, and a linear head, "
            f"multiplied into one; distilled on {len(every):,} rows with weight decay {decay:g} "
            f"({listed_numbers(DECAYS)} were tried), chosen on validation; stored in {BITS} bits"
        )

    def load(self, bench: Workbench, path: Path) -> LoadedScores:
        """The scores of tokens in a file."""
        return LoadedScores(load_file(path), bench)


class LoadedScores(LoadedLine):
    """Scores of tokens [v k], and their biases [k], from a file."""

    def __init__(self, file: dict[str, Tensor], bench: Workbench) -> None:
        stored = Integers(file["codes"], file["scale"], file["zero"], BITS)
        self._scores, self._bias = stored.dequantize().mT.contiguous(), file["bias"]
        self._bench, self._values = bench, self._scores.numpy()

    def score(self, split: HeldOut) -> float:
        task = self._bench.task
        data: Data = getattr(task, split)
        with self._bench.room.busy():
            return task.score(data, (_means(self._scores, data) + self._bias).numpy())

    def call(self) -> NDArray[np.float32]:
        batch = self._bench.timing_batch
        ids = batch["input_ids"]
        mask = batch.get("attention_mask", np.ones_like(ids))[..., None].astype(np.float32)
        means = (self._values[ids] * mask).sum(1) / mask.sum(1)
        return np.asarray(means + self._bias.numpy())


@dataclass(frozen=True)
class _Head:
    """A linear head: weight [d k] and bias [k]."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def fitted(cls, features: Float[Tensor, "n d"], loss: Any, *, decay: float, classes: int) -> _Head:
        """The head of least loss, which is a function of logits [n k], plus weight decay."""
        middle, spread = features.mean(0), features.std(0) + 1e-6
        scaled = (features - middle) / spread
        weight = torch.zeros(features.shape[1], classes, requires_grad=True)
        bias = torch.zeros(classes, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
        )

        def step() -> Tensor:
            optimizer.zero_grad()
            total: Tensor = loss(scaled @ weight + bias) + 0.5 * decay * weight.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimizer.step(step)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            whole = weight / spread[:, None]
            return cls(whole, bias - middle @ whole)


def _means(table: Float[Tensor, "v d"], data: Data) -> Float[Tensor, "n d"]:
    """The mean of the vectors of each row's tokens."""
    assert isinstance(data, Encoded)
    ids, starts = torch.from_numpy(data.ids).long(), torch.from_numpy(data.starts[:-1])
    return nn.functional.embedding_bag(ids, table, starts, mode="mean")


def _save(scores: Float[Tensor, "v k"], bias: Float[Tensor, " k"], path: Path) -> None:
    """Write scores, as integers, and biases to one file; with tokens that there are none of up to a group."""
    whole = nn.functional.pad(scores.mT, (0, -len(scores) % GROUP))
    stored = round_nearest(whole, bits=BITS, group_size=GROUP)
    save_file({**stored.tensors(), "bias": bias.contiguous()}, path)
