"""Leaders: the trials that the front and the points to choose from depend on, kept up while trials finish.

A trial that others dominate changes neither, so that each new one is compared with the leaders alone. Numbers
only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from autoprune.space.trial import ORIGINAL, Measurement, Trial, cause_of, is_candidate
from autoprune.strategy.history import Cursor, History
from autoprune.strategy.solver.planes import Floats


@dataclass
class _Front:
    """Trials that none of those seen dominates, with what each costs [n 3]; less is better."""

    trials: list[Trial] = field(default_factory=list)
    costs: Floats = field(default_factory=lambda: np.zeros((0, 3)))

    def add(self, trial: Trial, m: Measurement) -> bool:
        """Take a trial in, unless it is dominated; whether it was taken."""
        new = np.array([float(m.size_bytes), m.latency_ms, -m.accuracy])
        no_worse = (self.costs <= new).all(1)
        if (no_worse & (self.costs < new).any(1)).any():
            return False
        no_better = (self.costs >= new).all(1)
        kept = np.asarray(~(no_better & (self.costs > new).any(1)))
        self.trials = [old for old, stays in zip(self.trials, kept, strict=True) if stays] + [trial]
        self.costs = np.concatenate([self.costs[kept], new[None]])
        return True


@dataclass
class Leaders:
    """What trials come to, followed one by one.

    tried, trained, searched, failed: counts of the search's trials as `space/trial` has them. causes: of
    those that failed, by what their failure begins with. version: raised whenever a leader comes or goes.
    baselines: those that gave a measurement.
    """

    tried: int = 0
    trained: int = 0
    searched: int = 0
    failed: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    version: int = 0
    baselines: list[Trial] = field(default_factory=list)
    _all: _Front = field(default_factory=_Front)
    _compressed: _Front = field(default_factory=_Front)
    _cursor: Cursor = field(default_factory=Cursor)

    def follow(self, history: History) -> None:
        """Take note of trials that finished since; of all of them where records were revised."""
        is_anew, trials = self._cursor.advance(history)
        if is_anew:
            vars(self).update(vars(Leaders(version=self.version + 1)) | {"_cursor": self._cursor})
        for trial in trials:
            self._add(trial)

    @property
    def trials(self) -> list[Trial]:
        """Those that the front and the points depend on, in order of number."""
        every = {trial.number: trial for trial in (*self.baselines, *self._compressed.trials)}
        every |= {trial.number: trial for trial in self._all.trials}
        return [every[number] for number in sorted(every)]

    @property
    def costs_to_beat(self) -> Floats:
        """Bytes, milliseconds and negative accuracy [n 3] of the compressed models that none dominates."""
        return self._compressed.costs

    def _add(self, trial: Trial) -> None:
        self.tried += is_candidate(trial)
        self.trained += trial.rung > 0 and not trial.is_baseline
        self.searched += not trial.is_baseline
        if trial.failure is not None and not trial.is_baseline:
            self.failed += 1
            self.causes[cause_of(trial.failure)] += 1
        m = trial.measurement
        if m is None:
            return
        changed = self._all.add(trial, m)
        if trial.name != ORIGINAL:
            changed |= self._compressed.add(trial, m)
        if trial.is_baseline:
            self.baselines.append(trial)
            changed = True
        self.version += changed
