"""Schedule: what a free worker does next. It trains a promising candidate, tries a new one, trains a
finalist, or stops."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from autoprune.core.errors import ExhaustedError
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial, is_candidate, tried_trials
from autoprune.strategy.history import Asked, Cursor, History
from autoprune.strategy.hypervolume import ByteRange, resolved_kl
from autoprune.strategy.patience import Patience
from autoprune.strategy.promotion import (
    FINALISTS,
    LATEST,
    RUNG_STEPS,
    SHARE,
    Ladder,
    SharesLeft,
    finalist,
)
from autoprune.strategy.seen_loss import SeenLoss
from autoprune.strategy.study import Study
from autoprune.strategy.surrogates.recovery_model import WORTH_TRAINING_KL

PACED = 20
"""Evaluations of a rung, the latest, that the time of the next is taken from."""

RECENT = 12
"""Candidates from which the share of those still to be promoted is estimated."""


@dataclass(frozen=True)
class Plan:
    """How far a search goes.

    wanted: candidates to try. steps: of the brief fine-tune; with 0 nothing is ever trained. answers: on
    validation, that accuracy is taken over. patience: candidates without gain after which it stops.
    deadline: by time.monotonic(). byte_range: sizes that count. first: candidates that are trained as soon as
    they were tried. left: what training is predicted to leave of candidates. chance: accuracy of always
    answering alike. other_teacher: whether another model than the original is distilled, so that divergence
    from the original is compared untrained alone.
    """

    budget: Budget
    wanted: int
    steps: int
    answers: int
    byte_range: ByteRange
    patience: int | None = None
    deadline: float | None = None
    first: AbstractSet[Candidate] = frozenset()
    left: SharesLeft = lambda trials: {}
    chance: float = 0.0
    other_teacher: bool = False


class Schedule:
    """The choices of one driver; what happened before them is the study's history."""

    def __init__(self, study: Study, plan: Plan, starts: Sequence[Candidate]) -> None:
        self._study, self._plan = study, plan
        history = study.history
        trials = history.finished
        self._starts = [candidate for candidate in starts if candidate not in history.seen]
        self._candidates = len(tried_trials(trials))
        # The finalists of these candidates; where more candidates are tried, there are new finalists.
        last = max((k for k, trial in enumerate(trials) if is_candidate(trial)), default=-1)
        self._finalists = sum(trial.rung == 2 for trial in trials[last + 1 :])
        self._cursor = Cursor(hides_trained=plan.other_teacher)
        self._begin_anew()
        self._patience = None if plan.patience is None else Patience(plan.patience, plan.byte_range)
        self._all_done, self._next_finalist = False, 0
        self.stopped_by = "trials"

    def next(self) -> Asked | None:
        """What to begin now; None where all is begun, or the time is up."""
        if self._plan.deadline is not None and time.monotonic() > self._plan.deadline:
            self.stopped_by = "time"
            return None
        self._follow()
        asked = self._promoted(self._study.history) or self._new() or self._finalist(self._study.history)
        self._all_done = asked is None and not self._study.history.in_flight
        return asked

    def seconds_left(self, workers: int) -> float:
        """Estimate of the seconds until all is done, from what evaluations at each rung have taken."""
        if self._all_done:
            return 0.0
        self._follow()
        plan, pace = self._plan, self._pace.seconds
        in_flight = self._study.history.in_flight.values()
        new = 0 if self.stopped_by != "trials" else max(0, plan.wanted - self._candidates)
        tried, promoted = self._pace.tried, self._pace.promoted
        # What is promoted grows less as the front fills; before that shows it is the share.
        share = promoted / RECENT if tried >= RECENT else SHARE
        training = sum(asked.rung == 1 for asked in in_flight)
        late = max(0.0, SHARE * tried - promoted - training) if tried < RECENT else 0.0
        trained, finalists = (new * share + late, FINALISTS - self._finalists) if plan.steps else (0.0, 0)
        now = time.monotonic()
        ends = [max(pace[x.rung] - (now - x.begun), 0.1 * pace[x.rung]) for x in in_flight]
        before = sum(end for end, asked in zip(ends, in_flight, strict=True) if asked.rung < 2)
        work = sum(ends) + new * pace[0] + trained * pace[1] + finalists * pace[2]
        # No two workers share a job, the longest of which is a finalist's, and finalists come last.
        first = (before + new * pace[0] + trained * pace[1]) / max(1, workers)
        seconds = max([work / max(1, workers), first + (pace[2] if finalists > 0 else 0.0), *ends])
        if plan.deadline is not None:
            end = max(0.0, plan.deadline - now)
            seconds = min(seconds, max([end + (0.5 * pace[plan.steps > 0] if end else 0.0), *ends]))
        return seconds

    def _begin_anew(self) -> None:
        """What is known of no trial."""
        plan = self._plan
        least = 0.0 if plan.other_teacher else WORTH_TRAINING_KL
        self._ladder = Ladder(plan.budget, first=plan.first, least=least)
        self._pace, self._seen = Pace(plan.steps), SeenLoss()

    def _follow(self) -> None:
        """Take note of trials that finished since; of all of them where records were revised."""
        is_anew, trials = self._cursor.advance(self._study.history)
        if is_anew:
            self._begin_anew()
        for trial in trials:
            self._ladder.add(trial)
            self._pace.add(trial)
            self._seen.add(trial)

    def _promoted(self, history: History) -> Asked | None:
        """A tried candidate to train briefly, or None."""
        plan = self._plan
        if not plan.steps:
            return None
        candidate = self._ladder.next(
            history.begun,
            [asked.candidate for asked in history.in_flight.values() if asked.rung == 1],
            history.promoted,
            at_once=history.at_once,
            left=lambda: plan.left(history.finished[-LATEST:]),
            resolved=resolved_kl(plan.answers),
            worth=self._worth(),
        )
        return None if candidate is None else self._study.ask(candidate, rung=1)

    def _new(self) -> Asked | None:
        """A candidate that was not tried; None where there are enough, or none is left."""
        if self._candidates >= self._plan.wanted or self._out_of_patience(self._study.history.finished):
            return None
        try:
            asked = self._study.ask(self._starts.pop(0) if self._starts else None)
        except ExhaustedError:
            self.stopped_by = "space"
            return None
        self._candidates += 1
        self._finalists = 0
        return asked

    def _finalist(self, history: History) -> Asked | None:
        """A tried candidate to train longer, or None."""
        if not self._plan.steps or self._finalists >= FINALISTS:
            return None
        if len(history.finished) < self._next_finalist:
            return None
        plan = self._plan
        candidate = finalist(
            history.finished,
            history.begun,
            plan.budget,
            answers=plan.answers,
            chance=plan.chance,
            worth=self._worth(),
        )
        if candidate is None:  # with very many in flight the next to end change little
            self._next_finalist = len(history.finished) + history.at_once - 1
            return None
        self._finalists += 1
        return self._study.ask(candidate, rung=2)

    def _worth(self) -> float:
        """Divergence of what is trained, at least; another teacher teaches what is near the original too."""
        plan = self._plan
        return 0.0 if plan.other_teacher else self._seen.worth_training(plan.answers, plan.chance)

    def _out_of_patience(self, trials: Sequence[Trial]) -> bool:
        """Whether patience ran out or the space is exhausted; once true, it stays true."""
        if self._patience is not None and self._patience.ran_out(trials):
            self.stopped_by = "patience"
        return self.stopped_by != "trials"


