"""Surrogate model of what a brief fine-tune leaves of the divergence. Numbers only.

Bayesian linear regression, in its dual form (Rasmussen and Williams, Gaussian Processes for Machine Learning,
2006, section 2.1). Training mends what was removed better than what was rounded, and coarse rounding better
than fine. So the logarithm of divergence after over before is regressed on the shares that each *sort* of
damage has in the predicted one: removal of heads, neurons, channels, tokens or whole layers, and rounding in
each storage. Priors are nested: all removal and one sort of it, all rounding and one storage (Gelman and
Hill, Data Analysis Using Regression and Multilevel/Hierarchical Models, 2007, chapter 12). The prior means
are measured: docs/decisions/025-search-by-what-training-leaves.md.

Letters: u units, l levels, n trials, m candidates, p features; the last axis of 2 is removal, rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autoprune.strategy.records import MOST_TRIALS, Records
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.solver.planes import Choice, Floats
from autoprune.strategy.surrogates.damage_model import LEAST, DamageModel, Features

WHOLE_LAYERS = "whole layers"
"""The sort of removal at a ratio of 1, whatever the unit has."""

LEFT_OF_REMOVAL = {WHOLE_LAYERS: 0.55, "heads": 0.6, "neurons": 0.6, "channels": 0.6, "tokens": 0.8}
"""Share of the divergence by removal that a brief fine-tune leaves; of channels and tokens assumed."""

LEFT_OF_OTHER_REMOVAL = 0.7
"""The same where it is not known what is removed."""

LEFT_OF_ROUNDING = {2: 0.65, 3: 0.7, 4: 0.8}
"""Share of the divergence by rounding to so many bits that is left; of wider storages all."""

MEASURED_STEPS = 40
"""Steps of the fine-tunes that these shares were measured with; fewer steps mend in proportion."""

ALL, SORT = 0.3, 0.2
"""Prior standard deviations of the logarithm: of all removal or all rounding, and of one sort of it."""

LEFT_NOISE = 0.15
"""Standard deviation of the logarithm that no feature explains."""

WORTH_TRAINING_KL = 1e-3
"""Divergence (nats a row) from which training has something to mend; see
docs/decisions/014-what-is-worth-training.md."""

MENDED_KL = 1e-2
"""Divergence from which a fine-tune mends its full share; between this and `WORTH_TRAINING_KL` the share
grows with the logarithm."""


@dataclass(frozen=True)
class Training:
    """The brief fine-tune of a run. steps: 0 is none. removed: what each unit loses, by its name.

    other_teacher: whether another model than the original is distilled. What trials measured after training
    is not learned from then, and the shares left are the prior's.
    """

    steps: int = 0
    removed: Mapping[str, str] = field(default_factory=dict)
    other_teacher: bool = False


@dataclass(frozen=True)
class Sorts:
    """What may be learned of each sort of damage.

    parts [u l 2]: predicted damage. slots [u l 2 2]: numbers of the features of either part: of all, of the
    sort. means, scales [p]: prior means and standard deviations of the logarithm of the share left.
    """

    parts: Floats
    slots: NDArray[np.intp]
    means: Floats
    scales: Floats

    @classmethod
    def of(cls, problem: Problem, features: Features, training: Training) -> Sorts:
        """The sorts of a search space; without steps of training each leaves all, with certainty."""
        removed = [training.removed.get(unit, "") for unit in problem.units]
        kinds = [WHOLE_LAYERS, *sorted(set(removed))]
        storages = sorted({level.storage for levels in problem.levels for level in levels})
        slots = np.zeros((*problem.damage.shape, 2, 2), np.intp)
        slots[:, :, 1, 0] = 1
        for u, levels in enumerate(problem.levels):
            for k, level in enumerate(levels):
                slots[u, k, 0, 1] = 2 + kinds.index(WHOLE_LAYERS if level.ratio == 1.0 else removed[u])
                slots[u, k, 1, 1] = 2 + len(kinds) + storages.index(level.storage)
        left = [LEFT_OF_REMOVAL.get(kind, LEFT_OF_OTHER_REMOVAL) for kind in kinds]
        left += [LEFT_OF_ROUNDING.get(max(storage.bits, 2), 1.0) for storage in storages]
        means = np.concatenate([[0.0, 0.0], np.log(left)]) * min(1.0, training.steps / MEASURED_STEPS)
        scales = np.array([ALL, ALL, *[SORT] * len(left)]) * (training.steps > 0)
        return cls(np.stack([features.removal, features.rounding], -1), slots, means, scales)

    def rows(self, chosen: Choice, kl: Floats) -> Floats:
        """Features [n p] of candidates [n u] of so much divergence [n] before training."""
        (n, units), p = chosen.shape, len(self.means)
        u = np.arange(units)
        parts = self.parts[u, chosen]  # [n u 2]
        shares = parts / np.maximum(parts.sum((1, 2), keepdims=True), LEAST)
        where = np.arange(n)[:, None] * p + self.slots[u, chosen].reshape(n, units * 4)
        flat = np.bincount(where.ravel(), np.repeat(shares.reshape(n, units * 2), 2, axis=1).ravel(), n * p)
        out: Floats = flat.astype(np.float64, copy=False).reshape(n, p) * mendable(kl)[:, None]
        return out


def mendable(kl: Floats) -> Floats:
    """How much of its share a fine-tune mends: nothing below what is worth training, then ever more.

    >>> mendable(np.array([0.0, 1e-3, 10**-2.5, 1e-2, 1.0])).round(6).tolist()
    [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    logs = np.log(np.maximum(kl, LEAST) / WORTH_TRAINING_KL)
    out: Floats = np.clip(logs / np.log(MENDED_KL / WORTH_TRAINING_KL), 0.0, 1.0)
    return out


@dataclass(frozen=True)
class Recovery:
    """Predicted share of the divergence that a brief fine-tune leaves, with given weights [p]."""

    sorts: Sorts
    weights: Floats

    @classmethod
    def of(cls, sorts: Sorts, records: Records) -> Recovery:
        """The posterior mean, from trials whose divergence was measured before and after; or the prior's."""
        is_pair = (records.kl > 0) & (records.trained_kl > 0)
        is_pair[: records.older] = False
        use = np.flatnonzero(is_pair)[-MOST_TRIALS:]
        kl, trained = records.kl[use], records.trained_kl[use]
        rows = sorts.rows(records.chosen[use], kl)
        spread = rows * sorts.scales
        covariance = spread @ spread.T + LEFT_NOISE**2 * np.eye(len(use))
        surprise = np.log(trained / kl) - rows @ sorts.means
        learned = sorts.scales * (spread.T @ np.linalg.solve(covariance, surprise))
        return cls(sorts, sorts.means + learned)

    @property
    def factors(self) -> Floats:
        """Share left of each part of the damage of every level [u l 2], at most all of it."""
        out: Floats = np.exp(np.minimum(self.weights[self.sorts.slots].sum(-1), 0.0))
        return out

    def left(self, chosen: Choice, kl: Floats) -> Floats:
        """Share left [m] of the divergence [m] of candidates [m u], at most all of it."""
        logs = np.minimum(self.weights[self.sorts.slots].sum(-1), 0.0)  # [u l 2]
        parts = self.sorts.parts
        where = chosen + np.arange(chosen.shape[1]) * parts.shape[1]  # in tables [u l], flat
        total = np.maximum(parts.sum(-1).take(where).sum(1), LEAST)
        out: Floats = np.exp((parts * logs).sum(-1).take(where).sum(1) / total * mendable(kl))
        return out


@dataclass(frozen=True)
class Outlook:
    """What candidates diverge by once they were trained briefly: predicted, or measured where they were."""

    damage: DamageModel
    recovery: Recovery

    def kl(self, chosen: Choice) -> Floats:
        """Predicted divergence after the brief fine-tune [m] of candidates [m u], nats a row."""
        kl = self.damage.kl(chosen)
        out: Floats = kl * self.recovery.left(chosen, kl)
        return out

    def settled(self, records: Records) -> Floats:
        """Divergence [n] of the recorded trials: the less of before and after, or after as predicted."""
        predicted = records.kl * self.recovery.left(records.chosen, records.kl)
        predicted[: records.older] = records.kl[: records.older]
        measured = np.fmin(records.kl, records.trained_kl)
        out: Floats = np.where(np.isfinite(records.trained_kl), measured, predicted)
        return out

    def table(self) -> Floats:
        """Damage after training [u l] that sums to nearly the same, for a solver."""
        out: Floats = (self.damage.parts() * self.recovery.factors).sum(-1)
        return out
