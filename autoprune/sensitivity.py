"""How much each variant changes what the teacher says: one pass, from exact gradients of every row.

Shapes: r calibration rows, a directions of a row, n = r a, l levels of a unit, b rows of a batch,
s tokens of a row, m answered places of a batch, o and i output and input features of a weight, v d an
embedding's, k outputs, p weights of a matrix laid flat.

To second order, changing the weights by D moves row r by KL_r = 1/2 z_r^T F_r z_r, with z_r the change
of its logits and F_r = diag p - p p^T (Pascanu and Bengio, arXiv 1301.3584; Martens, arXiv 1412.1193).
With vectors e of mean e e^T = F_r that is the mean of 1/2 score^2, where score = e^T z_r. To first order
z_r is the Jacobian times D, so the score of a variant is, over its matrices w and tokens t,

    score[r, e] = sum_w sum_t g_t^T (D_w x_t + c_w),    g_t the gradient of e^T logits at w's output,

which sums the tokens of a row *before* squaring. Where a level rounds inputs to x_t + r_t as well, the
new weight times r_t is added to D_w x_t. Taking tokens as independent, as K-FAC does, misses
that what a removed neuron leaves out points the same way in all tokens of a row. The scores of units
add up, so the product of two is how they harm together.

Where answers are no probabilities, F_r is the identity over the variance of the teacher's (`answers`). Where
a row has an answer at many places, their directions are drawn apart and their scores added up: what one has
to do with another is zero in the mean.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.architecture import outputs_of
from autoprune.compress.activations import Activations
from autoprune.layers import inputs_of, moment_of
from autoprune.layers import outputs_of as layer_outputs
from autoprune.library import Library, Variant, matrix_of
from autoprune.space import FLOAT_BITS, Candidate, Level
from autoprune.task import Data, Task
from autoprune.units import Unit, Weight

DIRECTIONS = 4
"""Directions of a row where there are more than five classes; up to five, classes - 1 are exact."""

PLACE_DIRECTIONS = 2
"""The same where a row has an answer at each of its many tokens, all of which are drawn for."""

BATCH = 16
"""Rows of a batch; bounds the memory of a matrix's moments, one [o i] a row."""

CHANGES_BYTES = 2**30
"""Most memory that the changes of all variants at work may take; more units wait for another pass."""


Kept = Int[Tensor, " k"] | slice
"""Rows or columns that stay: their numbers, or all."""


@dataclass(frozen=True)
class Sensitivity:
    """Scores [n] of every unit at every level, each in nats^1/2; rows and directions in one order."""

    scores: Mapping[str, Mapping[Level, NDArray[np.float32]]]

    def damage(self) -> dict[str, dict[Level, float]]:
        """Predicted KL(teacher || model), nats a row, of each variant alone: 1/2 mean score^2."""
        return {
            unit: {level: _half_mean_square(score) for level, score in table.items()}
            for unit, table in self.scores.items()
        }

    def together(self, candidate: Candidate) -> float:
        """The same of a candidate, with what its units add to and take from each other."""
        return _half_mean_square(np.sum([self.scores[u][level] for u, level in candidate.items], axis=0))

    @classmethod
    def merged(cls, parts: Iterable[Sensitivity]) -> Sensitivity:
        """One from several that were measured on the same rows, each for some of the units."""
        return cls({unit: table for part in parts for unit, table in part.scores.items()})


def _half_mean_square(score: NDArray[np.float32]) -> float:
    return 0.5 * float(np.mean(np.square(score, dtype=np.float64)))


def measure_sensitivity(
    teacher: nn.Module,
    units: Sequence[Unit],
    library: Library,
    task: Task,
    data: Data,
    *,
    rows: int,
    seed: int,
    spread: float = 0.0,
) -> Sensitivity:
    """Scores of all variants of `units` over the first `rows` rows of shuffled `data`.

    Units may be shared out: the rows and directions follow from `seed` alone. A model must give padding
    no say in its logits. The model is left as it was.

    Args:
        spread: variance of the teacher's answers, where they are no probabilities.
    """
    chosen = np.random.default_rng(seed).permutation(len(data))[:rows]
    was_training = teacher.training
    teacher.eval()
    scores: dict[str, dict[Level, NDArray[np.float32]]] = {}
    try:
        for group in _groups(units):
            changes = {u.name: weight_changes(u, teacher, library) for u in group}
            made = _scores(teacher, changes, Rows(task, data, chosen, seed, spread))
            for unit in group:
                scores[unit.name] = dict(zip(unit.levels(), made[unit.name].numpy(), strict=True))
    finally:
        teacher.train(was_training)
    return Sensitivity(scores)


