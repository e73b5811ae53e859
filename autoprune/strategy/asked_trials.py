"""Trials that were asked for and have not ended, by a number: with Optuna's samplers, or without Optuna.

Optuna's samplers learn from a study of its own in memory. Our proposer reads the history, so that its trials
need no more than a number: a study in memory keeps 15 kB a trial and copies its parameters one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from autoprune.core.errors import AutopruneError
from autoprune.space.levels import Candidate, SearchSpace
from autoprune.strategy import optuna_trials
from autoprune.strategy.history import History
from autoprune.strategy.proposer import Proposer
from autoprune.strategy.samplers import OptunaProposer, ProposerSampler


class AskedTrials(Protocol):
    """Gives trials their numbers, in the order in which they are asked for or added."""

    def ask(self, candidate: Candidate | None) -> tuple[int, Candidate]:
        """The number of the next trial and its candidate: the given one, or a new one.

        Raises:
            AutopruneError: where none can be proposed.
        """

    def drop(self, number: int) -> None:
        """Forget an asked trial that is not evaluated."""

    def inherit(self, number: int, stored: FrozenTrial) -> None:
        """Note on a trial that ends what is known of it since it was asked for."""

    def tell(self, number: int, stored: FrozenTrial) -> None:
        """Take note of how an asked trial ended."""

    def add(self, stored: FrozenTrial) -> None:
        """Take note of a trial that was not asked for."""


def asked_trials(
    proposer: Proposer, space: SearchSpace, history: Callable[[], History], finished: Iterable[FrozenTrial]
) -> AskedTrials:
    """What a proposer needs, after some trials that were finished before.

    history: all that the search knows of its past now.
    """
    if isinstance(proposer, OptunaProposer):
        return OptunaTrials(proposer, space, history, finished)
    return NumberedTrials(proposer, space, history, sum(1 for _ in finished))


@dataclass
class NumberedTrials(AskedTrials):
    """Trials of a proposer that knows no Optuna. begun: when those in flight were asked for."""

    proposer: Proposer
    space: SearchSpace
    history: Callable[[], History]
    count: int
    begun: dict[int, datetime] = field(default_factory=dict)

    def ask(self, candidate: Candidate | None) -> tuple[int, Candidate]:
        number, self.count = self.count, self.count + 1
        if candidate is None:
            candidate = self.proposer.propose(self.history(), number)
            self.space.check(candidate)
        self.begun[number] = datetime.now()
        return number, candidate

    def drop(self, number: int) -> None:
        del self.begun[number]

    def inherit(self, number: int, stored: FrozenTrial) -> None:
        stored.datetime_start = self.begun[number]

    def tell(self, number: int, stored: FrozenTrial) -> None:
        del self.begun[number]

    def add(self, stored: FrozenTrial) -> None:
        self.count += 1


class OptunaTrials(AskedTrials):
    """Trials of a study of Optuna's in memory, which its samplers learn from."""

    def __init__(
        self,
        proposer: Proposer,
        space: SearchSpace,
        history: Callable[[], History],
        finished: Iterable[FrozenTrial],
    ) -> None:
        self._space, self._distributions = space, dict(optuna_trials.distributions_of(space))
        self._study = optuna.create_study(
            directions=optuna_trials.DIRECTIONS,
            sampler=ProposerSampler(proposer, space=space, history=history),
            pruner=optuna.pruners.NopPruner(),
        )
        self._study.add_trials(finished)

    def ask(self, candidate: Candidate | None) -> tuple[int, Candidate]:
        if candidate is not None:
            self._study.enqueue_trial(dict(candidate.params()))
        try:
            trial = self._study.ask(self._distributions)
        except AutopruneError:
            self.drop(len(self._study.get_trials(deepcopy=False)) - 1)
            raise
        return trial.number, optuna_trials.candidate_of(trial.params, self._space)

    def drop(self, number: int) -> None:
        self._study.tell(number, state=TrialState.FAIL)

    def inherit(self, number: int, stored: FrozenTrial) -> None:
        optuna_trials.inherit(stored, self._study.get_trials(deepcopy=False)[number])

    def tell(self, number: int, stored: FrozenTrial) -> None:
        self._study.tell(number, stored.values, stored.state)

    def add(self, stored: FrozenTrial) -> None:
        self._study.add_trial(stored)
