"""How long a trial may work, from what those before it took: one that hangs would hold its worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from autoprune.space.trial import Trial
from autoprune.strategy.history import Cursor, History
from autoprune.strategy.promotion import RUNG_STEPS

TIMES_LONGEST = 10.0
"""How many times the longest so far a trial may work: neighbours on the machine may slow it down as much."""

FLOOR_SECONDS = 600.0
"""Any trial may work for so long."""

FIRST_SECONDS = 6 * 3600.0
"""So may those that begin before any has ended."""


@dataclass
class TrialLimits:
    """Follows the trials one by one. steps: of the brief fine-tune. given: seconds that the user allows."""

    steps: int
    given: float | None = None
    _longest: float | None = None
    _longest_step: float = 0.0
    _cursor: Cursor = field(default_factory=Cursor)

    def seconds(self, history: History, rung: int) -> float:
        """Seconds that a trial at this rung may work.

        Before any was trained, a step of the fine-tune is taken to be as long as a whole trial without: that
        evaluates all validation rows, a step trains on one batch.
        """
        if self.given is not None:
            return self.given
        _, trials = self._cursor.advance(history)
        for trial in trials:
            self._add(trial)
        if self._longest is None:
            return FIRST_SECONDS
        steps = self.steps * RUNG_STEPS[rung]
        if self._longest_step:
            return max(FLOOR_SECONDS, TIMES_LONGEST * (self._longest + steps * self._longest_step))
        return max(FLOOR_SECONDS, (TIMES_LONGEST + steps) * self._longest)

    def _add(self, trial: Trial) -> None:
        """Take note of a trial; one that failed says nothing of how long others take."""
        if trial.measurement is None:
            return
        training, steps = trial.parts.get("finetune", 0.0), self.steps * RUNG_STEPS[trial.rung]
        if steps:
            self._longest_step = max(self._longest_step, training / steps)
        self._longest = max(self._longest or 0.0, trial.seconds - (training if steps else 0.0))
