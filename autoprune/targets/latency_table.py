"""Latency table: milliseconds of each unit at each level, fitted to whole models timed on the target.

Microbenchmarks of single layers miss what a runtime fuses and what stays in a cache, so whole models
are timed, with all units at various levels at once, and a unit's time is what fits these best: for each
shape of unit and each way of computing, a constant and a part in line with the rows that are left
(measured on OpenVINO: half the heads and neurons 1.9 times faster). Ways of computing are the storages the
runtime is fast with; all others are computed as floats. What is timed is chosen so that the times say
most (D-optimal design: Fedorov, Theory of Optimal Experiments, 1972, greedily). The error stated is that
on models left out of the fit, one at a time. A trial's latency is always measured.

Shapes: n models, p features (a constant and a slope of each shape and way, and one of all models).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from autoprune.models.unit import Unit
from autoprune.space.costs import Costs
from autoprune.space.levels import Candidate, Level, SearchSpace
from autoprune.space.storage import FLOAT32, Storage

Array = NDArray[np.float64]
Way = tuple[object, Storage]
"""A shape of unit, and the storage it computes with."""

DRAWS = 400
"""Random candidates from which those to time are chosen."""

SPARE = 1.3
"""Models timed for each feature: with as many as features a single disturbed time would be believed."""

RIDGE = 0.02
"""Of the original's time over a feature's usual size: a unit that hardly counts is not fitted to noise."""

HOLDS = (RIDGE, 30.0, 300.0)
"""How strongly units are held to be like others of their kind, whatever their shapes; the strength that
predicts best is taken (docs/decisions/023-holds-of-the-latency-table.md)."""


@dataclass(frozen=True)
class LatencyTable:
    """Time of each unit at each level, and of all the rest, in shares of the original's.

    error: mean relative error on models that were left out of the fit; None where nothing was fitted.
    """

    levels: Mapping[str, Mapping[Level, float]]
    fixed: float
    error: float | None

    def applied(self, costs: Costs, original_ms: float) -> Costs:
        """Costs with these milliseconds, the original taking `original_ms`."""
        table = {u: {level: x * original_ms for level, x in row.items()} for u, row in self.levels.items()}
        return costs.with_latency(table, self.fixed * original_ms)


class Design:
    """A search space's units as features of a candidate's time on a target that is fast at some levels.

    is_fast: whether a unit is computed faster at a level than as floats with as many rows.
    """

    def __init__(
        self, units: Sequence[Unit], space: SearchSpace, is_fast: Callable[[Unit, Level], bool]
    ) -> None:
        self.units, self.space, self._is_fast = units, space, is_fast
        self._place: dict[Way, int] = {}
        kinds: dict[tuple[object, ...], int] = {}
        alike = [0]
        self._slopes: list[int] = []
        self.size = 1
        for unit, unit_levels in zip(units, space.units, strict=True):
            if all(weight.is_embedding for weight in unit.weights):
                continue  # a look-up's time hardly counts
            for level in unit_levels.levels():
                if (way := self._way(unit, level)) not in self._place:
                    self._place[way] = self.size
                    if unit.prunable:
                        self._slopes.append(self.size + 1)
                    self.size += 2 if unit.prunable else 1
                    told = (unit.kind, len(unit.weights), unit.prunable, way[1])
                    alike += [
                        kinds.setdefault((*told, k), 1 + len(kinds)) for k in range(self.size - len(alike))
                    ]
        self._alike = np.eye(1 + len(kinds))[alike]  # [p c]: the kind c of which a feature is

    def features(self, candidate: Candidate) -> Array:
        """Of a candidate [p]: one, then for each way how many units compute so, and their rows' shares."""
        out = np.zeros(self.size)
        out[0] = 1.0
        for unit, (_, level) in zip(self.units, candidate.items, strict=True):
            if (place := self._place.get(self._way(unit, level))) is not None:
                out[place] += 1.0
                if unit.prunable:
                    out[place + 1] += unit.kept(level.ratio) / unit.pieces
        return out

    def probes(self, *, seed: int = 0) -> list[Candidate]:
        """The candidates to time; none where no level changes what is computed."""
        if self.size == 1:
            return []
        drawn = list(dict.fromkeys(self._drawn(np.random.default_rng(seed))))
        rows = np.stack([self.features(candidate) for candidate in drawn])
        spread = rows.std(0)
        # Errors are relative, so what is quick says more of the parts that no level takes away.
        rows = rows / np.where(spread > 0, spread, 1.0) / self._guess(rows)[:, None]
        inverse = np.eye(self.size) * 1e3
        chosen: list[int] = []
        for _ in range(min(len(drawn), math.ceil(SPARE * np.count_nonzero(spread)))):
            gain = np.einsum("np,pq,nq->n", rows, inverse, rows)
            gain[chosen] = -1.0
            best = int(gain.argmax())
            seen = inverse @ rows[best]
            inverse = inverse - np.outer(seen, seen) / (1.0 + gain[best])
            chosen.append(best)
        return [drawn[k] for k in chosen]

    def fitted(self, probes: Sequence[Candidate], times: Sequence[float]) -> LatencyTable:
        """The table from what the probes took, in shares of the original's time, which is one more probe."""
        every = [self.space.untouched(), *probes]
        rows = np.stack([self.features(candidate) for candidate in every])
        taken = np.array([1.0, *times])
        errors = [self._error(rows, taken, hold) for hold in HOLDS]
        best = int(np.argmin(errors))
        weights = _fit(rows, taken, self._alike, HOLDS[best])
        error = errors[best] if probes else None
        levels = {
            unit_levels.unit: {level: self._time(unit, level, weights) for level in unit_levels.levels()}
            for unit, unit_levels in zip(self.units, self.space.units, strict=True)
        }
        return LatencyTable(levels, float(weights[0]), error)

    def _error(self, rows: Array, taken: Array, hold: float) -> float:
        """Mean relative error on the probes, each left out in turn."""
        off = [
            abs(rows[k] @ _fit(np.delete(rows, k, 0), np.delete(taken, k), self._alike, hold) / taken[k] - 1)
            for k in range(1, len(taken))
        ]
        return float(np.mean(off)) if off else 0.0

    def _guess(self, rows: Array) -> Array:
        """Times [n] assumed before anything is timed: a tenth, and the rest by the rows that are left."""
        left = rows[:, self._slopes].sum(1)
        out: Array = 0.1 + left / max(float(left.max(initial=0.0)), 1e-9)
        return out

    def _time(self, unit: Unit, level: Level, weights: Array) -> float:
        place = self._place.get(self._way(unit, level))
        if place is None:
            return 0.0
        slope = weights[place + 1] if unit.prunable else 0.0
        return float(weights[place] + slope * unit.kept(level.ratio) / unit.pieces)

    def _way(self, unit: Unit, level: Level) -> Way:
        shapes = tuple((weight.rows, weight.columns) for weight in unit.weights)
        return (unit.kind, shapes), level.storage if self._is_fast(unit, level) else FLOAT32

    def _drawn(self, rng: np.random.Generator) -> list[Candidate]:
        """Random candidates: of each three one shares a level by shape of unit, which tells ways apart, and
        one is uniform, as the quickest and slowest are."""
        levels = [list(unit.levels()) for unit in self.space.units]
        every = list(dict.fromkeys(level for offered in levels for level in offered))
        out = []
        for k in range(DRAWS):
            if k % 3 == 2:
                out.append(self.space.uniform(every[rng.integers(len(every))]))
                continue
            picked: dict[Any, Level] = {}
            items = []
            for unit, offered in zip(self.units, levels, strict=True):
                key = (self._way(unit, Level())[0], tuple(offered)) if k % 3 else unit.name
                if key not in picked:
                    picked[key] = self._level(offered, unit, rng)
                items.append((unit.name, picked[key]))
            out.append(Candidate(tuple(items)))
        return out

    def _level(self, offered: Sequence[Level], unit: Unit, rng: np.random.Generator) -> Level:
        """A random level: each way of computing is equally likely, however many storages it has."""
        ways = sorted({self._way(unit, level)[1].name for level in offered})
        way = ways[rng.integers(len(ways))]
        same = [level for level in offered if self._way(unit, level)[1].name == way]
        return same[rng.integers(len(same))]


def _fit(rows: Array, times: Array, alike: Array, hold: float) -> Array:
    """Non-negative weights [p] of least relative error, pulled toward the fit of units of a kind [p c]."""
    kinds = rows @ alike
    shared = alike @ _nearest(kinds, times, np.zeros(kinds.shape[1]), RIDGE)
    return _nearest(rows, times, shared, hold) if alike.shape[0] > alike.shape[1] else shared


def _nearest(rows: Array, times: Array, wanted: Array, hold: float) -> Array:
    """Non-negative weights [p] of least relative error, pulled toward `wanted` [p]."""
    held = hold * np.diag(np.maximum(rows.mean(0), 1e-9))
    held[0, 0] = 0.0
    left = np.concatenate([rows / times[:, None], held])
    solution: Array = nnls(left, np.concatenate([np.ones(len(times)), held @ wanted]))[0]
    return solution
