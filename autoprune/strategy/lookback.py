"""What a proposal looks back at: the latest trials, and what those before them come to.

Up to `LATEST` candidates a proposal learns from all. With more its time would grow with their number, and a
search of many candidates with its square. So of the older ones the front alone is looked at, and which points
of the lattice they dominate: docs/decisions/028-what-a-proposal-looks-back-at.md. All of it follows from the
trials in their order, so that a run that was cut and resumed goes on as if it had not been.

Letters: u units, n trials, q points of a lattice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial, finished
from autoprune.strategy.acquisition import Scale
from autoprune.strategy.history import Cursor, History
from autoprune.strategy.hypervolume import covers
from autoprune.strategy.records import Records
from autoprune.strategy.solver.knapsack import undominated
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.solver.planes import Choice, Floats

LATEST = 2048
"""Candidates of which all is looked at: eight times as many as a surrogate model learns from."""

KL, MS, TRAINED_KL = range(3)
"""Columns of what is known of a candidate: nats before training, milliseconds, nats after."""


@dataclass
class Lookback:
    """The trials of one search, followed one by one.

    baselines: those of the models that every run is compared with. candidates: all that finished.
    """

    problem: Problem
    scale: Scale
    lattice: Floats
    latest: int = LATEST
    baselines: list[Trial] = field(default_factory=list)
    candidates: set[Candidate] = field(default_factory=set)
    _rows: list[Choice] = field(default_factory=list)
    _known: list[list[float]] = field(default_factory=list)
    _places: dict[Candidate, int] = field(default_factory=dict)
    _first: int = 0
    _older: list[tuple[Choice, list[float]]] = field(default_factory=list)
    _kept: int = 0
    _covered: NDArray[np.bool_] | None = None
    _cursor: Cursor = field(default_factory=Cursor)

    def follow(self, history: History) -> None:
        """Take note of trials that finished since; of all of them where records were revised."""
        is_anew, trials = self._cursor.advance(history)
        if is_anew:
            vars(self).update(
                vars(Lookback(self.problem, self.scale, self.lattice, self.latest))
                | {"_cursor": self._cursor}
            )
        for trial in trials:
            self._add(trial)

    def records(self) -> Records:
        """The older front, then the latest trials."""
        older, rows, known = self._older, self._rows[self._first :], self._known[self._first :]
        chosen = np.array([row for row, _ in older] + rows, np.intp).reshape(-1, len(self.problem.units))
        numbers = np.array([numbers for _, numbers in older] + known, np.float64).reshape(-1, 3)
        kl, ms, trained_kl = (numbers[:, k].copy() for k in (KL, MS, TRAINED_KL))
        return Records(chosen, kl, ms, trained_kl, len(older), self._covered)

    def _add(self, trial: Trial) -> None:
        if trial.is_baseline:
            self.baselines.append(trial)
        self.candidates.add(trial.candidate)
        for _, m in finished([trial]):
            if not math.isfinite(m.kl) or trial.rung > 1:
                continue
            kl = max(m.kl, 0.0)
            place = self._places.get(trial.candidate)
            if trial.rung == 0:
                self._append(trial.candidate, [kl, m.latency_ms, math.nan])
            elif place is None:
                self._append(trial.candidate, [math.nan, m.latency_ms, kl])
            else:
                self._known[place][TRAINED_KL] = kl
                if place < self._first:
                    self._leave(place)

    def _append(self, candidate: Candidate, numbers: list[float]) -> None:
        self._places[candidate] = len(self._rows)
        self._rows.append(self.problem.chosen(candidate))
        self._known.append(numbers)
        if len(self._rows) - self._first > self.latest:
            self._leave(self._first)
            self._first += 1

    def _leave(self, place: int) -> None:
        """Count what a candidate comes to among the older ones."""
        row, numbers = self._rows[place], self._known[place]
        final = float(np.fmin(numbers[KL], numbers[TRAINED_KL]))
        self._older.append((row, [final, numbers[MS], math.nan]))
        covered = covers(self._points(self._older[-1:]), self.lattice)[0]
        self._covered = covered if self._covered is None else self._covered | covered
        if len(self._older) > 2 * self._kept + 128:
            points = self._points(self._older)
            on_front = {int(k) for plane in ((0, 2), (1, 2)) for k in undominated(*points[:, plane].T)}
            self._older = [self._older[k] for k in sorted(on_front)]
            self._kept = len(self._older)

    def _points(self, older: list[tuple[Choice, list[float]]]) -> Floats:
        """Where candidates lie in the unit cube [n 3]: bytes, milliseconds, divergence."""
        totals = self.problem.totals(np.array([row for row, _ in older]))
        kl, ms = np.array([numbers[KL] for _, numbers in older]), np.array([n[MS] for _, n in older])
        timed = np.where(np.isfinite(ms), ms, totals.latency_ms)
        x, y = self.scale.scaled_bytes(totals.size_bytes), self.scale.scaled_ms(timed)
        return np.stack([x, y, self.scale.scaled_kl(kl)], 1)
