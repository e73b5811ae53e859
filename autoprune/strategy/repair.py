"""Repair: brings a candidate that is over the limit of bytes under it. Numbers only, no model."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from autoprune.space.budget import Budget
from autoprune.space.costs import Costs
from autoprune.space.levels import Candidate, Level, SearchSpace


def repair(
    candidate: Candidate,
    seen: AbstractSet[Candidate],
    seed: int,
    *,
    space: SearchSpace,
    costs: Costs,
    limit_bytes: int | None,
) -> Candidate:
    """A candidate within the limit of bytes that is not in `seen`, as near to the given one as may be.

    A candidate that is within the limit and new is returned as it is. Where it is too large, the steps of
    least predicted damage a byte saved are taken until it fits; then units go back towards their proposed
    levels as far as the limit allows. Where it was seen, levels are changed at random, and the candidate is
    brought under the limit again, until it is new; then all candidates that fit are looked at in turn. Where
    none is new, a candidate that was seen is returned.
    """
    rng = random.Random(seed)  # nosec B311 # a search that can be repeated
    out = fitted(candidate, space, costs, limit_bytes)
    for _ in range(200):
        if out not in seen:
            return out
        choices = rng.choice(space.units)
        level = Level(rng.choice(choices.ratios), rng.choice(choices.storages))
        out = fitted(out.with_level(choices.unit, level), space, costs, limit_bytes)
    fitting = _fitting(space, costs, limit_bytes)
    return next((candidate for candidate in fitting if candidate not in seen), out)


def _fitting(space: SearchSpace, costs: Costs, limit_bytes: int | None) -> Iterator[Candidate]:
    """Every candidate within the limit; there are no dead ends, so each is found at once."""
    limit = math.inf if limit_bytes is None else limit_bytes
    smallest = costs.smallest(space)

    def deeper(done: Candidate, k: int) -> Iterator[Candidate]:
        if k == len(space.units):
            yield done
            return
        choices = space.units[k]
        for level in choices.levels():
            changed = done.with_level(choices.unit, level)
            if costs.size_bytes(changed) <= limit:  # with the units still to come at their smallest
                yield from deeper(changed, k + 1)

    return deeper(smallest, 0) if costs.size_bytes(smallest) <= limit else iter(())


def fitted(candidate: Candidate, space: SearchSpace, costs: Costs, limit_bytes: int | None) -> Candidate:
    """The candidate brought under the limit of bytes; the smallest of the space where none is within it."""
    if limit_bytes is None or costs.size_bytes(candidate) <= limit_bytes:
        return candidate
    now = dict(candidate.items)
    size = costs.size_bytes(candidate)
    while size > limit_bytes:
        step = _cheapest_step(now, space, costs)
        if step is None:
            break
        unit, level = step
        size += costs.levels[unit][level].size_bytes - costs.levels[unit][now[unit]].size_bytes
        now[unit] = level
    _refill_(now, dict(candidate.items), costs, limit_bytes - size)
    return Candidate(tuple(now.items()))


def _cheapest_step(now: Mapping[str, Level], space: SearchSpace, costs: Costs) -> tuple[str, Level] | None:
    """The change to fewer bytes with the least damage added a byte; None at the smallest."""
    best: tuple[float, int, str, Level] | None = None
    for choices in space.units:
        here = costs.levels[choices.unit][now[choices.unit]]
        for level in choices.levels():
            there = costs.levels[choices.unit][level]
            saved = here.size_bytes - there.size_bytes
            if saved <= 0:
                continue
            price = max(there.damage - here.damage, 0.0) / saved
            key = (price, -saved, choices.unit, level)
            best = key if best is None or key < best else best
    return None if best is None else best[2:]


def _refill_(now: dict[str, Level], proposed: Mapping[str, Level], costs: Costs, room: int) -> None:
    """Spend the bytes that remain on the changed units, most damage undone first, in place."""
    while True:
        options = []
        for unit, level in now.items():
            if level == proposed[unit]:
                continue
            table = costs.levels[unit]
            here, top = table[level], table[proposed[unit]]
            for other, there in table.items():
                grown = there.size_bytes - here.size_bytes
                undone = here.damage - there.damage
                if 0 <= grown <= room and undone > 0 and there.size_bytes <= top.size_bytes:
                    options.append((undone, -grown, unit, other))
        if not options:
            return
        _, shrunk, unit, level = max(options)
        room += shrunk
        now[unit] = level


def fits(candidate: Candidate, costs: Costs, budget: Budget) -> bool:
    """Whether a candidate is predicted to be within the budget."""
    return budget.allows(costs.size_bytes(candidate), costs.latency_ms(candidate))
