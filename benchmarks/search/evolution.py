"""An EvoPress-style search: (1 + lambda) evolution by level switches at a fixed size.

After Sieberling et al., EvoPress (arXiv 2410.14649; evo_quant_search.py of their code): offspring are the
parent with a few level switches, each of which compresses one unit less and another more so that the size
is kept; the best of parent and offspring is the next parent; a child switches min(a, b) times, a and b
drawn from 1 to 3. Selection is by KL to the teacher. No predictions are read but the exact bytes.

What had to differ, and why it is fair: EvoPress searches one size at a time over thousands of
evaluations, so the trials here are shared out over `TARGETS` sizes in turn, and all that is evaluated
counts, for every size. Its levels are a line (bits, or sparsity); here a unit has two, so a switch draws
which of them moves. Its units are equally large; here they are not, so the room a switch leaves is spent.
Multi-step selection on growing samples is left out: all measurements use all rows, as for every search.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass

from autoprune.space.costs import Costs
from autoprune.space.levels import Candidate, Choices, Level, SearchSpace
from autoprune.space.storage import widest_first
from autoprune.space.trial import Trial
from benchmarks.search.arena import Arena

TARGETS, OFFSPRING = 40, 2
"""Sizes, spread by a constant factor over the range compared, and lambda.

Chosen in its favour on the digits, three seeds. In (bytes, log KL) after 20 and 100 trials it scored 0.42
and 0.44 with 5 sizes and lambda 4, 0.47 and 0.49 with 10 and 4, 0.50 and 0.51 with 20 and 2, 0.51 and 0.53
with these (also with 1 or 4 for lambda), 0.50 and 0.54 with 60 and 2: so few trials go furthest as starts.
"""

MOST_SWITCHES = 3


@dataclass
class Line:
    """The parent at one size."""

    limit_bytes: float
    parent: Candidate
    kl: float = float("inf")


def evolution(arena: Arena, seed: int) -> Generator[Candidate, Trial, None]:
    """Candidates to evaluate, without end; a generation of each size in turn."""
    rng = random.Random(seed)
    low, high = arena.range_bytes
    limits = [low * (high / low) ** ((k + 1) / TARGETS) for k in van_der_corput(TARGETS)]
    lines = [Line(limit, start(arena.space, arena.costs, limit, rng)) for limit in limits]
    seen: set[Candidate] = set()
    for line in lines:
        seen.add(line.parent)
        line.kl = _kl((yield line.parent))
    while True:
        for line in lines:
            parent = line.parent
            for _ in range(OFFSPRING):
                child = fresh(parent, seen, arena.space, arena.costs, line.limit_bytes, rng)
                seen.add(child)
                kl = _kl((yield child))
                if kl <= line.kl:
                    line.parent, line.kl = child, kl


def _kl(trial: Trial) -> float:
    return float("inf") if trial.measurement is None else trial.measurement.kl


def start(space: SearchSpace, costs: Costs, limit: float, rng: random.Random) -> Candidate:
    """The uniform candidate of most bits that fits, unpruned where one does, and the room left spent."""
    storages = widest_first(s for unit in space.units for s in unit.storages if not s.rounds_inputs)
    ratios = sorted({r for unit in space.units for r in unit.ratios})
    uniform = [space.uniform(Level(ratio, storage)) for ratio in ratios for storage in storages]
    fitting = [candidate for candidate in uniform if costs.size_bytes(candidate) <= limit]
    return spend(fitting[0] if fitting else costs.smallest(space), space, costs, limit, rng, frozenset())


def fresh(
    parent: Candidate,
    seen: set[Candidate],
    space: SearchSpace,
    costs: Costs,
    limit: float,
    rng: random.Random,
) -> Candidate:
    """A child that was not tried; after many that were, the last of them."""
    child = parent
    for _ in range(100):
        child = parent
        for _ in range(min(rng.randint(1, MOST_SWITCHES), rng.randint(1, MOST_SWITCHES))):
            child = switched(child, space, costs, limit, rng)
        if child not in seen:
            break
    return child


def switched(one: Candidate, space: SearchSpace, costs: Costs, limit: float, rng: random.Random) -> Candidate:
    """One unit a step up, others a step down until the size is kept, and the room left spent."""
    up = rng.choice(space.units)
    out = stepped(one, up, rng, more=False)
    lowered: set[str] = set()
    others = [unit for unit in space.units if unit != up]
    for _ in range(50 * len(others)):
        if costs.size_bytes(out) <= limit:
            return spend(out, space, costs, limit, rng, frozenset(lowered))
        down = rng.choice(others)
        lowered.add(down.unit)
        out = stepped(out, down, rng, more=True)
    return one


def spend(
    one: Candidate,
    space: SearchSpace,
    costs: Costs,
    limit: float,
    rng: random.Random,
    but: frozenset[str],
) -> Candidate:
    """Random units a step up while they fit; each unit is asked once, `but` these are not."""
    units = [unit for unit in space.units if unit.unit not in but]
    for unit in rng.sample(units, len(units)):
        raised = stepped(one, unit, rng, more=False)
        if costs.size_bytes(raised) <= limit:
            one = raised
    return one


def stepped(one: Candidate, unit: Choices, rng: random.Random, *, more: bool) -> Candidate:
    """The candidate with a unit compressed a step more or less, in bits or in ratio."""
    now = one[unit.unit]
    ratios, storages = sorted(unit.ratios), [s for s in unit.storages if not s.rounds_inputs]
    step = 1 if more else -1
    r, s = ratios.index(now.ratio) + step, storages.index(now.storage) + step
    moved = [Level(ratios[r], now.storage)] if 0 <= r < len(ratios) else []
    moved += [Level(now.ratio, storages[s])] if 0 <= s < len(storages) else []
    return one.with_level(unit.unit, rng.choice(moved)) if moved else one


def van_der_corput(count: int) -> list[int]:
    """0 to count - 1 so that every beginning is spread evenly: the ends, then by halving.

    >>> van_der_corput(5)
    [4, 0, 2, 1, 3]
    """
    width = max(count - 1, 1).bit_length()
    halved = [int(f"{k:0{width}b}"[::-1], 2) for k in range(1 << width)]
    order = [k for k in halved if k < count - 1]
    return [count - 1, *order] if count else []
