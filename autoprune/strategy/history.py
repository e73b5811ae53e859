"""History of a search: finished trials, candidates in flight, candidates seen. Plain data, no Optuna."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial, without_trained_kl
from autoprune.strategy.growing import GrowingSet, GrowingTuple

Key = tuple[Candidate, int]
"""A candidate and a rung: what is evaluated once."""

FLIGHT_SHARE = 64
"""With so many in flight, and each time as many more, one more candidate is chosen at a time; all but the
first are chosen ahead of when they are asked for (docs/decisions/028-what-a-proposal-looks-back-at.md)."""


@dataclass(frozen=True)
class Asked:
    """A candidate to evaluate at a rung; `token` goes back to the study with its result.

    begun: when it was handed out, by `time.monotonic()`.
    """

    token: int
    candidate: Candidate
    rung: int = 0
    begun: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class History:
    """All that a search knows of its past; a step of the search returns a new one.

    finished: the trials in order of number, with what was noted of them later. in_flight: what is being
    evaluated, by token. seen: all candidates of both. begun: every candidate and rung that was evaluated or
    is being evaluated. promoted: candidates that were begun both untrained and with a brief fine-tune.
    revisions: how often the record of a finished trial was replaced.
    """

    finished: GrowingTuple[Trial] = field(default_factory=GrowingTuple)
    in_flight: Mapping[int, Asked] = field(default_factory=dict)
    seen: GrowingSet[Candidate] = field(default_factory=GrowingSet)
    begun: GrowingSet[Key] = field(default_factory=GrowingSet)
    promoted: int = 0
    revisions: int = field(default=0, compare=False)

    @property
    def at_once(self) -> int:
        """How many candidates are chosen at a time: one, and one more for each `FLIGHT_SHARE` in flight."""
        return 1 + len(self.in_flight) // FLIGHT_SHARE

    @classmethod
    def of(cls, finished: Iterable[Trial]) -> History:
        """The history of a search that is taken up again: nothing is in flight."""
        trials = GrowingTuple(finished)
        seen = GrowingSet(trial.candidate for trial in trials)
        begun = GrowingSet((trial.candidate, trial.rung) for trial in trials)
        return cls(trials, {}, seen, begun, _promoted(begun))

    def with_asked(self, asked: Asked) -> History:
        """The history with one more candidate in flight."""
        in_flight = {**self.in_flight, asked.token: asked}
        return replace(self, in_flight=in_flight)._with_key((asked.candidate, asked.rung))

    def with_finished(self, trial: Trial, *, token: int | None = None) -> History:
        """The history with one more finished trial; token: of what was in flight, None for a baseline."""
        asked = None if token is None else self.in_flight[token]
        in_flight = {key: other for key, other in self.in_flight.items() if key != token}
        done = replace(self, finished=self.finished.plus(trial), in_flight=in_flight)
        key = trial.candidate, trial.rung
        if asked is not None and (asked.candidate, asked.rung) != key:  # told at another rung than asked
            keys = [(other.candidate, other.rung) for other in done.finished]
            keys += [(other.candidate, other.rung) for other in in_flight.values()]
            begun = GrowingSet(keys)
            done = replace(done, begun=begun, promoted=_promoted(begun))
        return done._with_key(key)

    def with_revised(self, trial: Trial) -> History:
        """The history with another record of the finished trial of this number."""
        finished = GrowingTuple(trial if old.number == trial.number else old for old in self.finished)
        return replace(self, finished=finished, revisions=self.revisions + 1)

    def _with_key(self, key: Key) -> History:
        """The history with a candidate and a rung that was begun."""
        candidate, rung = key
        is_pair = rung in (0, 1) and key not in self.begun and (candidate, 1 - rung) in self.begun
        return replace(
            self,
            seen=self.seen.plus(candidate),
            begun=self.begun.plus(key),
            promoted=self.promoted + is_pair,
        )


def _promoted(begun: AbstractSet[Key]) -> int:
    return sum(rung == 1 and (candidate, 0) in begun for candidate, rung in begun)


@dataclass
class Cursor:
    """How far a history was read by whoever follows it trial by trial.

    hides_trained: whether trained trials come without their divergence (`space/trial.without_trained_kl`).
    """

    count: int = 0
    revisions: int = 0
    last: Trial | None = None
    hides_trained: bool = False

    def advance(self, history: History) -> tuple[bool, Sequence[Trial]]:
        """Whether to begin anew, as records were revised, and the trials to take note of."""
        trials = history.finished
        is_same = self.count <= len(trials) and (not self.count or trials[self.count - 1] is self.last)
        is_anew = history.revisions != self.revisions or not is_same
        start = 0 if is_anew else self.count
        self.count, self.revisions = len(trials), history.revisions
        self.last = trials[-1] if trials else None
        new = [trials[k] for k in range(start, len(trials))]
        return is_anew, [without_trained_kl(trial) for trial in new] if self.hides_trained else new
