"""From what divergence on accuracy shows that a model is worse than the original, by a run's own trials."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from autoprune.space.trial import ORIGINAL, Trial
from autoprune.strategy.surrogates.recovery_model import WORTH_TRAINING_KL

SHOWN_ERRORS = 0.5
"""Standard errors of accuracy that a loss must come to before a fine-tune is worth its time."""

FEWEST_SEEN = 4
"""Trials from which the loss of accuracy a nat is taken."""

MOST_KL = 0.01
"""Divergence (nats a row) that is worth training whatever the trials say."""


@dataclass
class SeenLoss:
    """How accuracy falls with divergence over a run's trials, followed trial by trial.

    The loss is taken to grow in proportion: least squares through the original. Of the demo's 30 trials with
    0.001 to 0.2 nats a row it is 94 points a nat, 83 to 108 over parts of that range
    (docs/decisions/030-what-accuracy-can-show.md).
    """

    original: float | None = None
    count: int = 0
    _kl_squared: float = 0.0
    _kl: float = 0.0
    _kl_accuracy: float = 0.0

    @classmethod
    def of(cls, trials: Iterable[Trial]) -> Self:
        """Over these trials."""
        seen = cls()
        for trial in trials:
            seen.add(trial)
        return seen

    def add(self, trial: Trial) -> None:
        """Take note of a finished trial."""
        m = trial.measurement
        if m is None:
            return
        if trial.name == ORIGINAL:
            self.original = m.accuracy
        elif m.kl > 0:  # not NaN
            self.count += 1
            self._kl_squared += m.kl**2
            self._kl += m.kl
            self._kl_accuracy += m.kl * m.accuracy

    def worth_training(self, answers: int, chance: float) -> float:
        """Divergence (nats a row) above which a fine-tune can bring what accuracy shows.

        Args:
            answers: on validation, that accuracy is taken over; its standard error is the binomial's.
            chance: accuracy of always answering alike; 0 where the score is no share of right answers, of
                which the trials tell nothing here.

        >>> SeenLoss(84.6, 30, 0.1, 1.0, 75.2).worth_training(1263, 55.6)
        0.0054
        """
        if self.original is None or self.count < FEWEST_SEEN or chance <= 0:
            return WORTH_TRAINING_KL
        points_a_nat = (self.original * self._kl - self._kl_accuracy) / self._kl_squared
        share = min(1.0, max(0.0, self.original / 100.0))
        error = 100.0 * math.sqrt(share * (1.0 - share) / max(1, answers))
        shown = SHOWN_ERRORS * error
        if points_a_nat * MOST_KL <= shown:
            return MOST_KL
        return max(WORTH_TRAINING_KL, round(shown / points_a_nat, 4))
