"""How much each variant changes what the teacher says, from exact gradients of every row.

Shapes: r calibration rows, a directions of a row, n = r a, l levels of a unit, b rows of a batch,
s tokens of a row, m answered places of a batch, o and i output and input features of a weight, v d an
embedding's, c some of its rows, k outputs.

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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.compress.library import Library
from autoprune.models.blocks import by_block
from autoprune.models.outputs import outputs_of
from autoprune.models.unit import Unit
from autoprune.sensitivity.block_replay import Call, Catcher, Known, is_alike, run_again
from autoprune.sensitivity.fisher_directions import DirectionRows
from autoprune.sensitivity.recorder import Recorder, Scores, added, gradients_at, recording, scores_of_changes
from autoprune.sensitivity.tensor_file import Store
from autoprune.sensitivity.tied_head import Head
from autoprune.sensitivity.weight_changes import Changes, Lookup, changes_bytes, weight_changes
from autoprune.space.levels import Candidate, Level
from autoprune.tasks.task import Data, Task

CHANGES_BYTES = 2**30
"""Most memory that the changes of all variants at work may take; more units wait for another pass."""


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
        """The same for a candidate, with the interactions of its units."""
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
    chosen = measured_rows(len(data), rows, seed)
    was_training = teacher.training
    teacher.eval()
    try:
        directions = DirectionRows(task, data, chosen, seed, spread)
        if _is_shared_by_rows(teacher, units, directions):
            directions = replace(directions, size=1)
        scores = _Survey(teacher, library, directions).of(units)
    finally:
        teacher.train(was_training)
    return Sensitivity({u.name: dict(zip(u.levels(), scores[u.name].numpy(), strict=True)) for u in units})


def _is_shared_by_rows(teacher: nn.Module, units: Sequence[Unit], rows: DirectionRows) -> bool:
    """Whether a layer computes something once for all rows of a batch, as DeBERTa's keys of relative places.

    Its gradient is then a sum over rows, so that a row's own is only to be had from a batch of one. An
    embedding's is spread out over rows before it is recorded.
    """
    paths = [weight.path for unit in units for weight in unit.weights if not weight.is_embedding]
    _, inputs = next(rows.batches())
    sizes: list[int] = []
    hooks = [
        teacher.get_submodule(path).register_forward_hook(lambda layer, args, out: sizes.append(len(args[0])))
        for path in paths
    ]
    try:
        with torch.no_grad():
            outputs_of(teacher, inputs, rows.task.kind)
    finally:
        for hook in hooks:
            hook.remove()
    return 1 in sizes and len(next(iter(inputs.values()))) > 1


def measured_rows(count: int, rows: int, seed: int) -> NDArray[np.int64]:
    """Numbers of the rows, of so many in all, that sensitivities are measured on."""
    return np.random.default_rng(seed).permutation(count)[:rows]


def _groups(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Units whose changes fit into memory together, one at least."""
    group: list[Unit] = []
    used = 0
    for unit in units:
        size = changes_bytes(unit)
        if group and used + size > CHANGES_BYTES:
            yield group
            group, used = [], 0
        group.append(unit)
        used += size
    if group:
        yield group


# ---- the passes ---------------------------------------------------------------------------------

UnitScores = dict[str, Float[Tensor, "l n"]]
"""Scores of all levels by unit, in the order of the chosen rows, a row's directions together."""


