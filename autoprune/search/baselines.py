"""What every run begins with: the models it is compared with, and the first candidates."""

from __future__ import annotations

import itertools

from autoprune.search.repair import fits, fitted
from autoprune.space.budget import Budget
from autoprune.space.costs import Costs
from autoprune.space.levels import Candidate, Level, SearchSpace
from autoprune.space.storage import STATIC8, GroupedIntegers, Storage, widest_first
from autoprune.space.trial import ORIGINAL


def baselines(space: SearchSpace, costs: Costs, budget: Budget) -> dict[str, Candidate]:
    """The models every run is compared with, by name; over the limit or not."""
    pruned = uniform_pruning(space, costs, budget)
    named = {
        ORIGINAL: space.untouched(),
        "uniform 8-bit": space.uniform(Level(0.0, GroupedIntegers(8))),
        "uniform 4-bit": space.uniform(Level(0.0, GroupedIntegers(4))),
    }
    if not fits(named["uniform 4-bit"], costs, budget):
        named |= _widest_that_fits(space, costs, budget)
    if any(STATIC8 in choices.storages for choices in space.units):
        named[f"uniform {STATIC8.name}"] = space.uniform(Level(0.0, STATIC8))
    return named | ({"uniform pruning": pruned} if pruned is not None else {})


def _widest_that_fits(space: SearchSpace, costs: Costs, budget: Budget) -> dict[str, Candidate]:
    """The uniform model of most bits below 4 that is predicted to fit, by name; none where none does.

    Without it nothing plain stands beside what a search finds below 4 bits, and a plain model, trained,
    can be the better one: SmolLM2 in 3 bits had perplexity 45.9 where a search that removed heads had 48.9.
    """
    for storage in _offered(space):
        if storage.bits < 4 and fits(uniform := space.uniform(Level(0.0, storage)), costs, budget):
            return {f"uniform {storage.bits}-bit": uniform}
    return {}


def _offered(space: SearchSpace) -> tuple[Storage, ...]:
    """Storages that any unit offers, the widest first."""
    return widest_first(storage for choices in space.units for storage in choices.storages)


def first_candidates(
    space: SearchSpace,
    costs: Costs,
    *,
    fast: frozenset[Storage],
    limit_bytes: int | None,
    count: int,
) -> list[Candidate]:
    """Two ladders of sizes in turn: storages that the target computes with fast, and any storages."""
    spaces = ([space.only(fast)] if fast else []) + [space]
    ladders = [warm_starts(one, costs, limit_bytes=limit_bytes, count=count // len(spaces)) for one in spaces]
    turns = itertools.zip_longest(*ladders)
    return list(dict.fromkeys(one for turn in turns for one in turn if one is not None))


def warm_starts(space: SearchSpace, costs: Costs, *, limit_bytes: int | None, count: int) -> list[Candidate]:
    """Candidates to begin with: the original brought under a ladder of sizes.

    The sizes fall by a constant factor from the limit (the original's size when there is none) to
    just above the smallest candidate.
    """
    start = costs.size_bytes(space.untouched())
    top = start if limit_bytes is None else min(limit_bytes, start)
    floor = max(1, costs.size_bytes(costs.smallest(space)))
    if top < floor:
        return []
    last = min(floor * 1.1, top)
    rungs = [top * (last / top) ** (k / max(1, count - 1)) for k in range(count)]
    made = [fitted(space.untouched(), space, costs, int(max(rung, floor))) for rung in rungs]
    return list(dict.fromkeys(made))


def uniform_pruning(space: SearchSpace, costs: Costs, budget: Budget) -> Candidate | None:
    """Every unit pruned by one ratio in one storage: of all that fit the least damaging by prediction.

    Embeddings cannot be pruned and are large, so pruning alone rarely reaches a budget: the
    storage, the same everywhere, gets narrower until some ratio fits. None where there is nothing to prune.
    """
    ratios = sorted({r for one in space.units for r in one.ratios} - {0.0})
    storages = dict.fromkeys(storage for choices in space.units for storage in choices.storages)
    every = [space.uniform(Level(ratio, storage)) for storage in storages for ratio in ratios]
    return min((one for one in every if fits(one, costs, budget)), key=costs.damage, default=None)
