"""How well the ranks of candidates agree between two rungs, and what trials come to. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.stats import kendalltau

from autoprune.space.trial import FEWEST_PAIRS, Trial, finished
from autoprune.strategy.hypervolume import ByteRange, kl_area

LOW_TAU = 0.5
"""Kendall's tau below which the lower rung's ranks are not relied on."""

FEWEST_JUDGED = 5
"""Pairs below which a low tau changes nothing."""


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau of the divergence at two rungs, over fine-tunes that were kept.

    A fine-tune that was left out or undone changed nothing, and its ranks agree for no reason. pairs:
    candidates of different divergence at the two rungs, which tau is taken over. trained: those that were
    evaluated at both. left: mean share of the divergence that the kept fine-tunes left.
    """

    lower: int
    upper: int
    kendall_tau: float | None
    pairs: int
    trained: int = 0
    left: float | None = None

    @property
    def low(self) -> bool:
        """Whether the lower rung's ranks say too little about the upper's."""
        return self.kendall_tau is not None and self.pairs >= FEWEST_JUDGED and self.kendall_tau < LOW_TAU


def agreement(trials: Sequence[Trial], lower: int, upper: int) -> Agreement:
    """How well the ranks of two rungs agree (tau-b, Kendall 1945: ties count as neither)."""
    ranks = [
        {trial.candidate: m.kl for trial, m in finished(trials) if trial.rung == rung and math.isfinite(m.kl)}
        for rung in (lower, upper)
    ]
    both = [candidate for candidate in ranks[0] if candidate in ranks[1]]
    kept = [candidate for candidate in both if ranks[0][candidate] != ranks[1][candidate]]
    lower_kl, upper_kl = ([rank[candidate] for candidate in kept] for rank in ranks)
    shares = [after / before for before, after in zip(lower_kl, upper_kl, strict=True) if before > 0]
    left = fmean(shares) if shares else None
    tau = _tau(lower_kl, upper_kl)
    return Agreement(lower, upper, tau if math.isfinite(tau) else None, len(kept), len(both), left)


def kl_hypervolume(trials: Sequence[Trial], byte_range: ByteRange) -> float:
    """Share of the box of bytes (`byte_range`) and log KL that all trials dominate."""
    done = [m for _, m in finished(trials) if not math.isnan(m.kl)]
    size, kl = np.array([float(m.size_bytes) for m in done]), np.array([m.kl for m in done])
    return kl_area(size, kl, byte_range)


def ranks_are_low(pairs: Sequence[tuple[float, float]]) -> bool:
    """Whether divergences (lower rung's, upper's) of candidates say that the lower's ranks say too little."""
    if len(pairs) < FEWEST_JUDGED:
        return False
    return _tau([before for before, _ in pairs], [after for _, after in pairs]) < LOW_TAU


def _tau(lower: Sequence[float], upper: Sequence[float]) -> float:
    """Kendall's tau-b; NaN where there are too few pairs, or nothing but ties."""
    return float(kendalltau(lower, upper).statistic) if len(lower) >= FEWEST_PAIRS else math.nan