@dataclass
class Pace:
    """How long evaluations take at each rung, and how many are promoted, followed trial by trial.

    tried: candidates; promoted: trained ones since the twelfth last of them, or of all where there are fewer.
    """

    steps: int
    tried: int = 0
    promoted: int = 0
    _step_seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _latest: tuple[deque[float], ...] = field(
        default_factory=lambda: tuple(deque(maxlen=PACED) for _ in RUNG_STEPS)
    )
    _promoted_since: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT))
    _all_promoted: int = 0

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Mean seconds of an evaluation at each rung, over the last `PACED`.

        A guess where none was seen adds the steps, each as long as those that were seen, to what an untrained
        trial takes.
        """
        whole, count = self._step_seconds
        step = whole / count if count else 0.5
        means: list[float] = []
        for seen, times in zip(self._latest, RUNG_STEPS, strict=True):
            guess = (means[0] if means else 8.0) + step * self.steps * times
            means.append(sum(seen) / len(seen) if seen else guess)
        return means[0], means[1], means[2]

    def add(self, trial: Trial) -> None:
        """Take note of a finished trial."""
        finetune = trial.parts.get("finetune", 0.0)
        if self.steps and trial.rung > 0 and finetune > 1.0:
            self._step_seconds[0] += finetune / (self.steps * RUNG_STEPS[trial.rung])
            self._step_seconds[1] += 1
        if trial.is_baseline:
            return
        self._latest[trial.rung].append(trial.seconds)
        if is_candidate(trial):
            self.tried += 1
            self._promoted_since.append(self._all_promoted)
        self._all_promoted += trial.rung == 1
        before = self._promoted_since[0] if self.tried >= RECENT else 0
        self.promoted = self._all_promoted - before


def pace_of(trials: Sequence[Trial], steps: int) -> tuple[float, float, float]:
    """Mean seconds of an evaluation at each rung; see `Pace`."""
    pace = Pace(steps)
    for trial in trials:
        pace.add(trial)
    return pace.seconds
