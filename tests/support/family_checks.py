"""What holds of a family's tiny model: for the contract's tests and the benchmark of architectures alike."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.compress.stitch import Stitched
from autoprune.compress.surgery import replace_
from autoprune.models.loading import Loaded
from autoprune.models.outputs import outputs_of
from autoprune.models.split_embedding import parted
from autoprune.space.levels import UNTOUCHED, Candidate, Level
from autoprune.space.storage import FLOAT_BITS
from autoprune.targets import Target, size_on_disk
from autoprune.targets.packed import torch_runner
from autoprune.targets.sizes import sizes_of
from tests.support.families import Case


def answers(case: Case, model: nn.Module, rows: int = 6) -> Tensor:
    """A model's answers to the first rows."""
    batch = case.tiny.task.batch(case.tiny.task.test, range(rows))
    with torch.no_grad():
        return outputs_of(model, {name: torch.from_numpy(x) for name, x in batch.items()}, case.family.kind)


def gap(one: Tensor, other: Tensor) -> float:
    """Largest difference, of the largest answer."""
    return float((one - other).abs().max() / other.abs().max())


SAME = 3e-6
"""Of the largest answer: sums of float32 taken in another order."""


def lowered(case: Case, ratio: float) -> Candidate:
    """Every unit at the ratio nearest to this one, weights as floats."""
    return case.tiny.space.uniform(Level.of(ratio, FLOAT_BITS))


def masked(case: Case, stitched: Stitched) -> nn.Module:
    """The teacher in its own shape: what is removed is read by nobody, all else as in the stitched model."""
    full = copy.deepcopy(case.tiny.model)
    for unit in case.tiny.units:
        ratio = stitched.levels[unit.name].ratio
        kept = case.tiny.library.kept(unit, ratio)
        if unit.by_token and ratio:
            path = unit.rows[0].path
            stem = path.removesuffix(".rare")
            embedding: Any = stitched.model.get_submodule(stem)
            rows = embedding.joined().weight if stem != path else embedding.weight[embedding.places]
            both = parted(full).get(stem)
            replace_(full, path, rows if both is None else rows[both.order()[-unit.pieces :]], None)
        for weight in unit.cols:
            new: Any = stitched.model.get_submodule(weight.path)
            spread = torch.zeros(weight.rows, weight.columns)
            spread[:, unit.at(kept, weight.columns)] = new.weight.detach().flatten(1)
            replace_(full, weight.path, spread, new.bias)
    return full


def halved(case: Case) -> Candidate:
    """Half of what can be removed is, and weights are half floats: nothing is rounded where it runs."""
    return case.tiny.space.uniform(Level.of(0.5, 16))


def mixed(case: Case) -> Candidate:
    """Units in turn at levels of every sort."""
    sorts = [
        Level.of(0.5, 4),
        Level.of(0.25, "w8a8"),
        Level.of(0.75, 16),
        UNTOUCHED,
        Level.of(0.5, 3),
        Level.of(0.0, 6),
    ]
    return Candidate(
        tuple(
            (unit.unit, unit.nearest(sorts[k % len(sorts)])) for k, unit in enumerate(case.tiny.space.units)
        )
    )


# ---- on a target --------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnTarget:
    """A candidate saved and read again: bytes as a search predicts them, and by `stat`.

    off: the largest difference from the stitched model's answer, of the answers' spread.
    """

    predicted_bytes: int
    saved_bytes: int
    off: float


def on_target(case: Case, target: Target, candidate: Candidate, folder: Path) -> OnTarget:
    """Save a candidate, as near as the target can hold it, into a folder, and run it there on other rows."""
    tiny, task = case.tiny, case.tiny.task
    offered = tiny.offered(target, candidate)
    stitched = tiny.stitched_as(offered)
    loaded = Loaded(tiny.model, None, True, case.architecture)
    costs = sizes_of(loaded, tiny.units, tiny.space_for(target), target, task)
    folder.mkdir()
    target.save(stitched, folder, task.batch(task.test, [0, 1]))
    run, there = target.load(folder), torch_runner(stitched.model, task.kind)
    off, every = 0.0, []
    for rows in ([2, 3, 4], [5]):  # of other lengths, and of another number
        batch = task.batch(task.test, rows)
        got, wanted = run(batch), there(batch)
        assert got.shape == wanted.shape
        off = float(np.maximum(off, np.abs(got - wanted).max()))  # keeps what is no number
        every.append(wanted.reshape(-1))
    spread = float(np.concatenate(every).std())
    return OnTarget(costs.size_bytes(offered), size_on_disk(target, folder), off / spread)