@dataclass
class _Survey:
    """A teacher, its variants, and the rows that these are measured on."""

    teacher: nn.Module
    library: Library
    rows: DirectionRows
    directions: int = 0

    def of(self, units: Sequence[Unit]) -> UnitScores:
        """Scores of units: in one pass if their changes fit into memory, else block by block."""
        if len(list(_groups(units))) < 2:
            return self.whole(units)
        blocks = by_block(self.teacher, units)
        outside = list(_groups(blocks.pop("", [])))
        first, others = outside[0] if outside else [], outside[1:]
        with Store() as store:
            catchers = {path: Catcher(self.teacher.get_submodule(path), store) for path in blocks}
            try:
                scores = self.whole(first, list(catchers.values()))
            finally:
                for catcher in catchers.values():
                    catcher.remove()
            for path, inside in blocks.items():
                if is_alike(catchers[path], store):
                    for group in _groups(inside):
                        scores |= self.block(group, catchers[path], store)
                else:
                    others += _groups(inside)
        for group in others:
            scores |= self.whole(group)
        return scores

    def whole(self, units: Sequence[Unit], catchers: Sequence[Catcher] = ()) -> UnitScores:
        """Scores from a pass of the whole model, in which catchers keep what blocks need."""
        changes = {unit.name: weight_changes(unit, self.teacher, self.library) for unit in units}
        with Store() as store, recording(self.teacher, changes) as recorders:
            heads = {
                unit: Head(part.tied, recorders[part.tied], part, store)
                for unit, parts in changes.items()
                for part in parts.values()
                if isinstance(part, Lookup) and part.tied
            }
            batches = [
                self._batch(rows, inputs, changes, recorders, list(heads.values()), catchers)
                for rows, inputs in self.rows.batches()
            ]
            for recorder in recorders.values():
                recorder.begin(0)  # lets the last batch's graph go
            for unit, head in heads.items():
                for batch, products in zip(batches, head.scores(), strict=True):
                    batch[unit] = added(batch[unit], products)
        return self._joined(batches, units)

    def _batch(
        self,
        rows: NDArray[np.int64],
        inputs: Mapping[str, Tensor],
        changes: Mapping[str, Changes],
        recorders: Mapping[str, Recorder],
        heads: Sequence[Head],
        catchers: Sequence[Catcher],
    ) -> dict[str, Scores]:
        """Scores of one batch by unit, less those of heads, which keep what theirs are made of."""
        known: Known = {}
        for recorder in recorders.values():
            recorder.begin(len(rows))
        for catcher in catchers:
            catcher.begin(len(rows), known)
        with torch.enable_grad():
            output = outputs_of(self.teacher, inputs, self.rows.task.kind)
        edges = [use.edge for recorder in recorders.values() for use in recorder.uses]
        edges += [edge for catcher in catchers for call in catcher.calls[-1] for edge in call.edges]
        vectors = ([direction] for direction in self.rows.directions(output, rows))
        gradients, self.directions = gradients_at([output], vectors, edges)
        rest = iter(gradients)
        by_path = {path: [next(rest) for _ in recorder.uses] for path, recorder in recorders.items()}
        for catcher in catchers:
            catcher.keep(rest)
        for head in heads:
            head.keep(by_path[head.path])
        return scores_of_changes(changes, recorders, by_path)

    def block(self, units: Sequence[Unit], catcher: Catcher, store: Store) -> UnitScores:
        """Scores of units of one block, which is run again alone."""
        changes = {unit.name: weight_changes(unit, self.teacher, self.library) for unit in units}
        batches = []
        with recording(self.teacher, changes) as recorders:
            for calls in catcher.calls:
                batch: dict[str, Scores] = dict.fromkeys(changes)
                for call in calls:
                    scores = self._call(call, changes, recorders, catcher.module, store)
                    batch = {unit: added(batch[unit], scores[unit]) for unit in changes}
                batches.append(batch)
        return self._joined(batches, units)

    def _call(
        self,
        call: Call,
        changes: Mapping[str, Changes],
        recorders: Mapping[str, Recorder],
        module: nn.Module,
        store: Store,
    ) -> dict[str, Scores]:
        """Scores of one run of a block."""
        for recorder in recorders.values():
            recorder.begin(call.rows)
        given = run_again(module, call, store)
        pairs = [(y, store.get(g)) for y, g in zip(given, call.gradients, strict=True) if g is not None]
        if not pairs:
            return dict.fromkeys(changes)
        outputs, after = zip(*pairs, strict=True)
        edges = [use.edge for recorder in recorders.values() for use in recorder.uses]
        gradients, _ = gradients_at(outputs, zip(*after, strict=True), edges)
        rest = iter(gradients)
        by_path = {path: [next(rest) for _ in recorder.uses] for path, recorder in recorders.items()}
        return scores_of_changes(changes, recorders, by_path)

    def _joined(self, batches: Sequence[Mapping[str, Scores]], units: Sequence[Unit]) -> UnitScores:
        """Scores of all batches in the order of the chosen rows; zeros where a unit has no say."""
        back = torch.from_numpy(np.argsort(self.rows.order()))
        by_unit = {}
        for unit in units:
            parts = []
            for rows, batch in zip(self.rows.parts(), batches, strict=True):
                nothing = torch.zeros(len(unit.levels()), self.directions, len(rows))
                scores = batch[unit.name]
                parts.append((nothing if scores is None else scores).transpose(1, 2))
            by_unit[unit.name] = torch.cat(parts, 1)[:, back].flatten(1)
        return by_unit
