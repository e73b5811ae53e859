"""Proposer: chooses the candidate that is tried next, from the history of a search. No Optuna.

Ours takes the candidate with the largest predicted gain in hypervolume: see `aim`. Optuna's samplers are
proposers too: see `samplers`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from autoprune.core.errors import ExhaustedError
from autoprune.space.levels import Candidate
from autoprune.strategy.aim import Aim
from autoprune.strategy.file_room import FileRoom
from autoprune.strategy.history import Cursor, History
from autoprune.strategy.lookback import Lookback
from autoprune.strategy.records import Records
from autoprune.strategy.solver.planes import Choice

VOLUME_EVERY = 3
"""Of so many proposals one aims at latency as well, and all where latency is limited: see
docs/decisions/013-latency-every-third.md."""


class Proposer(Protocol):
    """Chooses the candidate that is tried next.

    It has no memory but for what it proposed ahead where very many are in flight: a proposal depends on the
    history, its number and the run's seed alone, so that a run that was cut and resumed goes on as if it had
    not been.
    """

    @property
    def warm_starts(self) -> int:
        """How many candidates from the ladders of sizes it wants to be tried before it is asked."""

    def propose(self, history: History, number: int) -> Candidate:
        """The candidate to try next.

        number: how many candidates were asked for before, which seeds what is random.

        Raises:
            ExhaustedError: where no candidate is left to try.
        """


def trial_seed(seed: int, number: int, purpose: str = "sampler") -> int:
    """Seed of one trial: 32 bits, as many as NumPy's `RandomState` takes.

    >>> trial_seed(0, 1) == trial_seed(0, 1), trial_seed(0, 1) == trial_seed(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(f"{seed}:{number}:{purpose}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


@dataclass
class _Ahead:
    """Candidates that were proposed ahead of when they are asked for, in order.

    They are proposed anew once so many trials finished after `finished` of them as were proposed at a time.
    """

    candidates: list[Candidate] = field(default_factory=list)
    count: int = 0
    finished: int = 0
    revisions: int = 0

    def next(self, history: History) -> Candidate | None:
        """The next that is still new; None where there is none, or too much was learned since."""
        later = len(history.finished) - self.finished
        if not 0 <= later < self.count or history.revisions != self.revisions:
            return None
        while self.candidates:
            if (candidate := self.candidates.pop(0)) not in history.seen:
                return candidate
        return None


@dataclass(frozen=True)
class HypervolumeProposer:
    """Our proposer: the candidate that should add most to the front, by what finished trials taught.

    at_once: how many are proposed at a time; None: `History.at_once`.
    """

    aim: Aim
    seed: int
    at_once: int | None = None
    _lookback: Lookback = field(init=False, repr=False, compare=False)
    _ahead: _Ahead = field(init=False, repr=False, compare=False, default_factory=_Ahead)

    def __post_init__(self) -> None:
        lookback = Lookback(
            self.aim.problem,
            self.aim.scale,
            self.aim.lattice,
            _cursor=Cursor(hides_trained=self.aim.other_teacher),
        )
        object.__setattr__(self, "_lookback", lookback)

    @property
    def warm_starts(self) -> int:
        """None: the solver's candidates come first."""
        return 0

    def propose(self, history: History, number: int) -> Candidate:
        """The candidate of the largest gain; any new one where nearly all within the budget was tried."""
        count = self.at_once or history.at_once
        if count == 1:
            return self._single(history, number)
        candidate = self._ahead.next(history)
        if candidate is None:
            self._propose_ahead(history, number, count)
            candidate = self._ahead.next(history)
        return self._single(history, number) if candidate is None else candidate

    def _propose_ahead(self, history: History, number: int, count: int) -> None:
        """Propose so many at once, of one fit of the models."""
        aim, records, in_flight = self._known(history)
        by_volume = (number + count) // VOLUME_EVERY - number // VOLUME_EVERY
        by_volume = by_volume if aim.budget.latency_ms is None else count
        self._ahead.candidates = aim.batch(
            records,
            in_flight,
            history.seen,
            seed=trial_seed(self.seed, number),
            by_plane=count - by_volume,
            by_volume=by_volume,
        )
        self._ahead.count, self._ahead.finished = count, len(history.finished)
        self._ahead.revisions = history.revisions

    def _single(self, history: History, number: int) -> Candidate:
        """The candidate of the largest gain, as far as models that are fitted now tell."""
        seed = trial_seed(self.seed, number)
        aim, records, in_flight = self._known(history)
        candidate = aim.largest_gain(
            records,
            in_flight,
            history.seen,
            seed=seed,
            volume=aim.budget.latency_ms is not None or number % VOLUME_EVERY == VOLUME_EVERY - 1,
        )
        if candidate is None:
            candidate = aim.any_new(records, history.seen, seed=seed)
        if candidate is None:
            raise ExhaustedError("no candidate of this search space is left to try within the budget")
        return candidate

    def _known(self, history: History) -> tuple[Aim, Records, Choice]:
        """The aim with room for files, what trials measured, and the candidates in flight [f u]."""
        known = self._lookback
        known.follow(history)
        room = FileRoom.of(known.baselines)
        aim = self.aim.within(room.predicted(self.aim.budget, self.aim.scale.byte_range.low))
        in_flight = [
            aim.problem.chosen(asked.candidate)
            for asked in history.in_flight.values()
            if asked.candidate not in known.candidates
        ]
        rows = np.reshape(in_flight, (-1, len(aim.problem.units))).astype(np.intp)
        return aim, known.records(), rows
