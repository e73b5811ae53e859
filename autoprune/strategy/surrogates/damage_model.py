"""Surrogate model of divergence: Bayesian linear regression on what finished trials measured. Numbers only.

The dual form of the regression (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
section 2.1). A candidate's divergence is predicted as the sum of its units' damages. The errors of that sum
are not random: large damage saturates, the rounding of one unit is worse than predicted, removal is worse
everywhere. So the logarithm of measured over predicted divergence is regressed on three kinds of feature:

- a parabola in the logarithm of the prediction;
- the share of the damage that each part of each unit has (what removal does, and what rounding adds), with
  nested priors: all units together, one unit, one unit at one ratio or width (Gelman and Hill, Data Analysis
  Using Regression and Multilevel/Hierarchical Models, 2007, chapter 12);
- the level of each unit.

How far the error falls with the number of trials: docs/decisions/010-features-of-the-damage-model.md.

Letters: u units, l levels, n trials, m candidates, p features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.space.levels import Level
from autoprune.strategy.records import MOST_TRIALS
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.solver.planes import Choice, Floats

TREND = (1.0, 0.3, 0.1)
"""Prior standard deviations of the parabola's coefficients."""

CENTRE = -4.0
"""Log of the divergence at which the parabola has its middle: 0.02 nats."""

SHARED, PART, EFFECT = 0.7, 0.5, 0.1
"""Prior standard deviations: of a part of the damage in all units, in one unit (and at one ratio or
in one storage of it), and of a unit being at a level."""

KL_NOISE = 0.07
"""Standard deviation of the logarithm that no feature explains."""

LEAST = 1e-9
"""Nats a row that a prediction is never below: a candidate of no predicted damage has a logarithm too."""


@dataclass(frozen=True)
class Features:
    """The parts of every unit's damage, and what may be learned of each.

    removal, rounding [u l]: parts of the damage. slots [u l 2 3]: for either part (removal, rounding)
    the numbers of its three features: shared, of the unit, of the unit at this ratio or storage.
    places [u l]: the number of the feature of being there. scales [p]: prior standard deviations.
    """

    removal: Floats
    rounding: Floats
    slots: NDArray[np.intp]
    places: NDArray[np.intp]
    scales: Floats

    @classmethod
    def of(cls, problem: Problem) -> Features:
        """Removal is what a level of the same ratio does at full precision; rounding is the rest."""
        known = np.where(np.isfinite(problem.damage), problem.damage, 0.0)
        removal = np.zeros_like(known)
        slots = np.zeros((*known.shape, 2, 3), np.intp)
        scales = [*TREND, SHARED, SHARED]
        for u, levels in enumerate(problem.levels):
            own = len(scales)
            ratios = sorted({level.ratio for level in levels})
            storages = sorted({level.storage for level in levels})
            scales += [PART] * (2 + len(ratios) + len(storages))
            place = {level: k for k, level in enumerate(levels)}
            for k, level in enumerate(levels):
                plain = place.get(Level(level.ratio), k)
                removal[u, k] = min(known[u, plain], known[u, k])
                by_ratio = own + 2 + ratios.index(level.ratio)
                by_storage = own + 2 + len(ratios) + storages.index(level.storage)
                slots[u, k] = [[3, own, by_ratio], [4, own + 1, by_storage]]
        places = len(scales) + np.arange(known.size).reshape(known.shape)
        every = np.concatenate([scales, np.full(known.size, EFFECT)])
        return cls(removal, known - removal, slots, places, every)

    def rows(self, chosen: Choice) -> tuple[Floats, Floats]:
        """Features [n p] and predicted divergence [n] of candidates [n u]."""
        n, units = chosen.shape
        u = np.arange(units)
        parts = np.stack([self.removal[u, chosen], self.rounding[u, chosen]], axis=-1)  # [n u 2]
        total = np.maximum(parts.sum((1, 2)), LEAST)
        shares = (parts / total[:, None, None]).reshape(n, units * 2)
        p, each = len(self.scales), np.arange(n)[:, None]
        where = each * p + self.slots[u, chosen].reshape(n, units * 6)
        flat = np.bincount(where.ravel(), np.repeat(shares, 3, axis=1).ravel(), n * p)
        out = flat.astype(np.float64, copy=False).reshape(n, p)
        out[each, self.places[u, chosen]] = 1.0
        out[:, :3] = _parabola(np.log(total))
        return out, total


@dataclass(frozen=True)
class DamageModel:
    """Predicted divergence with given weights [p] of the features."""

    features: Features
    weights: Floats

    def kl(self, chosen: Choice) -> Floats:
        """Divergence [m] of candidates [m u], nats a row."""
        features = self.features
        learned = self.weights[features.slots].sum(-1)  # [u l 2]
        parts = features.removal * learned[..., 0] + features.rounding * learned[..., 1]
        where = chosen + np.arange(chosen.shape[1]) * parts.shape[1]  # in tables [u l], flat
        total = np.maximum((features.removal + features.rounding).take(where).sum(1), LEAST)
        shift = parts.take(where).sum(1) / total + self.weights[features.places].take(where).sum(1)
        shift += _parabola(np.log(total)) @ self.weights[:3]
        out: Floats = total * np.exp(shift)
        return out

    def parts(self) -> Floats:
        """Damage by removal and by rounding [u l 2], each with its own factor."""
        factor = np.exp(np.clip(self.weights[self.features.slots].sum(-1), -2.0, 2.0))  # [u l 2]
        out: Floats = np.stack([self.features.removal, self.features.rounding], -1) * factor
        return out

    def table(self) -> Floats:
        """Damage [u l] that sums to nearly the same, for a solver."""
        out: Floats = self.parts().sum(-1)
        return out


@dataclass(frozen=True)
class Posterior:
    """Posterior distribution of the weights after some trials."""

    features: Features
    rows: Floats
    target: Floats
    cholesky: Floats

    @classmethod
    def of(cls, features: Features, chosen: Choice, measured: Floats) -> Posterior:
        """From candidates [n u] and their measured divergence [n]; with none, the prior."""
        u = np.arange(chosen.shape[1])
        foreseen = (features.removal + features.rounding)[u, chosen].sum(1)
        # What is predicted to do no damage, the original, has no logarithm to learn from.
        use = np.flatnonzero((measured > 0) & np.isfinite(measured) & (foreseen > LEAST))[-MOST_TRIALS:]
        rows, predicted = features.rows(chosen[use])
        spread = rows * features.scales
        covariance = spread @ spread.T + KL_NOISE**2 * np.eye(len(use))
        factor = np.linalg.cholesky(covariance).astype(np.float64)
        return cls(features, rows, np.log(measured[use] / predicted), factor)

    def mean(self) -> DamageModel:
        """The model at the posterior mean; see docs/decisions/011-posterior-mean.md."""
        weights = np.linalg.solve(self.cholesky.T, np.linalg.solve(self.cholesky, self.target))
        return DamageModel(self.features, self.features.scales**2 * (self.rows.T @ weights))


def _parabola(log_kl: Floats) -> Floats:
    x = log_kl - CENTRE
    return np.stack([np.ones_like(x), x, x * x], axis=-1)
