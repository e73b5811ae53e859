"""Rows, and random vectors for a model's answers to them: the mean square of their product is a divergence.

Shapes: b rows of a batch, m answered places of it, k outputs, p bytes of packed signs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from autoprune.tasks.task import Data, Task

DIRECTIONS = 4
"""Directions of a row where there are more than five classes; up to five, classes - 1 are exact."""

PLACE_DIRECTIONS = 2
"""The same where a row has an answer at each of its many tokens, all of which are drawn for."""


BATCH = 16
"""Rows of a batch; bounds the memory of a matrix's moments, one [o i] a row."""


@dataclass(frozen=True)
class DirectionRows:
    """The rows that scores are taken over, and how directions are drawn for them.

    size: most rows of a batch.
    """

    task: Task
    data: Data
    chosen: NDArray[np.int64]
    seed: int
    spread: float
    size: int = BATCH

    def batches(self) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
        """Places among the chosen, and inputs, of rows of like length."""
        for rows in self.parts():
            yield (
                rows,
                {k: torch.from_numpy(x) for k, x in self.task.batch(self.data, self.chosen[rows]).items()},
            )

    def parts(self) -> Iterator[NDArray[np.int64]]:
        """The places of each batch."""
        order, size = self.order(), min(self.size, self.task.evaluation_batch)
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def order(self) -> NDArray[np.int64]:
        """The chosen rows' places, shortest row first."""
        return np.argsort(self.data.lengths[self.chosen], kind="stable")

    def directions(
        self, output: Float[Tensor, "*b k"], rows: NDArray[np.int64]
    ) -> Iterator[Float[Tensor, "*b k"]]:
        """Vectors to multiply a batch's outputs with, zero where nothing is answered, so that the mean square
        of a row's sum is twice its divergence, counted for each place."""
        places = self.task.answered(self.data, self.chosen[rows])
        draws = [np.random.default_rng((self.seed, int(row))) for row in rows]
        if places is None:
            yield from self._drawn(output.detach(), draws, DIRECTIONS)
            return
        where = torch.from_numpy(places[0]), torch.from_numpy(places[1])
        share = math.sqrt(len(self.chosen) / self._places)
        each = [draws[k] for k in places[0]]
        for drawn in self._drawn(output.detach()[where], each, PLACE_DIRECTIONS):
            whole = torch.zeros_like(output)
            whole[where] = drawn.mul_(share)
            yield whole

    @functools.cached_property
    def _places(self) -> int:
        """Answered places of all chosen rows."""
        return len(self.task.labels(self.data, self.chosen))

    def _drawn(
        self, answers: Float[Tensor, "m k"], draws: Sequence[np.random.Generator], count: int
    ) -> Iterator[Float[Tensor, "m k"]]:
        if self.task.is_probable:
            return of_classes(answers, draws, count)
        return of_numbers(answers, draws, count, self.spread)


def of_classes(
    logits: Float[Tensor, "m k"], draws: Sequence[np.random.Generator], count: int
) -> Iterator[Float[Tensor, "m k"]]:
    """Vectors e of each place, one direction after the other, whose mean e e^T is diag p - p p^T.

    Where drawn, by row, not by batch. With signs s: e_j = sqrt(p_j) s_j - p_j sum_i sqrt(p_i) s_i.
    """
    p = logits.softmax(-1)
    classes = p.shape[1]
    if classes <= count + 1 and count == DIRECTIONS:
        yield from (factor(p) * math.sqrt(classes - 1)).unbind(1)
        return
    root, packed = p.sqrt(), signs(draws, count, classes)
    for k in range(count):
        signed = root * unpacked_signs(packed[:, k], classes)
        yield signed.addcmul_(p, signed.sum(-1, keepdim=True), value=-1.0)


def of_numbers(
    answers: Float[Tensor, "m k"], draws: Sequence[np.random.Generator], count: int, spread: float
) -> Iterator[Float[Tensor, "m k"]]:
    """The same where answers are no probabilities: the mean e e^T is the identity over their spread."""
    k = answers.shape[1]
    if k <= count:
        yield from (math.sqrt(k / spread) * torch.eye(k)).expand(len(answers), k, k).unbind(1)
        return
    packed = signs(draws, count, k)
    for draw in range(count):
        yield unpacked_signs(packed[:, draw], k) / math.sqrt(spread)


def signs(draws: Sequence[np.random.Generator], count: int, size: int) -> NDArray[np.uint8]:
    """Random bits [m a p] for each place by its row's generator, eight to a byte."""
    each = -(-size // 8)
    drawn = b"".join(rng.bytes(count * each) for rng in draws)
    return np.frombuffer(drawn, np.uint8).reshape(len(draws), count, each)


def unpacked_signs(packed: NDArray[np.uint8], size: int) -> Float[Tensor, "m k"]:
    """1 or -1 of each bit [m p]."""
    bits: UInt8[Tensor, "m k"] = torch.from_numpy(np.unpackbits(packed, axis=-1, count=size))
    return bits.float().mul_(2.0).sub_(1.0)


def factor(p: Float[Tensor, "b k"]) -> Float[Tensor, "b k-1 k"]:
    """Rows e with sum e e^T = diag p - p p^T: its Cholesky factor, transposed, in closed form.

    Tanabe and Sagae, J. R. Statist. Soc. B 54 (1992) 211-219: with q_j the probability of all
    classes after j, e_j is sqrt(p_j q_j / q_(j-1)) at j and -p_i sqrt(p_j / (q_(j-1) q_j)) at i > j.
    Its signs are settled, so that scores of several processes add up.
    """
    tails = p.flip(-1).cumsum(-1).flip(-1).clamp(min=torch.finfo(p.dtype).tiny ** 0.5)
    before, after = tails[:, :-1], tails[:, 1:]
    below = -p[:, None, :] * (p[:, :-1] / (before * after)).sqrt()[:, :, None]
    out = below.triu(1)
    out.diagonal(dim1=1, dim2=2).copy_((p[:, :-1] * after / before).sqrt())
    return out
