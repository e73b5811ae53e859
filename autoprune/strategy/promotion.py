"""Successive halving: which trial is worth training, and for how long. Numbers only.

Every candidate is first evaluated without training (rung 0). A share of them, those that would add
most to the front, is trained briefly (rung 1), and the points to ship are trained longer (rung 2).
Promotion is asynchronous, as in ASHA (Li et al., arXiv 1810.05934, algorithm 2): no worker waits for
a rung to fill. The ranks of candidates may differ between rungs, so their agreement is measured; where
it is poor, more candidates are promoted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import ORIGINAL, Measurement, Trial, finished
from autoprune.strategy.gains import Gains
from autoprune.strategy.history import Key
from autoprune.strategy.hypervolume import KL_FLOOR, kl_scale, unit_scale
from autoprune.strategy.points import best, worth_training_longer
from autoprune.strategy.rung_agreement import ranks_are_low
from autoprune.strategy.solver.planes import BYTES, DAMAGE, MS, Floats
from autoprune.strategy.surrogates.recovery_model import WORTH_TRAINING_KL

SHARE, LARGER_SHARE = 1 / 3, 2 / 3
"""Share of the untrained candidates that is promoted; the larger where ranks agree poorly."""

LATEST = 3072
"""Trials that are looked at for candidates to train."""

MOST_KNOWN = 512
"""Trained trials from which on those that others dominate are left out."""

MOST_PAIRS = 512
"""Candidates at two rungs, the latest, from which it is judged how ranks agree."""

FINALISTS = 3
"""Trials trained longer at the end: points with a name, and the next that would be best."""

RUNG_STEPS = (0, 1, 4)
"""Fine-tuning steps at each rung, in those of the brief fine-tune."""

USUAL_LEFT = 0.8
"""Share of the divergence that a brief fine-tune leaves of a candidate of which nothing is predicted."""

SharesLeft = Callable[[Sequence[Trial]], Mapping[Candidate, float]]
"""Trials -> share of its divergence that a brief fine-tune is predicted to leave of each candidate."""


class _Waiting(NamedTuple):
    """A candidate that may be trained, with what it measured; place: of its trial, in order, from 1."""

    place: int
    candidate: Candidate
    measurement: Measurement


@dataclass
class Ladder:
    """Which candidates wait to be trained and what those that were came to, followed trial by trial.

    What it holds of a candidate that is not within the budget is its place in the ranks alone. latest: trials
    that are looked at for candidates to train; one that was not chosen while so many others ended is not
    chosen any more (docs/decisions/028-what-a-proposal-looks-back-at.md). first: candidates that are trained
    as soon as they were tried, whatever the share. least: divergence up to which none is ever trained.
    """

    budget: Budget
    latest: float = LATEST
    first: AbstractSet[Candidate] = frozenset()
    least: float = WORTH_TRAINING_KL
    count: int = 0
    _untried: int = 0
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _first_waiting: list[_Waiting] = field(default_factory=list)
    _ahead: list[_Waiting] = field(default_factory=list)
    _has_more: bool = False
    _next_look: int = 0
    _untrained: dict[Candidate, Measurement] = field(default_factory=dict)
    _trained: set[Candidate] = field(default_factory=set)
    _lost: list[Candidate] = field(default_factory=list)
    _known: list[tuple[float, float, float]] = field(default_factory=list)
    _most_known: int = MOST_KNOWN
    _ranks: dict[Candidate, float] = field(default_factory=dict)
    _pairs: list[tuple[float, float]] = field(default_factory=list)
    _judged: tuple[int, bool] = (0, False)
    _low: Floats = field(default_factory=lambda: np.full(3, np.inf))
    _high: Floats = field(default_factory=lambda: np.full(3, -np.inf))

    def add(self, trial: Trial) -> None:
        """Take note of a finished trial."""
        self.count += 1
        m = trial.measurement
        usable = m is not None and self.budget.allows(m.size_bytes, m.latency_ms) and not math.isnan(m.kl)
        if m is not None:
            self._rank(trial, m)
        if m is None or not usable:
            if trial.rung == 1:
                self._lost.append(trial.candidate)
            return
        costs = _objectives(m, 1.0)
        self._low, self._high = np.minimum(self._low, costs), np.maximum(self._high, costs)
        if trial.rung > 0:
            self._trained.add(trial.candidate)
            self._known.append(costs)
            return
        self._untrained[trial.candidate] = m
        if not trial.is_baseline and m.kl > self.least:
            self._waiting.append(_Waiting(self.count, trial.candidate, m))
            if trial.candidate in self.first:
                self._first_waiting.append(self._waiting[-1])

    def next(
        self,
        begun: AbstractSet[Key],
        in_training: Iterable[Candidate],
        promoted: int,
        *,
        at_once: int = 1,
        left: Callable[[], Mapping[Candidate, float]] = dict,
        resolved: float = KL_FLOOR,
        worth: float = WORTH_TRAINING_KL,
    ) -> Candidate | None:
        """The candidate to train briefly now, or None; as `promotion`.

        in_training: candidates that are. promoted: how many were begun both untrained and trained. at_once:
        how many are chosen at a time, each as if those before it were in training; all but the first ahead.
        """
        for waiting in self._first_waiting:
            if self._is_open(waiting, begun):
                return waiting.candidate
        if promoted >= math.floor(SHARE * self._untried + 1e-9):
            share = LARGER_SHARE if self._ranks_are_low() else SHARE
            if promoted >= math.floor(share * self._untried + 1e-9):
                return None
        if at_once == 1 or self.count >= self._next_look or (self._has_more and not self._ahead):
            self._ahead = self._chosen(at_once, begun, in_training, left, resolved, worth)
            self._has_more = len(self._ahead) == at_once
            self._next_look = self.count + at_once
        while self._ahead:
            waiting = self._ahead.pop(0)
            if self._is_open(waiting, begun) and waiting.measurement.kl > worth:
                return waiting.candidate
        return None

    def _is_open(self, waiting: _Waiting, begun: AbstractSet[Key]) -> bool:
        """Whether a candidate that waits is still looked at and was not begun."""
        return waiting.place > self.count - self.latest and (waiting.candidate, 1) not in begun

    def _chosen(
        self,
        count: int,
        begun: AbstractSet[Key],
        in_training: Iterable[Candidate],
        left: Callable[[], Mapping[Candidate, float]],
        resolved: float,
        worth: float,
    ) -> list[_Waiting]:
        """So many candidates that should add most, each beside those before it; fewer where no more do."""
        while self._waiting and self._waiting[0].place <= self.count - self.latest:
            self._waiting.popleft()
        waiting = [one for one in self._waiting if (one.candidate, 1) not in begun]
        waiting = [one for one in waiting if one.measurement.kl > worth]
        if not waiting:
            return []
        gains = self._gains(waiting, in_training, left(), resolved)
        return [waiting[k] for k in gains.largest(count)]

    def _rank(self, trial: Trial, m: Measurement) -> None:
        if trial.rung == 0:
            self._untried += not trial.is_baseline
            if math.isfinite(m.kl):
                self._ranks[trial.candidate] = m.kl
        elif trial.rung == 1 and math.isfinite(m.kl):
            before = self._ranks.get(trial.candidate)
            if before is not None and before != m.kl:
                self._pairs.append((before, m.kl))

    def _ranks_are_low(self) -> bool:
        """Whether the untrained ranks say too little, by the latest pairs; see `rung_agreement`."""
        if self._judged[0] != len(self._pairs):
            self._judged = len(self._pairs), ranks_are_low(self._pairs[-MOST_PAIRS:])
        return self._judged[1]

    def _gains(
        self,
        waiting: Sequence[_Waiting],
        in_training: Iterable[Candidate],
        left: Mapping[Candidate, float],
        resolved: float,
    ) -> Gains:
        """What each candidate that waits should add, once trained, to those that are trained."""
        # Those in training count as if they came out as expected, so that the next lies elsewhere.
        pending = [
            _objectives(self._untrained[candidate], left.get(candidate, USUAL_LEFT))
            for candidate in dict.fromkeys((*in_training, *self._lost))
            if candidate in self._untrained and candidate not in self._trained
        ]
        new = [_objectives(m, left.get(candidate, USUAL_LEFT)) for _, candidate, m in waiting]
        low, high = self._low * 0.98, self._high * 1.02  # the smallest and the largest add something too

        def place(rows: Sequence[tuple[float, float, float]]) -> Floats:
            points = np.array(rows, np.float64).reshape(-1, 3)
            scaled = [unit_scale(points[:, k], low=low[k], high=high[k]) for k in (BYTES, MS)]
            return np.stack([*scaled, kl_scale(points[:, DAMAGE], resolved=resolved)], 1)

        if len(self._known) > self._most_known:
            self._known = _thinned(self._known)
            self._most_known = max(MOST_KNOWN, 2 * len(self._known))
        return Gains.of(
            place(new),
            place([*self._known, *pending]),
            plane=(MS if self.budget.limits_latency_alone else BYTES, DAMAGE),
            volume=bool(self._low[MS] < self._high[MS]),
        )


def promotion(
    trials: Sequence[Trial],
    begun: AbstractSet[Key],
    budget: Budget,
    *,
    first: AbstractSet[Candidate] = frozenset(),
    left: SharesLeft = lambda trials: {},
    resolved: float = KL_FLOOR,
    worth: float = WORTH_TRAINING_KL,
) -> Candidate | None:
    """The untrained candidate to train briefly now, or None.

    The candidate is within the budget and should, once trained, add most to the trained ones: area in (bytes,
    log KL), and volume with milliseconds. No more than a share of all untrained candidates is promoted.

    begun: what was evaluated or is being evaluated. first: candidates that are trained as soon as they were
    tried, whatever that share. left: what of its divergence training is predicted to leave of each. resolved:
    nats a row below which divergence counts little. worth: divergence of those that are trained, at least.
    """
    ladder = Ladder(budget, math.inf, first)
    for trial in sorted(trials, key=lambda trial: trial.rung):
        ladder.add(trial)
    return ladder.next(
        begun,
        [candidate for candidate, rung in begun if rung == 1],
        sum(rung == 1 and (candidate, 0) in begun for candidate, rung in begun),
        left=lambda: left(trials),
        resolved=resolved,
        worth=worth,
    )


def _thinned(known: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Those that no other is nowhere worse than."""
    points = np.array(sorted(set(known)))
    kept: list[int] = []
    for k, point in enumerate(points):
        if not kept or not (points[kept] <= point).all(1).any():
            kept.append(k)
    return [tuple(points[k].tolist()) for k in kept]


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
    worth: float = WORTH_TRAINING_KL,
) -> Candidate | None:
    """The candidate to train longer now, or None: of the first point with a name, else the next best.

    A uniform baseline that has a name is trained too: what is shipped should be trained as long as a trial.
    worth: divergence of those that are trained, at least.
    """
    open_ = [
        trial
        for trial, m in finished(trials)
        if trial.name != ORIGINAL and trial.rung < 2
        if (trial.candidate, 2) not in begun and m.kl > worth
    ]
    tried = [trial for trial in open_ if not trial.is_baseline]
    named = worth_training_longer(trials, budget, answers=answers, chance=chance)
    shown = [*named, best(tried, budget, answers=answers)]
    return next((trial.candidate for trial in shown if trial is not None and trial in open_), None)
