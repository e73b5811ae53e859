"""How much each variant changes what the teacher says: one pass, from exact gradients of every row.

Shapes: r calibration rows, a directions of a row, n = r a, l levels of a unit, b rows of a batch,
s tokens of a row, o and i output and input features of a weight, v d an embedding's, k classes.

To second order, changing the weights by D moves row r by KL_r = 1/2 z_r^T F_r z_r, with z_r the change
of its logits and F_r = diag p - p p^T (Pascanu and Bengio, arXiv 1301.3584; Martens, arXiv 1412.1193).
With vectors e of mean e e^T = F_r that is the mean of 1/2 score^2, where score = e^T z_r. To first order
z_r is the Jacobian times D, so the score of a variant is, over its matrices w and tokens t,

    score[r, e] = sum_w sum_t g_t^T (D_w x_t + c_w),    g_t the gradient of e^T logits at w's output,

which sums the tokens of a row *before* squaring. Where a level rounds inputs to x_t + r_t as well, the
new weight times r_t is added to D_w x_t. Taking tokens as independent, as K-FAC does, misses
that what a removed neuron leaves out points the same way in all tokens of a row. The scores of units
add up, so the product of two is how they harm together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.compress.activations import Activations
from autoprune.library import Library, Variant
from autoprune.space import Candidate, Level
from autoprune.task import Encoded, Task
from autoprune.units import Unit

DIRECTIONS = 4
"""Directions of a row where there are more than five classes; up to five, classes - 1 are exact."""

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
    data: Encoded,
    *,
    rows: int,
    seed: int,
) -> Sensitivity:
    """Scores of all variants of `units` over the first `rows` rows of shuffled `data`.

    Units may be shared out: the rows and directions follow from `seed` alone. A model must give padding
    no say in its logits. The model is left as it was.
    """
    chosen = np.random.default_rng(seed).permutation(len(data))[:rows]
    was_training = teacher.training
    teacher.eval()
    scores: dict[str, dict[Level, NDArray[np.float32]]] = {}
    try:
        for group in _groups(units):
            changes = {u.name: weight_changes(u, teacher, library) for u in group}
            made = _scores(teacher, changes, task, data, chosen, seed)
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
        size = 4 * len(unit.levels()) * sum(w.rows * w.columns for w in unit.weights)
        if group and used + size > CHANGES_BYTES:
            yield group
            group, used = [], 0
        group.append(unit)
        used += size
    if group:
        yield group


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


def weight_changes(unit: Unit, teacher: nn.Module, library: Library) -> dict[str, Change]:
    """Changes of a unit's matrices by module path, levels in the order of `Unit.levels`."""
    levels = unit.levels()
    made = {
        w.path: Change(torch.empty(len(levels), w.rows, w.columns), torch.empty(len(levels), w.rows), {})
        for w in unit.weights
    }
    for k, level in enumerate(levels):
        keep = library.kept_rows(unit, level.ratio) if unit.prunable else slice(None)
        for path, variant in library.variants(unit, level).items():
            is_col = path in {one.path for one in unit.cols}
            rows, columns = (slice(None), keep) if is_col else (keep, slice(None))
            weight, bias = _moved(teacher.get_submodule(path), variant, rows, columns, is_col=is_col)
            made[path].weight[k], made[path].bias[k] = weight, bias
            if variant.activations is not None:
                new = torch.zeros_like(weight)
                new[rows, columns] = variant.value()
                made[path].rounded[k] = variant.activations, new
    return made


def _moved(
    module: nn.Module, variant: Variant, rows: Kept, columns: Kept, *, is_col: bool
) -> tuple[Float[Tensor, "o i"], Float[Tensor, " o"]]:
    """What a variant adds to a matrix and its bias.

    Removed columns go to zero. Removed rows count as they were: that nothing reads them any more is
    in the columns that did.
    """
    old: Tensor = module.weight.detach()  # type: ignore[operator]
    new = torch.zeros_like(old) if is_col else old.clone()
    new[rows, columns] = variant.value()
    bias = old.new_zeros(len(old))
    if variant.bias is not None:
        bias[rows] = variant.bias - module.bias.detach()[rows]  # type: ignore[operator]
    return new - old, bias


# ---- the pass -----------------------------------------------------------------------------------


