"""Baselines, which every run is compared with, and warm starts, the first candidates of a search."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from autoprune.space.budget import Budget
from autoprune.space.costs import Costs
from autoprune.space.levels import Candidate, Level, SearchSpace
from autoprune.space.storage import STATIC8, GroupedIntegers, Storage, widest_first
from autoprune.space.trial import ORIGINAL, Trial, finished
from autoprune.strategy.pareto import within
from autoprune.strategy.promotion import FINALISTS
from autoprune.strategy.repair import fits, fitted
from autoprune.strategy.surrogates.recovery_model import WORTH_TRAINING_KL

ALWAYS = (GroupedIntegers(8), GroupedIntegers(4))
"""Storages of the uniform models that every run has, the widest first."""

UNIFORM_PRUNING = "uniform pruning"
"""Name of the baseline whose units are all pruned alike."""


def baselines(space: SearchSpace, costs: Costs, budget: Budget) -> dict[str, Candidate]:
    """The models every run is compared with, by name; over the limit or not."""
    pruned = uniform_pruning(space, costs, budget)
    uniform = [space.uniform(Level(0.0, storage)) for storage in ALWAYS]
    named = {ORIGINAL: space.untouched()}
    for storage, candidate in zip(ALWAYS, uniform, strict=True):
        named[uniform_name(_held(candidate, storage))] = candidate
    if not fits(uniform[-1], costs, budget):
        named |= _widest_that_fits(space, costs, budget)
    if any(STATIC8 in choices.storages for choices in space.units):
        named[uniform_name(STATIC8)] = space.uniform(Level(0.0, STATIC8))
    return named | ({UNIFORM_PRUNING: pruned} if pruned is not None else {})


def _held(candidate: Candidate, storage: Storage) -> Storage:
    """The storage that a uniform model was asked for, or where no unit offers it the widest that it has."""
    held = {level.storage for _, level in candidate.items}
    return storage if storage in held else widest_first(held)[0]


def uniform_name(storage: Storage) -> str:
    """The name of the baseline that is stored so everywhere.

    >>> uniform_name(GroupedIntegers(4)), uniform_name(STATIC8)
    ('uniform 4-bit', 'uniform w8a8')
    """
    return f"uniform {storage.name}-bit" if storage.name.isdecimal() else f"uniform {storage.name}"


def rivals(
    trials: Sequence[Trial],
    budget: Budget,
    *,
    worth: float = WORTH_TRAINING_KL,
    asked: AbstractSet[str] = frozenset(),
) -> list[Trial]:
    """The baselines to train now as long as finalists, which they are compared with.

    Those within the budget that training can mend, the most accurate first, as many as there are finalists,
    and those the user asked for. worth: divergence of those that are trained, at least. asked: their names.
    """
    open_ = [
        (trial, m)
        for trial, m in finished(within(trials, budget))
        if trial.is_baseline and trial.name != ORIGINAL and trial.rung < 2 and m.kl > worth
    ]
    open_.sort(key=lambda pair: (-pair[1].accuracy, pair[1].kl, pair[1].size_bytes))
    trained = {trial.candidate for trial in trials if trial.rung == 2}
    chosen = [trial for k, (trial, _) in enumerate(open_) if k < FINALISTS or trial.name in asked]
    return [trial for trial in chosen if trial.candidate not in trained]


def _widest_that_fits(space: SearchSpace, costs: Costs, budget: Budget) -> dict[str, Candidate]:
    """The uniform model of most bits below those of ALWAYS that is predicted to fit, by name.

    It may be better than what a search finds: docs/decisions/015-baseline-below-four-bits.md.
    """
    for storage in _offered(space):
        if storage.bits < ALWAYS[-1].bits and fits(
            uniform := space.uniform(Level(0.0, storage)), costs, budget
        ):
            return {uniform_name(storage): uniform}
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
    count //= len(spaces)
    ladders = [warm_starts(part, costs, limit_bytes=limit_bytes, count=count) for part in spaces]
    turns = itertools.zip_longest(*ladders)
    return list(dict.fromkeys(candidate for turn in turns for candidate in turn if candidate is not None))


def warm_starts(space: SearchSpace, costs: Costs, *, limit_bytes: int | None, count: int) -> list[Candidate]:
    """Warm starts: the original brought under a ladder of sizes.

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
    candidates = [fitted(space.untouched(), space, costs, int(max(rung, floor))) for rung in rungs]
    return list(dict.fromkeys(candidates))


def uniform_pruning(space: SearchSpace, costs: Costs, budget: Budget) -> Candidate | None:
    """Every unit pruned by the same ratio in the same storage: the least damaging of all that fit.

    Embeddings cannot be pruned and are large, so pruning alone rarely reaches a budget: the
    storage, the same everywhere, gets narrower until some ratio fits. None where there is nothing to prune.
    """
    ratios = sorted({ratio for unit in space.units for ratio in unit.ratios} - {0.0})
    storages = dict.fromkeys(storage for unit in space.units for storage in unit.storages)
    candidates = [space.uniform(Level(ratio, storage)) for storage in storages for ratio in ratios]
    fitting = (candidate for candidate in candidates if fits(candidate, costs, budget))
    return min(fitting, key=costs.damage, default=None)
