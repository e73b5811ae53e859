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
from autoprune.strategy.history import History
from autoprune.strategy.lookback import Lookback

VOLUME_EVERY = 3
"""Of so many proposals one aims at latency as well, and all where latency is limited: see
docs/decisions/013-latency-every-third.md."""


class Proposer(Protocol):
    """Chooses the candidate that is tried next.

    It has no memory: a proposal depends on the history, its number and the run's seed alone, so that a run
    that was cut and resumed goes on as if it had not been.
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


@dataclass(frozen=True)
class HypervolumeProposer:
    """Our proposer: the candidate that should add most to the front, by what finished trials taught."""

    aim: Aim
    seed: int
    _lookback: Lookback = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lookback = Lookback(self.aim.problem, self.aim.scale, self.aim.lattice)
        object.__setattr__(self, "_lookback", lookback)

    @property
    def warm_starts(self) -> int:
        """None: the solver's candidates come first."""
        return 0

    def propose(self, history: History, number: int) -> Candidate:
        """The candidate of the largest gain; any new one where nearly all within the budget was tried."""
        seed, known = trial_seed(self.seed, number), self._lookback
        known.follow(history)
        room = FileRoom.of(known.baselines)
        aim = self.aim.within(room.predicted(self.aim.budget, self.aim.scale.byte_range.low))
        records = known.records()
        in_flight = [
            aim.problem.chosen(asked.candidate)
            for asked in history.in_flight.values()
            if asked.candidate not in known.candidates
        ]
        candidate = aim.largest_gain(
            records,
            np.reshape(in_flight, (-1, len(aim.problem.units))).astype(np.intp),
            history.seen,
            seed=seed,
            volume=aim.budget.latency_ms is not None or number % VOLUME_EVERY == VOLUME_EVERY - 1,
        )
        if candidate is None:
            candidate = aim.any_new(records, history.seen, seed=seed)
        if candidate is None:
            raise ExhaustedError("no candidate of this search space is left to try within the budget")
        return candidate
