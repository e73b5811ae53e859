"""Training data of the surrogate models: what trials measured before and after training, as arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial, finished
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.solver.planes import Choice, Floats

MOST_TRIALS = 256
"""Trials that a surrogate model learns from, the latest; the cost grows with the cube of their number."""


@dataclass(frozen=True)
class Records:
    """What n trials measured, of u units: levels [n u], divergence [n] in nats and milliseconds [n].

    kl: before training; NaN of candidates that were measured trained alone, as baselines are. trained_kl:
    after the brief fine-tune; NaN of candidates that had none. older: how many of them, the first, stand for
    all that were tried long before (`lookback`) and will not be trained any more. covered [q]: points of the
    lattice that those dominate.
    """

    chosen: Choice
    kl: Floats
    latency_ms: Floats
    trained_kl: Floats = field(default_factory=lambda: np.empty(0))
    older: int = 0
    covered: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if len(self.trained_kl) == 0:
            object.__setattr__(self, "trained_kl", np.full(len(self.kl), np.nan))

    @classmethod
    def of(cls, problem: Problem, trials: Iterable[Trial]) -> Records:
        """Those of the untrained trials, in order, then of the candidates that were trained at once."""
        return cls.of_rows(problem, recorded(trials))

    @classmethod
    def of_rows(cls, problem: Problem, rows: Sequence[Row]) -> Records:
        """Those of `recorded`."""
        chosen = np.array([problem.chosen(candidate) for candidate, *_ in rows], np.intp)
        measured = np.array([numbers for _, *numbers in rows], np.float64).reshape(-1, 3)
        kl, latency_ms, trained_kl = (measured[:, k].copy() for k in range(3))
        return cls(chosen.reshape(-1, len(problem.units)), kl, latency_ms, trained_kl)

    def joined(self, more: Records) -> Records:
        """These, and more after them."""
        return Records(
            np.concatenate([self.chosen, more.chosen]),
            np.concatenate([self.kl, more.kl]),
            np.concatenate([self.latency_ms, more.latency_ms]),
            np.concatenate([self.trained_kl, more.trained_kl]),
        )


Row = tuple[Candidate, float, float, float]
"""A candidate, its divergence before training in nats, milliseconds, and its divergence after."""


def recorded(trials: Iterable[Trial]) -> list[Row]:
    """What was measured of each candidate: untrained ones in order, then those that were trained at once."""
    done = [(trial, m) for trial, m in finished(trials) if math.isfinite(m.kl)]
    trained = {trial.candidate: m for trial, m in done if trial.rung == 1}
    after = {candidate: max(m.kl, 0.0) for candidate, m in trained.items()}
    rows: list[Row] = [
        (trial.candidate, max(m.kl, 0.0), m.latency_ms, after.get(trial.candidate, math.nan))
        for trial, m in done
        if trial.rung == 0
    ]
    known = {candidate for candidate, *_ in rows}
    rows += [
        (candidate, math.nan, m.latency_ms, after[candidate])
        for candidate, m in trained.items()
        if candidate not in known
    ]
    return rows
