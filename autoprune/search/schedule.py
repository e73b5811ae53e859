"""What a free worker does next: train what is promising, try something new, train a finalist; or stop."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.core.errors import ExhaustedError
from autoprune.search.promotion import FINALISTS, RUNG_STEPS, SHARE, Key, finalist, kl_hypervolume, promotion
from autoprune.search.study import Study
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial

GAIN = 1e-3
"""Relative growth of the hypervolume below which `patience` candidates have brought nothing."""

RECENT = 12
"""Candidates from which the share of those still to be promoted is estimated."""


@dataclass(frozen=True)
class Work:
    """A candidate to evaluate at a rung; `token` goes back to the study with its result."""

    token: int
    candidate: Candidate
    rung: int


@dataclass(frozen=True)
class Plan:
    """How far a search goes.

    wanted: candidates to try. steps: of the brief fine-tune; with 0 nothing is ever trained. answers: on
    validation, that accuracy is taken over. patience: candidates without gain after which it stops.
    deadline: by time.monotonic(). sizes: the smallest and the largest size that count, in bytes.
    """

    budget: Budget
    wanted: int
    steps: int
    answers: int
    sizes: tuple[float, float]
    patience: int | None = None
    deadline: float | None = None


class Schedule:
    """One driver's choices. What it knows of the past it reads from the study."""

    def __init__(self, study: Study, plan: Plan, starts: Sequence[Candidate]) -> None:
        self._study, self._plan = study, plan
        trials = study.trials()
        self._begun: set[Key] = {(one.candidate, one.rung) for one in trials}
        tried = {one.candidate for one in trials}
        self._starts = [one for one in starts if one not in tried]
        self._candidates = sum(is_candidate(one) for one in trials)
        # Of those before, the finalists of this many candidates; more candidates have new ones.
        last = max((k for k, one in enumerate(trials) if is_candidate(one)), default=-1)
        self._finalists = sum(one.rung == 2 for one in trials[last + 1 :])
        self._flying: dict[int, tuple[int, float]] = {}
        self.stopped_by = "trials"

    def next(self) -> Work | None:
        """What to begin now; None where all is begun, or the time is up."""
        if self._plan.deadline is not None and time.monotonic() > self._plan.deadline:
            self.stopped_by = "time"
            return None
        trials = self._study.trials()
        if self._plan.steps and (found := promotion(trials, self._begun, self._plan.budget)) is not None:
            return self._work(found, 1)
        if (work := self._new(trials)) is not None:
            return work
        if self._plan.steps and self._finalists < FINALISTS:
            one = finalist(trials, self._begun, self._plan.budget, answers=self._plan.answers)
            if one is not None:
                self._finalists += 1
                return self._work(one, 2)
        return None

    def done(self, work: Work) -> None:
        """That a piece of work has ended and its trial is told."""
        del self._flying[work.token]

    def seconds_left(self, workers: int) -> float:
        """Estimate of the seconds until all is done, from what evaluations at each rung have taken."""
        plan, trials = self._plan, self._study.trials()
        new = 0 if self.stopped_by != "trials" else max(0, plan.wanted - self._candidates)
        pace = pace_of(trials, plan.steps)
        tried = [k for k, one in enumerate(trials) if is_candidate(one)]
        recent = trials[tried[-RECENT] :] if len(tried) >= RECENT else trials
        promoted = sum(one.rung == 1 and not one.is_baseline for one in recent)
        # What is promoted grows less as the front fills; before that shows it is the share.
        share = promoted / RECENT if len(tried) >= RECENT else SHARE
        late = max(0.0, SHARE * len(tried) - promoted) if len(tried) < RECENT else 0.0
        trained, finalists = (new * share + late, FINALISTS - self._finalists) if plan.steps else (0.0, 0)
        now = time.monotonic()
        flying = [max(pace[rung] - (now - begun), 0.1 * pace[rung]) for rung, begun in self._flying.values()]
        first = (sum(flying) + new * pace[0] + trained * pace[1]) / max(1, workers)
        # Finalists come last, and no two workers share one.
        left = max([first + pace[2] * math.ceil(finalists / max(1, workers)), *flying])
        if plan.deadline is not None:
            end = max(0.0, plan.deadline - now)
            left = min(left, max([end + (0.5 * pace[plan.steps > 0] if end else 0.0), *flying]))
        return left

    def _new(self, trials: Sequence[Trial]) -> Work | None:
        """A candidate that was not tried; None where there are enough, or none is left."""
        if self._candidates >= self._plan.wanted or self._out_of_patience(trials):
            return None
        try:
            work = self._work(self._starts.pop(0) if self._starts else None, 0)
        except ExhaustedError:
            self.stopped_by = "space"
            return None
        self._candidates += 1
        self._finalists = 0
        return work

    def _work(self, candidate: Candidate | None, rung: int) -> Work:
        asked = self._study.ask(candidate)
        self._begun.add((asked.candidate, rung))
        self._flying[asked.token] = rung, time.monotonic()
        return Work(asked.token, asked.candidate, rung)

    def _out_of_patience(self, trials: Sequence[Trial]) -> bool:
        """Once it is, or the space is tried out, it stays so, whatever those in flight bring."""
        if self._plan.patience is not None and is_idle(trials, self._plan.patience, self._plan.sizes):
            self.stopped_by = "patience"
        return self.stopped_by != "trials"


def is_candidate(one: Trial) -> bool:
    """Whether a trial counts as one of those asked for: baselines and promotions do not."""
    return one.rung == 0 and not one.is_baseline


def is_idle(trials: Sequence[Trial], patience: int, sizes: tuple[float, float]) -> bool:
    """Whether the hypervolume in (bytes, log KL) has hardly grown since `patience` candidates ago."""
    places = [k for k, one in enumerate(trials) if is_candidate(one)]
    if len(places) <= patience:
        return False
    before = kl_hypervolume(trials[: places[-patience]], sizes)
    return kl_hypervolume(trials, sizes) <= before * (1 + GAIN)


def pace_of(trials: Sequence[Trial], steps: int) -> tuple[float, float, float]:
    """Mean seconds of an evaluation at each rung over the last 20; a guess where none was seen.

    The guess adds the steps, each as long as those that were seen, to what an untrained one takes.
    """
    trained = [one for one in trials if one.rung > 0 and one.parts.get("finetune", 0.0) > 1.0]
    taken = [one.parts["finetune"] / (steps * RUNG_STEPS[one.rung]) for one in trained if steps]
    step = sum(taken) / len(taken) if taken else 0.5
    means: list[float] = []
    for times in RUNG_STEPS:
        seen = [one.seconds for one in trials if one.rung == len(means) and not one.is_baseline][-20:]
        guess = (means[0] if means else 8.0) + step * steps * times
        means.append(sum(seen) / len(seen) if seen else guess)
    return means[0], means[1], means[2]
