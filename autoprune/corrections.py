"""What finished trials teach about predicted damage. Plain numbers.

A candidate's divergence is predicted as a sum of its units' damages. What that sum gets wrong is not
random: one unit's rounding is worse than predicted, removal is worse everywhere. So each part of a
unit's damage (what removal does, and what rounding adds to it) has a factor, one at first, and the
factors are learned from measured divergence by Bayesian linear regression with nested priors: all
units together, one unit, one unit at one width or ratio (Gelman and Hill, Data Analysis Using
Regression and Multilevel/Hierarchical Models, 2007, chapter 12). Errors are taken as relative.

Letters: u units, l levels, n trials, p features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.solver import Problem
from autoprune.space import FLOAT_BITS, Level

Array = NDArray[np.float64]

SHARED, UNIT, LEVEL = 0.7, 0.3, 0.3
"""Prior standard deviations of a factor: common to all units, of one unit, of one width or ratio."""

NOISE = 0.1
"""Relative error of the prediction that no factor explains."""

UNSEEN = 5e-5
"""Divergence (nats a row) that comes from the runtime's own rounding and no factor explains."""

LOWEST = 0.1
"""A factor is never less: damage is not undone by a poor fit."""

MOST_TRIALS = 300
"""Trials learned from, the latest; the cost grows with the cube of their number."""


@dataclass(frozen=True)
class Features:
    """The parts of every unit's damage, and which factors each is multiplied by.

    removal, rounding [u l]: parts of the damage. slots [u l 2 3]: for either part (removal, rounding)
    the numbers of its three factors: shared, of the unit, of the unit at this ratio or width.
    scales [p]: prior standard deviations.
    """

    removal: Array
    rounding: Array
    slots: NDArray[np.intp]
    scales: Array

    @classmethod
    def of(cls, problem: Problem) -> Features:
        """Removal is what a level of the same ratio does at full precision; rounding is the rest."""
        units, widest = problem.damage.shape
        removal = np.zeros((units, widest))
        slots = np.zeros((units, widest, 2, 3), np.intp)
        scales = [SHARED, SHARED]
        for u, levels in enumerate(problem.levels):
            own = len(scales)
            scales += [UNIT, UNIT]
            ratios = sorted({level.ratio for level in levels})
            widths = sorted({level.bits for level in levels})
            first = len(scales)
            scales += [LEVEL] * (len(ratios) + len(widths))
            place = {level: k for k, level in enumerate(levels)}
            for k, level in enumerate(levels):
                plain = place.get(Level(level.ratio, FLOAT_BITS), k)
                removal[u, k] = min(problem.damage[u, plain], problem.damage[u, k])
                by_ratio = first + ratios.index(level.ratio)
                by_width = first + len(ratios) + widths.index(level.bits)
                slots[u, k] = [[0, own, by_ratio], [1, own + 1, by_width]]
        known = np.where(np.isfinite(problem.damage), problem.damage, 0.0)
        removal = np.where(np.isfinite(problem.damage), removal, 0.0)
        return cls(removal, known - removal, slots, np.asarray(scales))

    def rows(self, chosen: NDArray[np.intp]) -> tuple[Array, Array]:
        """Share of the predicted damage behind each factor [n p], and the damage [n]."""
        n, units = chosen.shape
        u = np.arange(units)
        parts = np.stack([self.removal[u, chosen], self.rounding[u, chosen]], axis=-1)  # [n u 2]
        total = parts.sum((1, 2))
        shares = parts / np.maximum(total, 1e-300)[:, None, None]
        out = np.zeros((n, len(self.scales)))
        where = self.slots[u, chosen].reshape(n, units * 6)
        np.add.at(out, (np.arange(n)[:, None], where), np.repeat(shares.reshape(n, units * 2), 3, axis=1))
        return out, total

    def damage(self, changes: Array) -> Array:
        """Damage of every unit at every level [u l] with the factors 1 + `changes` [p]."""
        factors = np.maximum(1.0 + changes[self.slots].sum(-1), LOWEST)  # [u l 2]
        out: Array = self.removal * factors[..., 0] + self.rounding * factors[..., 1]
        return out


@dataclass(frozen=True)
class Learned:
    """The posterior of the factors after some trials."""

    features: Features
    rows: Array
    gap: Array
    noise: Array
    cholesky: Array

    @classmethod
    def of(cls, features: Features, rows: Array, predicted: Array, measured: Array) -> Learned:
        """From shares [n p], predicted and measured divergence [n]; with none, the prior."""
        use = np.flatnonzero((predicted > 0) & (measured > 0) & np.isfinite(measured))[-MOST_TRIALS:]
        rows, ratio = rows[use], measured[use] / predicted[use]
        noise = NOISE * np.maximum(ratio, 1.0) + UNSEEN / predicted[use]
        spread = rows * features.scales
        factor = np.linalg.cholesky(spread @ spread.T + np.diag(noise**2)).astype(np.float64)
        return cls(features, rows, ratio - 1.0, noise, factor)

    def damage(self, rng: np.random.Generator | None = None) -> Array:
        """Damage [u l] at the posterior mean, or at one draw of the posterior.

        A draw is a prior draw, corrected by what the trials say of it (Matheron's rule: Wilson et
        al., Efficiently sampling functions from Gaussian process posteriors, 2020, eq. 10).
        """
        scales = self.features.scales
        prior, target = np.zeros(len(scales)), self.gap
        if rng is not None:
            prior = scales * rng.standard_normal(len(scales))
            target = self.gap - self.rows @ prior - self.noise * rng.standard_normal(len(self.gap))
        weights = np.linalg.solve(self.cholesky.T, np.linalg.solve(self.cholesky, target))
        return self.features.damage(prior + scales**2 * (self.rows.T @ weights))