def _scores(
    teacher: nn.Module,
    changes: Mapping[str, Mapping[str, Change]],
    task: Task,
    data: Encoded,
    chosen: NDArray[np.int64],
    seed: int,
) -> dict[str, Float[Tensor, "l n"]]:
    """Scores of all levels by unit, in the order of `chosen`, a row's directions together."""
    recorders = {path: _Recorder(teacher.get_submodule(path)) for parts in changes.values() for path in parts}
    found: dict[str, list[Tensor]] = {unit: [] for unit in changes}
    order = np.argsort(data.lengths[chosen], kind="stable")
    try:
        for places in (order[start : start + BATCH] for start in range(0, len(order), BATCH)):
            inputs = {k: torch.from_numpy(x) for k, x in task.batch(data, chosen[places]).items()}
            for one in recorders.values():
                one.rows = len(places)
            with torch.enable_grad():
                logits = teacher(**inputs).logits
            made = _batch_scores(logits, _directions(logits.detach(), places, seed), recorders, changes)
            for unit, score in made.items():
                found[unit].append(score)
    finally:
        for one in recorders.values():
            one.remove()
    back = torch.from_numpy(np.argsort(order))
    return {unit: torch.cat(scores, 1)[:, back].flatten(1) for unit, scores in found.items()}


def _batch_scores(
    logits: Float[Tensor, "b k"],
    directions: Float[Tensor, "b a k"],
    recorders: Mapping[str, _Recorder],
    changes: Mapping[str, Mapping[str, Change]],
) -> dict[str, Float[Tensor, "l b a"]]:
    """One backward pass a direction; gradients at the matrices' outputs alone, none of weights."""
    outputs = [one.output for one in recorders.values()]
    found: dict[str, list[Tensor]] = {unit: [] for unit in changes}
    for direction in directions.unbind(1):
        gradients = torch.autograd.grad((logits * direction).sum(), outputs, retain_graph=True)
        by_path = dict(zip(recorders, gradients, strict=True))
        for unit, parts in changes.items():
            scores = [recorders[path].scores(by_path[path], one) for path, one in parts.items()]
            found[unit].append(torch.stack(scores).sum(0))
    return {unit: torch.stack(scores, 2) for unit, scores in found.items()}


def _directions(logits: Float[Tensor, "b k"], places: NDArray[np.int64], seed: int) -> Float[Tensor, "b a k"]:
    """Vectors e of each row whose mean e e^T is diag p - p p^T; where drawn, by row, not by batch."""
    p = logits.softmax(-1)
    classes = p.shape[1]
    if classes <= DIRECTIONS + 1:
        return _factor(p) * math.sqrt(classes - 1)
    draws = [np.random.default_rng((seed, int(one))) for one in places]
    signs = np.stack([rng.choice((-1.0, 1.0), (DIRECTIONS, classes)) for rng in draws])
    rooted: Tensor = p.sqrt()[:, None, :] * torch.from_numpy(signs).to(p)
    return rooted - p[:, None, :] * rooted.sum(-1, keepdim=True)


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
    """A hook on one Linear or Embedding that keeps its last input and output.

    Positions are looked up once for all rows of a batch; here each row gets its own, and its gradient.
    """

    def __init__(self, module: nn.Module) -> None:
        self.is_embedding = isinstance(module, nn.Embedding)
        self.rows = 1
        self.input, self.output = torch.empty(0), torch.empty(0)
        self._handle = module.register_forward_hook(self._forward)

    def _forward(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        shared = self.is_embedding and len(output) == 1
        self.input = args[0].detach().expand(self.rows, -1) if shared else args[0].detach()
        self.output = output.expand(self.rows, -1, -1) if shared else output
        return self.output

    def scores(self, gradient: Tensor, change: Change) -> Float[Tensor, "l b"]:
        """sum_t g_t^T (D x_t + c) of each level and row."""
        if self.is_embedding:
            return torch.stack([(d[self.input] * gradient).sum((1, 2)) for d in change.weight])
        b = len(gradient)
        g, x = (one.reshape(b, -1, one.shape[-1]) for one in (gradient, self.input))
        moment = g.mT @ x  # [b o i]: a row's tokens are summed once, for all levels
        scores = change.weight.flatten(1) @ moment.flatten(1).T + change.bias @ g.sum(1).T
        moments: dict[Activations, Tensor] = {}
        for k, (grid, weight) in change.rounded.items():
            if grid not in moments:
                moments[grid] = (g.mT @ (grid.round(x) - x)).flatten(1)
            scores[k] += moments[grid] @ weight.flatten()
        return scores

    def remove(self) -> None:
        self._handle.remove()
