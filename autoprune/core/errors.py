"""What a user can get wrong, each kind with the exit code the command ends with."""

from __future__ import annotations


class AutopruneError(ValueError):
    """Wrong input: the message says what came, what is allowed and what to do."""

    exit_code = 2


class ExhaustedError(AutopruneError):
    """Every candidate of the search space that may be tried was tried."""


class BudgetError(AutopruneError):
    """No candidate can meet the budget, or none that did was found."""

    exit_code = 3

    limits: tuple[str, ...] = ()
    """Limits that a trial of the run has met instead, as `--budget` takes them; empty where none is known."""


class FailedTrialsError(AutopruneError):
    """So many trials failed that going on would waste the user's time."""

    exit_code = 4


class ValidationError(AutopruneError):
    """An exported model is not what was recorded of it: the message says which check failed, and by what."""

    exit_code = 5


class StoppedError(AutopruneError):
    """The run stopped early, is saved, and `autoprune resume` goes on from there."""

    exit_code = 75
