"""An output layer that shares its weight with an embedding: scores of a vocabulary's changes, in parts.

What each level adds to the whole vocabulary is as large as the model's largest matrix, and so are a row's
moments with it. So the layer's inputs and gradients of all batches are kept in a file, and each level's
tokens are made once, for all batches together.

Shapes: a directions, b rows of a batch, s places of a row, v d an embedding's, c some of its tokens,
p = c d, l levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from autoprune.sensitivity.recorder import Recorder, Scores, added
from autoprune.sensitivity.tensor_file import Store, StoredTensor
from autoprune.sensitivity.weight_changes import Lookup

MOMENT_BYTES = 2**28
"""Most memory that the moments of some tokens, and their changes, may take."""


@dataclass(frozen=True)
class _Kept:
    """One use in one batch: its number, the input, and gradients some tokens at a time.

    They are half floats, in units of the largest: what that loses is random, and a thousandth of what a
    direction's signs leave to chance.
    """

    batch: int
    x: Float[Tensor, "b s d"]
    gradients: list[StoredTensor]
    unit: float


class Head:
    """Records of one such layer, and the scores that follow from them."""

    def __init__(self, path: str, recorder: Recorder, change: Lookup, store: Store) -> None:
        self.path, self.change = path, change
        self._recorder, self._store = recorder, store
        self._kept: list[_Kept] = []
        self._batches, self._columns = 0, 1

    def keep(self, gradients: Sequence[Float[Tensor, "a b *s v"] | None]) -> None:
        """Keep the last batch's inputs, and the gradients at the outputs of its uses."""
        for use, gradient in zip(self._recorder.uses, gradients, strict=True):
            if gradient is None:
                continue
            x, apart = self._recorder.by_row(use.input, gradient)
            if not self._kept:
                self._columns = self._tokens(apart.shape[0] * apart.shape[1])
            unit = max(float(apart.abs().max()), 1e-30)
            parts = [self._store.put((part / unit).half()) for part in torch.split(apart, self._columns, -1)]
            self._kept.append(_Kept(self._batches, x.clone(), parts, unit))
        self._batches += 1

    def _tokens(self, moments: int) -> int:
        """Rows of the vocabulary that are scored at a time."""
        v, d = self.change.old.shape
        return max(1, min(v, MOMENT_BYTES // (4 * d * (moments + len(self.change.variants)))))

    def scores(self) -> list[Scores]:
        """sum_t g_t^T D x_t of each level, direction and row, batch by batch."""
        by_batch: list[Scores] = [None] * self._batches
        for k, start in enumerate(range(0, len(self.change.old), self._columns)):
            ids = torch.arange(start, min(start + self._columns, len(self.change.old)))
            new = torch.stack([row.flatten() for row in self.change.rows(ids)])  # [l p]
            for call in self._kept:
                moments = self._moments(call, k)
                score = (new @ moments.flatten(0, 1).T).reshape(len(new), *moments.shape[:2])
                by_batch[call.batch] = added(by_batch[call.batch], score)
        return by_batch

    def _moments(self, call: _Kept, k: int) -> Float[Tensor, "a b p"]:
        gradient = self._store.get(call.gradients[k]).float().mul_(call.unit)
        return (gradient.mT @ call.x).flatten(2)
