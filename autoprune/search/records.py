"""Training data of the surrogate models: what untrained trials measured, as arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from autoprune.search.solver.mckp import Problem
from autoprune.search.solver.planes import Choice, Floats
from autoprune.space.trial import Trial, finished

MOST_TRIALS = 256
"""Trials that a surrogate model learns from, the latest; the cost grows with the cube of their number."""


@dataclass(frozen=True)
class Records:
    """Levels [n u], measured divergence [n] in nats, and measured milliseconds [n] of n trials, u units."""

    chosen: Choice
    kl: Floats
    latency_ms: Floats

    @classmethod
    def of(cls, problem: Problem, trials: Iterable[Trial]) -> Records:
        """Those of the untrained trials, whose divergence is what the solver predicts."""
        untrained = [(trial, m) for trial, m in finished(trials) if trial.rung == 0 and math.isfinite(m.kl)]
        chosen = np.array([problem.chosen(trial.candidate) for trial, _ in untrained], np.intp)
        measured = np.array([(max(m.kl, 0.0), m.latency_ms) for _, m in untrained], np.float64).reshape(-1, 2)
        return cls(chosen.reshape(-1, len(problem.units)), measured[:, 0].copy(), measured[:, 1].copy())

    def joined(self, more: Records) -> Records:
        """These, and more after them."""
        return Records(
            np.concatenate([self.chosen, more.chosen]),
            np.concatenate([self.kl, more.kl]),
            np.concatenate([self.latency_ms, more.latency_ms]),
        )
