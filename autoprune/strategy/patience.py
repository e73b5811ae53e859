"""Whether the last candidates brought nothing: the growth of the hypervolume in (bytes, log KL)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from autoprune.space.trial import Trial, is_candidate
from autoprune.strategy.hypervolume import ByteRange, kl_scale, unit_scale
from autoprune.strategy.pareto import Stairs

GAIN = 1e-3
"""Relative growth of the hypervolume below which `patience` candidates have brought nothing."""


class Patience:
    """The hypervolume of a search, and what it was before each of the last candidates."""

    def __init__(self, patience: int, byte_range: ByteRange) -> None:
        self.patience, self.byte_range = patience, byte_range
        self._count, self._area = 0, 0.0
        self._stairs = Stairs(1.0, 1.0)
        self._before: deque[float] = deque(maxlen=max(1, patience))
        self._candidates = 0

    def ran_out(self, trials: Sequence[Trial]) -> bool:
        """Take note of trials that finished since; whether the last candidates brought nothing."""
        for k in range(self._count, len(trials)):
            self._add(trials[k])
        self._count = len(trials)
        if self._candidates <= self.patience:
            return False
        return self._area <= self._before[0] * (1 + GAIN)

    def _add(self, trial: Trial) -> None:
        if is_candidate(trial):
            self._candidates += 1
            self._before.append(self._area)
        m = trial.measurement
        if m is None or math.isnan(m.kl):
            return
        size, kl = np.array([float(m.size_bytes)]), np.array([m.kl])
        x = unit_scale(size, low=self.byte_range.low, high=self.byte_range.high)
        self._area += self._stairs.add(float(x[0]), float(kl_scale(kl)[0]))


def is_idle(trials: Sequence[Trial], patience: int, byte_range: ByteRange) -> bool:
    """Whether the hypervolume in (bytes, log KL) has hardly grown since `patience` candidates ago."""
    return Patience(patience, byte_range).ran_out(trials)
