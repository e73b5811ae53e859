"""What every unit costs at every level: bytes, milliseconds and predicted damage. Plain numbers.

A candidate's size and latency are sums over its units, and so is its predicted damage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from autoprune.space.levels import Candidate, Level, SearchSpace

_COLUMNS = "levels [ratio, bits, size_bytes, damage, latency_ms]"


@dataclass(frozen=True)
class Cost:
    """One unit at one level: bytes in the target's file, predicted damage (nats a row), milliseconds."""

    size_bytes: int
    damage: float = 0.0
    latency_ms: float = 0.0


@dataclass(frozen=True)
class Costs:
    """Every unit at every level, and the bytes and milliseconds that no level changes."""

    fixed_bytes: int
    levels: Mapping[str, Mapping[Level, Cost]]
    fixed_ms: float = 0.0

    def size_bytes(self, candidate: Candidate) -> int:
        """Predicted bytes of a candidate's files."""
        return self.fixed_bytes + sum(self.levels[u][level].size_bytes for u, level in candidate.items)

    def damage(self, candidate: Candidate) -> float:
        """Predicted divergence from the teacher, nats a row, units taken one by one."""
        return sum(self.levels[u][level].damage for u, level in candidate.items)

    def latency_ms(self, candidate: Candidate) -> float:
        """Predicted latency; 0 where no latency was measured."""
        return self.fixed_ms + sum(self.levels[u][level].latency_ms for u, level in candidate.items)

    def smallest(self, space: SearchSpace) -> Candidate:
        """The candidate of fewest bytes; of equal ones the least damaging."""
        return Candidate(
            tuple(
                (unit.unit, min(unit.levels(), key=lambda level: self._order(unit.unit, level)))
                for unit in space.units
            )
        )

    def _order(self, unit: str, level: Level) -> tuple[int, float]:
        cost = self.levels[unit][level]
        return cost.size_bytes, cost.damage

    def with_damage(self, damage: Mapping[str, Mapping[Level, float]]) -> Costs:
        """The same with another predicted damage of every unit at every level."""
        return replace(
            self,
            levels={
                unit: {level: replace(cost, damage=damage[unit][level]) for level, cost in table.items()}
                for unit, table in self.levels.items()
            },
        )

    def with_latency(self, latency_ms: Mapping[str, Mapping[Level, float]], fixed_ms: float) -> Costs:
        """The same with milliseconds of every unit at every level, and those of all the rest."""
        return replace(
            self,
            fixed_ms=fixed_ms,
            levels={
                unit: {
                    level: replace(cost, latency_ms=latency_ms[unit][level]) for level, cost in table.items()
                }
                for unit, table in self.levels.items()
            },
        )

    def as_json(self) -> dict[str, Any]:
        """For `units.json`; `from_json` reads it back."""
        units = {
            unit: [
                [level.ratio, level.storage.written, cost.size_bytes, cost.damage, cost.latency_ms]
                for level, cost in table.items()
            ]
            for unit, table in self.levels.items()
        }
        return {"fixed_bytes": self.fixed_bytes, "fixed_ms": self.fixed_ms, _COLUMNS: units}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Costs:
        """Inverse of `as_json`."""
        return cls(
            int(data["fixed_bytes"]),
            {
                unit: {Level.of(float(r), s): Cost(int(n), float(d), float(t)) for r, s, n, d, t in rows}
                for unit, rows in data[_COLUMNS].items()
            },
            float(data["fixed_ms"]),
        )
