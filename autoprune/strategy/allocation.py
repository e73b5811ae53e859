"""Rules that say how much each unit loses, without a solver: baselines that a run can be compared with.

Each rule is a ladder: shares of pieces removed by unit, from hardly any to almost all, between which one
number decides. Of all rungs in all storages (one for the whole model) that of least predicted damage
among those that fit is taken. Vocabularies keep their tokens.

Shapes: c pieces of a unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.space.budget import Budget
from autoprune.space.costs import Costs
from autoprune.space.levels import Candidate, Level, SearchSpace
from autoprune.space.storage import widest_first
from autoprune.strategy.repair import fits

RUNGS = 200
"""Of a ladder: units offer a few ratios each, so that finer ones have the same models."""


@dataclass(frozen=True)
class Removable:
    """What the rules read of a unit that can lose heads, neurons or channels.

    scores: importance of its pieces [c], above 0. shapes: outputs, inputs and taps of a kernel of each of its
    weights.
    """

    scores: NDArray[np.float32]
    shapes: tuple[tuple[int, int, int], ...]


Shares = dict[str, float]
"""Of its pieces that each unit loses, by unit."""


def uniform(units: Mapping[str, Removable]) -> Iterable[Shares]:
    """Every unit loses the same share."""
    return (dict.fromkeys(units, k / RUNGS) for k in range(1, RUNGS))


def global_threshold(units: Mapping[str, Removable]) -> Iterable[Shares]:
    """Every piece goes whose score is below one threshold; scores are divided by their unit's mean.

    Ranks over all layers as of Molchanov et al., arXiv 1611.06440, section 2.2, who divide by the norm, in
    which units of more pieces have lower scores.
    """
    scores = {name: unit.scores / max(float(unit.scores.mean()), 1e-30) for name, unit in units.items()}
    if not scores:
        return
    for threshold in np.quantile(np.concatenate(list(scores.values())), np.arange(1, RUNGS) / RUNGS):
        yield {name: float((values < threshold).mean()) for name, values in scores.items()}


def erdos_renyi_kernel(units: Mapping[str, Removable]) -> Iterable[Shares]:
    """A unit keeps a share in proportion to the sum of its weights' sides over their product, 1 at most.

    ERK of RigL (Evci et al., arXiv 1911.11134, section 3.1) for rows: small layers keep more of theirs.
    """
    densities = {name: _erk_density(unit.shapes) for name, unit in units.items()}
    if not densities:
        return
    least, most = min(densities.values()), max(densities.values())
    for factor in np.geomspace(1 / least, 1 / (RUNGS * most), RUNGS):
        yield {name: 1 - min(1.0, float(factor) * density) for name, density in densities.items()}


def _erk_density(shapes: Sequence[tuple[int, int, int]]) -> float:
    """Sum of sides over sum of products, a kernel's taps as a square.

    >>> _erk_density([(384, 1536, 0)]) == (384 + 1536) / (384 * 1536)
    True
    >>> _erk_density([(64, 32, 9)]) == (64 + 32 + 3 + 3) / (64 * 32 * 9)
    True
    """
    sides = sum(o + i + 2 * taps**0.5 for o, i, taps in shapes)
    return float(sides / sum(o * i * max(taps, 1) for o, i, taps in shapes))


Rule = Callable[[Mapping[str, Removable]], Iterable[Shares]]

ALLOCATIONS: Mapping[str, Rule] = {
    "uniform": uniform,
    "global-threshold": global_threshold,
    "erk": erdos_renyi_kernel,
}
"""By the names that a user may ask for."""


def check_allocations(names: Sequence[str]) -> None:
    """Raise `AutopruneError` for a rule that does not exist."""
    for name in names:
        if name not in ALLOCATIONS:
            raise AutopruneError(f"--allocation {name!r} does not exist; choose {', '.join(ALLOCATIONS)}")


def allocated(
    rule: str, units: Mapping[str, Removable], space: SearchSpace, costs: Costs, budget: Budget
) -> Candidate | None:
    """The least damaging model of a rule that fits, with all units stored alike; None where none does."""
    storages = widest_first(storage for choices in space.units for storage in choices.storages)
    candidates = {
        Candidate(tuple((u.unit, u.nearest(Level(shares.get(u.unit, 0.0), storage))) for u in space.units))
        for shares in ALLOCATIONS[rule](units)
        for storage in storages
    }
    ordered = sorted(candidates, key=lambda candidate: (costs.damage(candidate), candidate.items))
    pruned = (one for one in ordered if any(level.ratio > 0 for _, level in one.items))
    return next((one for one in pruned if fits(one, costs, budget)), None)