def _groups(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Units whose changes fit into memory together, one at least."""
    group: list[Unit] = []
    used = 0
    for unit in units:
        size = 4 * len(unit.levels()) * sum(w.rows * w.columns for w in unit.weights if not is_looked_up(w))
        if group and used + size > CHANGES_BYTES:
            yield group
            group, used = [], 0
        group.append(unit)
        used += size
    if group:
        yield group


def is_looked_up(weight: Weight) -> bool:
    """Whether only the rows that a batch uses are changed for it, as there may be very many."""
    return weight.is_embedding


@dataclass(frozen=True)
class Rows:
    """The rows that scores are taken over, and how directions are drawn for them."""

    task: Task
    data: Data
    chosen: NDArray[np.int64]
    seed: int
    spread: float

    def batches(self) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
        """Places among the chosen, and inputs, of rows of like length."""
        order = self.order()
        size = min(BATCH, self.task.evaluation_batch)
        for start in range(0, len(order), size):
            at = order[start : start + size]
            yield at, {k: torch.from_numpy(x) for k, x in self.task.batch(self.data, self.chosen[at]).items()}

    def order(self) -> NDArray[np.int64]:
        """The chosen rows' places, shortest row first."""
        return np.argsort(self.data.lengths[self.chosen], kind="stable")

    def directions(self, output: Float[Tensor, "*b k"], at: NDArray[np.int64]) -> Float[Tensor, "a *b k"]:
        """Vectors to multiply a batch's outputs with, zero where nothing is answered, so that the mean square
        of a row's sum is twice its divergence, counted for each place."""
        places = self.task.answered(self.data, self.chosen[at])
        draws = [np.random.default_rng((self.seed, int(one))) for one in at]
        if places is None:
            return self._drawn(output.detach(), draws).transpose(0, 1)
        whole = output.new_zeros(PLACE_DIRECTIONS, *output.shape)
        where = torch.from_numpy(places[0]), torch.from_numpy(places[1])
        answers = output.detach()[where]
        each = [draws[k] for k in places[0]]
        whole[:, *where] = self._drawn(answers, each, PLACE_DIRECTIONS).transpose(0, 1)
        return whole * math.sqrt(len(self.chosen) / self._places)

    @functools.cached_property
    def _places(self) -> int:
        """Answered places of all chosen rows."""
        return len(self.task.labels(self.data, self.chosen))

    def _drawn(
        self, answers: Float[Tensor, "m k"], draws: Sequence[np.random.Generator], count: int = DIRECTIONS
    ) -> Float[Tensor, "m a k"]:
        if self.task.is_probable:
            return _directions(answers, draws, count)
        k = answers.shape[1]
        if k <= count:
            basis = math.sqrt(k / self.spread) * torch.eye(k)
            return basis.expand(len(answers), k, k)
        return _signs(draws, count, k) / math.sqrt(self.spread)


# ---- what the variants change -------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What all levels of a unit do to one matrix, in the shapes it came in: weight and bias.

    rounded: for levels (by number) with 8-bit activations the input's grid and the new weight [o i],
    zero where rows or columns are removed.
    """

    weight: Float[Tensor, "l o i"]
    bias: Float[Tensor, "l o"]
    rounded: dict[int, tuple[Activations, Float[Tensor, "o i"]]]


@dataclass(frozen=True)
class Lookup:
    """What all levels do to an embedding: its rows before, and what they become, made when looked at.

    tied: path of the output layer that has the same weight.
    """

    old: Float[Tensor, "v d"]
    variants: Sequence[Variant]
    tied: str

    def rows(self, ids: Int[Tensor, "b s"]) -> Iterator[Float[Tensor, "b s d"]]:
        """What each level adds to the rows that are looked up."""
        flat = ids.reshape(-1)
        for one in self.variants:
            at = flat if one.places is None else one.places[flat].long()
            new = one.weight[at] if one.integers is None else one.integers.rows(at).dequantize()
            new = new.half().float() if one.integers is None and one.bits < FLOAT_BITS else new
            yield (new - self.old[flat]).reshape(*ids.shape, -1)

    def matrices(self) -> Iterator[Float[Tensor, "v d"]]:
        """What each level adds to the whole of it."""
        for one in self.variants:
            yield one.value() - self.old


def weight_changes(unit: Unit, teacher: nn.Module, library: Library) -> dict[str, Change | Lookup]:
    """Changes of a unit's matrices by module path, levels in the order of `Unit.levels`."""
    levels = unit.levels()
    made: dict[str, Change | Lookup] = {}
    every = [library.variants(unit, level) for level in levels]
    for weight in unit.weights:
        old = matrix_of(teacher.get_submodule(weight.path))
        if is_looked_up(weight):
            made[weight.path] = Lookup(old, [one[weight.path] for one in every], weight.tied)
            continue
        shape = (len(levels), weight.rows, weight.columns)
        change = Change(torch.empty(*shape), torch.empty(*shape[:2]), {})
        for k, level in enumerate(levels):
            kept = library.kept(unit, level.ratio) if level.ratio else None
            _move_(change, k, teacher.get_submodule(weight.path), every[k][weight.path], unit, weight, kept)
        made[weight.path] = change
    return made


def _move_(
    change: Change,
    k: int,
    module: nn.Module,
    variant: Variant,
    unit: Unit,
    weight: Weight,
    kept: Int[Tensor, " k"] | None,
) -> None:
    """Put what a variant, of pieces `kept`, adds to a matrix and its bias into level `k` of a change.

    Removed columns go to zero. Removed rows count as they were: that nothing reads them any more is
    in the columns that did.
    """
    old, is_col = matrix_of(module), weight in unit.cols
    rows: Kept = slice(None) if kept is None or is_col else unit.at(kept, weight.rows)
    columns: Kept = unit.at(kept, weight.columns) if kept is not None and is_col else slice(None)
    new = torch.zeros_like(old) if is_col else old.clone()
    new[rows, columns] = variant.value()
    change.weight[k] = new - old
    change.bias[k] = 0.0
    if variant.bias is not None:
        change.bias[k, rows] = variant.bias - module.bias.detach()[rows]  # type: ignore[operator]
    if variant.activations is not None:
        rounded = torch.zeros_like(old)
        rounded[rows, columns] = variant.value()
        change.rounded[k] = variant.activations, rounded


# ---- the pass -----------------------------------------------------------------------------------

Changes = Mapping[str, Mapping[str, Change | Lookup]]
"""By unit, and by path."""


def _scores(teacher: nn.Module, changes: Changes, rows: Rows) -> dict[str, Float[Tensor, "l n"]]:
    """Scores of all levels by unit, in the order of the chosen rows, a row's directions together."""
    recorders = _recorders(teacher, changes)
    found: dict[str, list[Tensor]] = {unit: [] for unit in changes}
    try:
        for at, inputs in rows.batches():
            for one in recorders.values():
                one.rows = len(at)
            with torch.enable_grad():
                output = outputs_of(teacher, inputs, rows.task.kind)
            for unit, score in _batch_scores(output, rows.directions(output, at), recorders, changes).items():
                found[unit].append(score)
    finally:
        for one in recorders.values():
            one.remove()
    back = torch.from_numpy(np.argsort(rows.order()))
    return {unit: torch.cat(scores, 1)[:, back].flatten(1) for unit, scores in found.items()}


def _recorders(teacher: nn.Module, changes: Changes) -> dict[str, _Recorder]:
    """A recorder for each matrix, and for each output layer that shares an embedding's weight."""
    paths = [path for parts in changes.values() for path in parts]
    tied = [one.tied for parts in changes.values() for one in parts.values() if isinstance(one, Lookup)]
    return {path: _Recorder(teacher.get_submodule(path)) for path in (*paths, *filter(None, tied))}


def _batch_scores(
    output: Float[Tensor, "*b k"],
    directions: Float[Tensor, "a *b k"],
    recorders: Mapping[str, _Recorder],
    changes: Changes,
) -> dict[str, Float[Tensor, "l b a"]]:
    """One backward pass a direction; gradients at the matrices' outputs alone, none of weights."""
    outputs = [one.output for one in recorders.values()]
    found: dict[str, list[Tensor]] = {unit: [] for unit in changes}
    for direction in directions:
        total = (output * direction).sum()
        gradients = torch.autograd.grad(total, outputs, retain_graph=True, materialize_grads=True)
        by_path = dict(zip(recorders, gradients, strict=True))
        for unit, parts in changes.items():
            scores = [score_of(path, one, recorders, by_path) for path, one in parts.items()]
            found[unit].append(torch.stack(scores).sum(0))
    return {unit: torch.stack(scores, 2) for unit, scores in found.items()}


def score_of(
    path: str,
    change: Change | Lookup,
    recorders: Mapping[str, _Recorder],
    gradients: Mapping[str, Tensor],
) -> Float[Tensor, "l b"]:
    """sum_t g_t^T (D x_t + c) of each level and row of a batch."""
    if isinstance(change, Change):
        return recorders[path].scores(gradients[path], change)
    looked_up = recorders[path].lookups(gradients[path], change)
    return (
        looked_up + recorders[change.tied].products(gradients[change.tied], change)
        if change.tied
        else looked_up
    )


def _directions(
    logits: Float[Tensor, "m k"], draws: Sequence[np.random.Generator], count: int
) -> Float[Tensor, "m a k"]:
    """Vectors e of each place whose mean e e^T is diag p - p p^T; where drawn, by row, not by batch."""
    p = logits.softmax(-1)
    classes = p.shape[1]
    if classes <= count + 1 and count == DIRECTIONS:
        return _factor(p) * math.sqrt(classes - 1)
    rooted: Tensor = p.sqrt()[:, None, :] * _signs(draws, count, classes).to(p)
    return rooted - p[:, None, :] * rooted.sum(-1, keepdim=True)


def _signs(draws: Sequence[np.random.Generator], count: int, size: int) -> Float[Tensor, "m a k"]:
    """1 or -1, drawn for each place by its row's generator."""
    drawn = [rng.integers(0, 2, (count, size), dtype=np.int8) for rng in draws]
    return torch.from_numpy(np.stack(drawn)).float().mul_(2.0).sub_(1.0)


def _factor(p: Float[Tensor, "b k"]) -> Float[Tensor, "b k-1 k"]:
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


class _Recorder:
    """A hook on one layer that keeps its last input and output.

    Positions are looked up once for all rows of a batch; here each row gets its own, and its gradient.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.is_embedding = isinstance(module, nn.Embedding)
        self.rows = 1
        self.input, self.output = torch.empty(0), torch.empty(0)
        self._handle = module.register_forward_hook(self._forward)

    def _forward(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        shared = self.is_embedding and len(output) == 1
        self.input = args[0].detach().expand(self.rows, -1) if shared else args[0].detach()
        self.output = output.expand(self.rows, -1, -1) if shared else output
        return self.output

    def lookups(self, gradient: Tensor, change: Lookup) -> Float[Tensor, "l b"]:
        """sum_t g_t^T d_t, with d_t the change of the row that is looked up."""
        return torch.stack([(added * gradient).sum((1, 2)) for added in change.rows(self.input)])

    def products(self, gradient: Tensor, change: Lookup) -> Float[Tensor, "l b"]:
        """sum_t g_t^T D x_t, a level at a time, as D is a whole vocabulary's."""
        moment = moment_of(self.module, gradient, inputs_of(self.module, self.input, gradient))
        return torch.stack([moment @ added.flatten() for added in change.matrices()])

    def scores(self, gradient: Tensor, change: Change) -> Float[Tensor, "l b"]:
        """sum_t g_t^T (D x_t + c) of each level and row."""
        x = inputs_of(self.module, self.input, gradient)
        moment = moment_of(self.module, gradient, x)  # [b p]: a row's uses are summed once, for all levels
        g = layer_outputs(self.module, gradient).sum(1)
        scores = change.weight.flatten(1) @ moment.T + change.bias @ g.T
        moments: dict[Activations, Tensor] = {}
        for k, (grid, weight) in change.rounded.items():
            if grid not in moments:
                moments[grid] = moment_of(self.module, gradient, grid.round(x) - x)
            scores[k] += moments[grid] @ weight.flatten()
        return scores

    def remove(self) -> None:
        self._handle.remove()
