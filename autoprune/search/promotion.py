"""Successive halving: which trial is worth training, and for how long. Numbers only.

Every candidate is first evaluated without training (rung 0). A share of them, those that would add
most to the front, is trained briefly (rung 1), and the points to ship are trained longer (rung 2).
Promotion is asynchronous, as in ASHA (Li et al., arXiv 1810.05934, algorithm 2): no worker waits for
a rung to fill. The ranks of candidates may differ between rungs, so their agreement is measured; where
it is poor, more candidates are promoted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from autoprune.search.history import Key
from autoprune.search.hypervolume import ByteRange, added_area, kl_area, kl_scale, unit_scale
from autoprune.search.pareto import within
from autoprune.search.points import best, worth_training_longer
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import FEWEST_PAIRS, ORIGINAL, Measurement, Trial, finished

SHARE, LARGER_SHARE = 1 / 3, 2 / 3
"""Share of the untrained candidates that is promoted; the larger where ranks agree poorly."""

LOW_TAU = 0.5
"""Kendall's tau below which the lower rung's ranks are not relied on."""

FEWEST_JUDGED = 5
"""Pairs below which a low tau changes nothing."""

FINALISTS = 3
"""Trials trained longer at the end: points with a name, and the next that would be best."""

RUNG_STEPS = (0, 1, 4)
"""Fine-tuning steps at each rung, in those of the brief fine-tune."""

WORTH_TRAINING_KL = 1e-3
"""Divergence (nats a row) from which training has something to mend; see
docs/decisions/014-what-is-worth-training.md."""


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau of the divergence at two rungs, over the candidates that were evaluated at both."""

    lower: int
    upper: int
    kendall_tau: float | None
    pairs: int

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
    if len(both) < FEWEST_PAIRS:
        return Agreement(lower, upper, None, len(both))
    lower_kl, upper_kl = ([rank[candidate] for candidate in both] for rank in ranks)
    tau = float(kendalltau(lower_kl, upper_kl).statistic)
    return Agreement(lower, upper, tau if math.isfinite(tau) else None, len(both))


def kl_hypervolume(trials: Sequence[Trial], byte_range: ByteRange) -> float:
    """Share of the box of bytes (`byte_range`) and log KL that all trials dominate."""
    done = [m for _, m in finished(trials) if not math.isnan(m.kl)]
    size, kl = np.array([float(m.size_bytes) for m in done]), np.array([m.kl for m in done])
    return kl_area(size, kl, byte_range)


def promotion(trials: Sequence[Trial], begun: AbstractSet[Key], budget: Budget) -> Candidate | None:
    """The untrained candidate to train briefly now, or None.

    begun: what was evaluated or is being evaluated. The candidate is within the budget and should, once
    trained, add most area in (bytes, log KL) to the trained ones. No more than a share of all untrained
    candidates is promoted.
    """
    untrained = [trial for trial, _ in finished(trials) if trial.rung == 0 and not trial.is_baseline]
    promoted = sum(rung == 1 for candidate, rung in begun if (candidate, 0) in begun)
    share = LARGER_SHARE if agreement(trials, 0, 1).low else SHARE
    if promoted >= math.floor(share * len(untrained) + 1e-9):
        return None
    return next(iter(_worth_training(trials, begun, budget)), None)


def _worth_training(trials: Sequence[Trial], begun: AbstractSet[Key], budget: Budget) -> list[Candidate]:
    """Untrained candidates within the budget that could enter the front, most promising first."""
    done = [(trial, m) for trial, m in finished(within(trials, budget)) if not math.isnan(m.kl)]
    waiting = [
        (trial, m)
        for trial, m in done
        if trial.rung == 0 and not trial.is_baseline
        if (trial.candidate, 1) not in begun and m.kl > WORTH_TRAINING_KL
    ]
    if not waiting:
        return []
    costs = [_cost(m, budget) for _, m in done]
    low, high = min(costs) * 0.98, max(costs) * 1.02  # the smallest and the largest add something too

    def place(pairs: Sequence[tuple[float, float]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        points = np.array(pairs, np.float64).reshape(-1, 2)
        return np.stack([unit_scale(points[:, 0], low=low, high=high), kl_scale(points[:, 1])], 1)

    mended = _mended(trials)
    # Those in training count as if they came out as expected, so that the next lies elsewhere.
    known = [(_cost(m, budget), m.kl) for trial, m in done if trial.rung > 0]
    known += [(_cost(m, budget), m.kl * mended) for trial, m in done if (trial.candidate, 1) in begun]
    gain = added_area(place([(_cost(m, budget), m.kl * mended) for _, m in waiting]), place(known))
    order = np.argsort(-gain, kind="stable")
    return [waiting[k][0].candidate for k in order if gain[k] > 0]


def _cost(m: Measurement, budget: Budget) -> float:
    """What divergence is traded for: bytes, or milliseconds where these alone are limited."""
    return m.latency_ms if budget.limits_latency_alone else float(m.size_bytes)


def _mended(trials: Sequence[Trial]) -> float:
    """Share of the divergence that a brief fine-tune leaves: the better quarter of shares, 0.8 at first."""
    before = {trial.candidate: m.kl for trial, m in finished(trials) if trial.rung == 0}
    ratios = [
        m.kl / before[trial.candidate]
        for trial, m in finished(trials)
        if trial.rung == 1 and before.get(trial.candidate, 0.0) > 0
    ]
    return float(min(np.quantile(ratios, 0.25), 1.0)) if len(ratios) >= 3 else 0.8


def finalist(
    trials: Sequence[Trial],
    begun: AbstractSet[Key],
    budget: Budget,
    *,
    answers: int,
    chance: float = 0.0,
) -> Candidate | None:
    """The candidate to train longer now, or None: of the first point with a name, else the next best.

    A uniform baseline that has a name is trained too: what is shipped should be trained as long as a trial.
    """
    open_ = [
        trial
        for trial, m in finished(trials)
        if trial.name != ORIGINAL and trial.rung < 2
        if (trial.candidate, 2) not in begun and m.kl > WORTH_TRAINING_KL
    ]
    tried = [trial for trial in open_ if not trial.is_baseline]
    named = worth_training_longer(trials, budget, answers=answers, chance=chance)
    shown = [*named, best(tried, budget, answers=answers)]
    return next((trial.candidate for trial in shown if trial is not None and trial in open_), None)
