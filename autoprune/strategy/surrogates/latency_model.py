"""Surrogate model of latency: Bayesian linear regression on what finished trials measured. Numbers only.

The dual form of the regression (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
section 2.1); the prior of every weight is that the table of milliseconds is right. A table has errors, and a
search for quick candidates picks the levels whose times are most underestimated. One factor for all levels
does not mend that (docs/decisions/012-features-of-the-latency-model.md), so measured less predicted time is
regressed on four kinds of feature: the speed of the machine, the work in each storage, each unit in each
storage, and each level of each unit.

Letters: u units, l levels, n trials, p features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoprune.strategy.records import MOST_TRIALS
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.solver.planes import Choice, Floats

MACHINE, STORAGE, UNIT, LEVEL = 1.0, 0.3, 0.3, 0.2
"""Prior standard deviations: of the factor on all times, and in shares of a unit's time of what a storage,
a unit in a storage, and a level of a unit are off by."""

MS_NOISE = 0.05
"""Standard deviation of a measured time, in shares of it."""


@dataclass(frozen=True)
class TimeFeatures:
    """What may be learned of the times of a problem.

    size [u l]: what a level adds to each of its features. slots [u l 3]: their numbers. scales [p]: all prior
    deviations. Feature 0, the whole predicted time, belongs to no level.
    """

    size: Floats
    slots: NDArray[np.intp]
    scales: Floats

    @classmethod
    def of(cls, problem: Problem) -> TimeFeatures:
        """Those of a problem's levels."""
        return cls(*_features(problem))


def with_corrected_latency(
    problem: Problem, chosen: Choice, measured_ms: Floats, features: TimeFeatures | None = None
) -> Problem:
    """The problem with milliseconds as candidates [n u] that took `measured_ms` [n] suggest.

    features: those of the problem, where they are known. Times that are not finite and above zero are left
    out; without any the problem is as it was. None falls below zero.
    """
    use = np.flatnonzero(np.isfinite(measured_ms) & (measured_ms > 0))[-MOST_TRIALS:]
    if len(use) == 0:
        return problem
    chosen, measured_ms = chosen[use], measured_ms[use]
    known_features = features or TimeFeatures.of(problem)
    size, slots, scales = known_features.size, known_features.slots, known_features.scales
    predicted = problem.totals(chosen).latency_ms
    rows = _rows(size, slots, len(scales), chosen)
    rows[:, 0] = predicted
    spread = rows * scales
    covariance = spread @ spread.T + np.diag((MS_NOISE * measured_ms) ** 2)
    weights = scales * (spread.T @ np.linalg.solve(covariance, measured_ms - predicted))
    known = np.where(problem.offered, problem.latency_ms, 0.0)
    table = np.maximum(known * (1.0 + weights[0]) + size * weights[slots].sum(-1), 0.0)
    fixed = max(0.0, problem.fixed_ms * (1.0 + weights[0]))
    return replace(problem, latency_ms=np.where(problem.offered, table, np.inf), fixed_ms=fixed)


def _features(problem: Problem) -> tuple[Floats, NDArray[np.intp], Floats]:
    """What a level adds to each of its features [u l], their numbers [u l 3], all prior deviations [p].

    Feature 0, the whole predicted time, belongs to no level.
    """
    units, most = problem.latency_ms.shape
    times = np.where(problem.offered, problem.latency_ms, 0.0).max(1)
    size = 0.5 * (times + times.mean())  # a unit that the fit gave no time may have some
    storages = sorted({level.storage for levels in problem.levels for level in levels})
    first_level = 1 + len(storages) * (1 + units)
    kept, slots = np.zeros((units, most)), np.zeros((units, most, 3), np.intp)
    for u, levels in enumerate(problem.levels):
        for k, level in enumerate(levels):
            storage = storages.index(level.storage)
            kept[u, k] = size[u] * (1.0 - level.ratio)
            slots[u, k] = [1 + storage, 1 + len(storages) * (1 + u) + storage, first_level + u * most + k]
    scales = [
        [MACHINE],
        [STORAGE] * len(storages),
        [UNIT] * (len(storages) * units),
        [LEVEL] * (units * most),
    ]
    return kept, slots, np.concatenate(scales)


def _rows(size: Floats, slots: NDArray[np.intp], count: int, chosen: Choice) -> Floats:
    """Features [n p] of candidates [n u]."""
    n, units = chosen.shape
    u = np.arange(units)
    where = np.arange(n)[:, None] * count + slots[u, chosen].reshape(n, units * 3)
    values = np.repeat(size[u, chosen], 3, axis=1).ravel()
    return np.bincount(where.ravel(), values, n * count).astype(np.float64, copy=False).reshape(n, count)
