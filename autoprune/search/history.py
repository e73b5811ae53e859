"""History of a search: finished trials, candidates in flight, candidates seen. Plain data, no Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial

Key = tuple[Candidate, int]
"""A candidate and a rung: what is evaluated once."""


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
    evaluated, by token. seen: all candidates of both.
    """

    finished: tuple[Trial, ...] = ()
    in_flight: Mapping[int, Asked] = field(default_factory=dict)
    seen: frozenset[Candidate] = frozenset()

    @classmethod
    def of(cls, finished: tuple[Trial, ...]) -> History:
        """The history of a search that is taken up again: nothing is in flight."""
        return cls(finished, {}, frozenset(trial.candidate for trial in finished))

    @property
    def begun(self) -> frozenset[Key]:
        """Every candidate and rung that was evaluated or is being evaluated."""
        keys = {(trial.candidate, trial.rung) for trial in self.finished}
        return frozenset(keys | {(asked.candidate, asked.rung) for asked in self.in_flight.values()})

    def with_asked(self, asked: Asked) -> History:
        """The history with one more candidate in flight."""
        in_flight = {**self.in_flight, asked.token: asked}
        return replace(self, in_flight=in_flight, seen=self.seen | {asked.candidate})

    def with_finished(self, trial: Trial, *, token: int | None = None) -> History:
        """The history with one more finished trial; token: of what was in flight, None for a baseline."""
        in_flight = {key: asked for key, asked in self.in_flight.items() if key != token}
        return History((*self.finished, trial), in_flight, self.seen | {trial.candidate})

    def with_revised(self, trial: Trial) -> History:
        """The history with another record of the finished trial of this number."""
        finished = tuple(trial if old.number == trial.number else old for old in self.finished)
        return replace(self, finished=finished)
