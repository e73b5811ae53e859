"""A table of milliseconds: what each unit takes at each level, measured on the target.

Whole models are timed against the original with every unit of one shape at one level, and the
difference is shared out among these units; a ratio between is interpolated, since time falls in line
with the rows that are left (measured on OpenVINO: half the heads and neurons 1.9 times faster). Bits
fall into two classes there: those the runtime computes with fast, and those that save bytes alone.
Predictions for the search to aim by; a trial's latency is always measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoprune.costs import Costs
from autoprune.space import FLOAT_BITS, UNTOUCHED, Candidate, Level, SearchSpace
from autoprune.units import Unit

Shape = tuple[object, ...]


@dataclass(frozen=True)
class Probe:
    """All units of one shape at one level, the others untouched."""

    units: tuple[str, ...]
    level: Level

    def candidate(self, space: SearchSpace) -> Candidate:
        """As a candidate of the space."""
        return Candidate(
            tuple((one.unit, self.level if one.unit in self.units else UNTOUCHED) for one in space.units)
        )


def probes(units: Sequence[Unit], space: SearchSpace, fast_bits: frozenset[int]) -> list[Probe]:
    """What has to be timed: for each shape of unit its largest ratio, a fast width, and both."""
    groups: dict[Shape, list[str]] = {}
    for unit in units:
        groups.setdefault(_shape(unit), []).append(unit.name)
    choices = {one.unit: one for one in space.units}
    found = []
    for names in groups.values():
        one = choices[names[0]]
        bits = [FLOAT_BITS, *_fast(one.bits, fast_bits)[:1]]
        ends = dict.fromkeys((0.0, max(one.ratios)))
        levels = [Level(ratio, b) for ratio in ends for b in bits]
        found += [Probe(tuple(names), level) for level in levels if level != UNTOUCHED]
    return found


def with_latency(
    costs: Costs,
    space: SearchSpace,
    taken: Mapping[Probe, float],
    original_ms: float,
    fast_bits: frozenset[int],
) -> Costs:
    """Costs with milliseconds from what the probes took, the original taking `original_ms`."""
    saved: dict[str, dict[Level, float]] = {}
    for probe, ms in taken.items():
        for unit in probe.units:
            saved.setdefault(unit, {})[probe.level] = (original_ms - ms) / len(probe.units)
    table = {}
    for one in space.units:
        known = {UNTOUCHED: 0.0} | saved.get(one.unit, {})
        fast = _fast(one.bits, fast_bits)
        widest = max(one.ratios)
        gained = {}
        for level in one.levels():
            bits = fast[0] if level.bits in fast else FLOAT_BITS
            low, high = known.get(Level(0.0, bits), 0.0), known.get(Level(widest, bits), 0.0)
            gained[level] = low + (high - low) * (level.ratio / widest if widest else 0.0)
        most = max(gained.values())
        table[one.unit] = {level: most - gain for level, gain in gained.items()}
    fixed = original_ms - sum(table[one.unit][UNTOUCHED] for one in space.units)
    return costs.with_latency(table, fixed)


def _shape(unit: Unit) -> Shape:
    weights = tuple((weight.rows, weight.columns) for weight in unit.weights)
    return unit.kind, weights, unit.ratios, unit.bits


def _fast(bits: Sequence[int], fast_bits: frozenset[int]) -> list[int]:
    """The widths offered that are computed with fast, the widest first."""
    return sorted((b for b in bits if b in fast_bits and b != FLOAT_BITS), reverse=True)
