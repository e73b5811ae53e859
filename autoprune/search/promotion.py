"""Which trial is worth training, and for how long. Plain numbers.

Every candidate is first evaluated without training (rung 0). A share of them, those that would add
most to the front, is trained briefly (rung 1), and the points to ship are trained longer (rung 2).
Promotion is asynchronous, as in ASHA (Li et al., arXiv 1810.05934, algorithm 2): no worker waits for
a rung to fill. Ranks may flip between rungs, so how well they agree is measured; where they agree
poorly more is promoted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from autoprune.search.hypervolume import added_area, kl_area, kl_scale, size_scale
from autoprune.search.pareto import best, knee, within
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import ORIGINAL, Measurement, Trial, finished

Key = tuple[Candidate, int]
"""A candidate and a rung: what is evaluated once."""

SHARE, LARGER_SHARE = 1 / 3, 2 / 3
"""Share of the untrained candidates that is promoted; the larger where ranks agree poorly."""

LOW_TAU = 0.5
"""Kendall's tau below which the lower rung's ranks are not relied on."""

FEW = 5
"""Pairs below which tau says nothing."""

FINALISTS = 2
"""Trials trained longer at the end: the best, and the next that would be."""

RUNG_STEPS = (0, 1, 4)
"""Fine-tuning steps at each rung, in those of the brief fine-tune."""

NEGLIGIBLE_KL = 1e-3
"""Divergence (nats a row) below which training has little to mend: 48 steps took 0.00092 to 0.00086,
while accuracy on 1,263 rows stayed within the noise (MiniLM at 13 MB)."""


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau of the divergence at two rungs, over candidates evaluated at both."""

    lower: int
    upper: int
    kendall_tau: float | None
    pairs: int

    @property
    def low(self) -> bool:
        """Whether the lower rung's ranks say too little about the upper's."""
        return self.kendall_tau is not None and self.pairs >= FEW and self.kendall_tau < LOW_TAU


def agreement(trials: Sequence[Trial], lower: int, upper: int) -> Agreement:
    """How well the ranks of two rungs agree (tau-b, Kendall 1945: ties count as neither)."""
    ranks = [
        {one.candidate: m.kl for one, m in finished(trials) if one.rung == rung and math.isfinite(m.kl)}
        for rung in (lower, upper)
    ]
    both = [one for one in ranks[0] if one in ranks[1]]
    if len(both) < 3:
        return Agreement(lower, upper, None, len(both))
    tau = float(kendalltau([ranks[0][one] for one in both], [ranks[1][one] for one in both]).statistic)
    return Agreement(lower, upper, tau if math.isfinite(tau) else None, len(both))


def kl_hypervolume(trials: Sequence[Trial], sizes: tuple[float, float]) -> float:
    """Share of the box of bytes (between `sizes`) and log KL that all trials dominate."""
    done = [m for _, m in finished(trials) if not math.isnan(m.kl)]
    size, kl = np.array([float(m.size_bytes) for m in done]), np.array([m.kl for m in done])
    return kl_area(size, kl, low=sizes[0], high=sizes[1])


def promotion(trials: Sequence[Trial], begun: AbstractSet[Key], budget: Budget) -> Candidate | None:
    """The untrained candidate that is to be trained briefly now, or None.

    begun: what was evaluated or is being evaluated. Of those within the budget the one is taken
    that, trained, should add most area in (bytes, log KL) to what is trained, as long as no more than
    the share of all untrained ones is promoted.
    """
    untrained = [(one, m) for one, m in finished(trials) if one.rung == 0 and not one.is_baseline]
    promoted = sum(rung == 1 for one, rung in begun if (one, 0) in begun)
    share = LARGER_SHARE if agreement(trials, 0, 1).low else SHARE
    if promoted >= math.floor(share * len(untrained) + 1e-9):
        return None
    return next(iter(_worth_training(trials, begun, budget)), None)


def _worth_training(trials: Sequence[Trial], begun: AbstractSet[Key], budget: Budget) -> list[Candidate]:
    """Untrained candidates within the budget that could enter the front, most promising first."""
    done = [(one, m) for one, m in finished(within(trials, budget)) if not math.isnan(m.kl)]
    waiting = [
        (one, m)
        for one, m in done
        if one.rung == 0 and not one.is_baseline and (one.candidate, 1) not in begun and m.kl > NEGLIGIBLE_KL
    ]
    if not waiting:
        return []
    costs = [_cost(m, budget) for _, m in done]
    low, high = min(costs) * 0.98, max(costs) * 1.02  # the smallest and the largest add something too

    def place(pairs: Sequence[tuple[float, float]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        points = np.array(pairs, np.float64).reshape(-1, 2)
        return np.stack([size_scale(points[:, 0], low, high), kl_scale(points[:, 1])], 1)

    mended = _mended(trials)
    # Those in training count as if they came out as expected, so that the next lies elsewhere.
    known = [(_cost(m, budget), m.kl) for one, m in done if one.rung > 0]
    known += [(_cost(m, budget), m.kl * mended) for one, m in done if (one.candidate, 1) in begun]
    gain = added_area(place([(_cost(m, budget), m.kl * mended) for _, m in waiting]), place(known))
    order = np.argsort(-gain, kind="stable")
    return [waiting[k][0].candidate for k in order if gain[k] > 0]


def _cost(m: Measurement, budget: Budget) -> float:
    """What divergence is traded for: bytes, or milliseconds where these alone are limited."""
    return m.latency_ms if budget.limits_latency_alone else float(m.size_bytes)


def _mended(trials: Sequence[Trial]) -> float:
    """What a brief fine-tune leaves of the divergence: the better quarter of those seen, 0.8 at first."""
    before = {one.candidate: m.kl for one, m in finished(trials) if one.rung == 0}
    ratios = [
        m.kl / before[one.candidate]
        for one, m in finished(trials)
        if one.rung == 1 and before.get(one.candidate, 0.0) > 0
    ]
    return float(min(np.quantile(ratios, 0.25), 1.0)) if len(ratios) >= 3 else 0.8


def finalist(
    trials: Sequence[Trial], begun: AbstractSet[Key], budget: Budget, *, answers: int
) -> Candidate | None:
    """The candidate to train longer now, or None: the best, else the knee, else the next best.

    Where a uniform baseline is the best, it is: what is shipped should have been trained as long as a trial.
    """
    open_ = [
        one
        for one, m in finished(trials)
        if one.name != ORIGINAL and one.rung < 2 and (one.candidate, 2) not in begun and m.kl > NEGLIGIBLE_KL
    ]
    tried = [one for one in open_ if not one.is_baseline]
    shown = [
        best(trials, budget, answers=answers),
        knee(within(tried, budget)),
        best(tried, budget, answers=answers),
    ]
    return next((one.candidate for one in shown if one is not None and one in open_), None)
