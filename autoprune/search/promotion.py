"""Successive halving: which trial is worth training, and for how long. Numbers only.

Every candidate is first evaluated without training (rung 0). A share of them, those that would add
most to the front, is trained briefly (rung 1), and the points to ship are trained longer (rung 2).
Promotion is asynchronous, as in ASHA (Li et al., arXiv 1810.05934, algorithm 2): no worker waits for
a rung to fill. The ranks of candidates may differ between rungs, so their agreement is measured; where
it is poor, more candidates are promoted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.stats import kendalltau

from autoprune.search.history import Key
from autoprune.search.hypervolume import (
    KL_FLOOR,
    ByteRange,
    added_area,
    covers,
    kl_area,
    kl_scale,
    unit_lattice,
    unit_scale,
)
from autoprune.search.pareto import within
from autoprune.search.points import best, worth_training_longer
from autoprune.search.solver.planes import BYTES, DAMAGE, MS, Floats
from autoprune.search.surrogates.recovery_model import WORTH_TRAINING_KL
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

USUAL_LEFT = 0.8
"""Share of the divergence that a brief fine-tune leaves of a candidate of which nothing is predicted."""

SharesLeft = Callable[[Sequence[Trial]], Mapping[Candidate, float]]
"""Trials -> share of its divergence that a brief fine-tune is predicted to leave of each candidate."""


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
    tau = float(kendalltau(lower_kl, upper_kl).statistic) if len(kept) >= FEWEST_PAIRS else math.nan
    return Agreement(lower, upper, tau if math.isfinite(tau) else None, len(kept), len(both), left)


def kl_hypervolume(trials: Sequence[Trial], byte_range: ByteRange) -> float:
    """Share of the box of bytes (`byte_range`) and log KL that all trials dominate."""
    done = [m for _, m in finished(trials) if not math.isnan(m.kl)]
    size, kl = np.array([float(m.size_bytes) for m in done]), np.array([m.kl for m in done])
    return kl_area(size, kl, byte_range)


def promotion(
    trials: Sequence[Trial],
    begun: AbstractSet[Key],
    budget: Budget,
    *,
    first: AbstractSet[Candidate] = frozenset(),
    left: SharesLeft = lambda trials: {},
    resolved: float = KL_FLOOR,
) -> Candidate | None:
    """The untrained candidate to train briefly now, or None.

    The candidate is within the budget and should, once trained, add most to the trained ones: area in (bytes,
    log KL), and volume with milliseconds. No more than a share of all untrained candidates is promoted.

    begun: what was evaluated or is being evaluated. first: candidates that are trained as soon as they were
    tried, whatever that share. left: what of its divergence training is predicted to leave of each. resolved:
    nats a row below which divergence counts little.
    """
    waiting = _waiting(trials, begun, budget)
    at_once = next((trial.candidate for trial, _ in waiting if trial.candidate in first), None)
    if at_once is not None or not waiting:
        return at_once
    untrained = [trial for trial, _ in finished(trials) if trial.rung == 0 and not trial.is_baseline]
    promoted = sum(rung == 1 for candidate, rung in begun if (candidate, 0) in begun)
    share = LARGER_SHARE if agreement(trials, 0, 1).low else SHARE
    if promoted >= math.floor(share * len(untrained) + 1e-9):
        return None
    gain = _gains(trials, waiting, begun, budget, left(trials), resolved)
    k = int(np.argmax(gain))
    return waiting[k][0].candidate if gain[k] > 0 else None


def _waiting(
    trials: Sequence[Trial], begun: AbstractSet[Key], budget: Budget
) -> list[tuple[Trial, Measurement]]:
    """Untrained candidates within the budget that were not trained and have something to mend."""
    return [
        (trial, m)
        for trial, m in finished(within(trials, budget))
        if trial.rung == 0 and not trial.is_baseline
        if (trial.candidate, 1) not in begun and m.kl > WORTH_TRAINING_KL
    ]


def _gains(
    trials: Sequence[Trial],
    waiting: Sequence[tuple[Trial, Measurement]],
    begun: AbstractSet[Key],
    budget: Budget,
    left: Mapping[Candidate, float],
    resolved: float,
) -> Floats:
    """What each candidate that waits should add, once trained, to those that are trained."""
    done = [(trial, m) for trial, m in finished(within(trials, budget)) if not math.isnan(m.kl)]
    known = [_objectives(m, 1.0) for trial, m in done if trial.rung > 0]
    trained = {trial.candidate for trial, _ in done if trial.rung > 0}
    # Those in training count as if they came out as expected, so that the next lies elsewhere.
    known += [
        _objectives(m, left.get(trial.candidate, USUAL_LEFT))
        for trial, m in done
        if (trial.candidate, 1) in begun and trial.candidate not in trained
    ]
    new = [_objectives(m, left.get(trial.candidate, USUAL_LEFT)) for trial, m in waiting]
    costs = np.array([_objectives(m, 1.0) for _, m in done])
    low, high = costs.min(0) * 0.98, costs.max(0) * 1.02  # the smallest and the largest add something too

    def place(rows: Sequence[tuple[float, float, float]]) -> Floats:
        points = np.array(rows, np.float64).reshape(-1, 3)
        scaled = [unit_scale(points[:, k], low=low[k], high=high[k]) for k in (BYTES, MS)]
        return np.stack([*scaled, kl_scale(points[:, DAMAGE], resolved=resolved)], 1)

    plane = [MS if budget.limits_latency_alone else BYTES, DAMAGE]
    gain = added_area(place(new)[:, plane], place(known)[:, plane])
    if costs[:, MS].min() < costs[:, MS].max():
        lattice = unit_lattice()
        open_ = lattice[~covers(place(known), lattice).any(0)]
        gain = gain + covers(place(new), open_).sum(1) / len(lattice)
    return gain


def _objectives(m: Measurement, left: float) -> tuple[float, float, float]:
    """Bytes, milliseconds, and the divergence of which training leaves so much."""
    return float(m.size_bytes), m.latency_ms, m.kl * left


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
