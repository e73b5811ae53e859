"""Which units are fragile, and how well the prediction of damage held, in words."""

from __future__ import annotations

from collections import defaultdict

from autoprune.report.text import MINUS, nats, plural
from autoprune.run.front_schema import Front, UnitLevel
from autoprune.space.levels import Level
from autoprune.space.trial import FEWEST_PAIRS

BITS = 4
"""Units are compared at these bits, where pruning aside most of a search is decided."""

ALIKE, PARTLY = 0.8, 0.5
"""Spearman's correlation from which ranks are called alike, and partly alike."""


def predicted(front: Front) -> bool:
    """Whether any trial has both a predicted and a measured KL to draw."""
    return any((trial.predicted_kl or 0) > 0 and (trial.kl or 0) > 0 for trial in front.searched)


def extremes(front: Front) -> str:
    """The most and the least sensitive units at 4 bits, or at the bits nearest to that."""
    rows = _compared(front)
    if not rows:
        return ""
    damage = {row.unit: row.damage or 0.0 for row in rows}
    low, high = min(damage.values()), max(damage.values())
    where = f"At {rows[0].storage.words} with {_removed(rows[0].ratio)}"
    if low == high:
        return f"{where}, all {len(damage)} units are equally sensitive."
    most, least = max(damage, key=damage.__getitem__), min(damage, key=damage.__getitem__)
    worst = f"{most} is the most sensitive ({nats(high)} nats a {front.run.place})"
    return f"{where}, {worst} and {least} the least ({nats(low)})."


def held(front: Front) -> str:
    """How the predicted damage of this run's untrained trials ranks beside the measured."""
    given = front.sensitivity
    if given is None:
        return ""
    if given.pairs < FEWEST_PAIRS:
        few = plural(given.pairs, "untrained trial") if given.pairs else "No untrained trial"
        return f"{few} measured: too few to tell how well the prediction holds."
    over = f"Over {given.pairs:,} untrained trials"
    if given.spearman is None:
        return f"{over} predicted and measured divergence cannot be compared by rank: too many are tied."
    shown = f"Spearman {given.spearman:.2f}".replace("-", MINUS)
    how = (
        "alike" if given.spearman >= ALIKE else "partly alike" if given.spearman >= PARTLY else "differently"
    )
    return f"{over} predicted and measured divergence rank {how}: {shown}."


def _compared(front: Front) -> list[UnitLevel]:
    """Levels of two units or more: nothing removed where that exists, at the bits nearest to 4."""
    by_level: dict[Level, dict[str, UnitLevel]] = defaultdict(dict)
    for row in front.sensitivity.levels if front.sensitivity else ():
        if row.damage is not None:
            by_level[Level(row.ratio, row.storage)][row.unit] = row
    shared = [level for level, rows in by_level.items() if len(rows) > 1]
    if not shared:
        return []
    return list(by_level[min(shared, key=_from_four)].values())


def _from_four(level: Level) -> tuple[float, int, int, bool]:
    """Sorts levels by ratio, then from 4 bits; float activations come before rounded ones."""
    bits = level.storage.bits
    return level.ratio, abs(bits - BITS), bits, level.storage.rounds_inputs


def _removed(ratio: float) -> str:
    return f"{100 * ratio:.0f}\u00a0% of rows removed" if ratio else "nothing removed"
