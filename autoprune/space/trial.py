"""Measurements and trials: plain data, in the order size_bytes, latency_ms, accuracy.

Size and latency are better when less, accuracy (percent) when more."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from autoprune.space.levels import Candidate

ORIGINAL = "original"
"""Name of the baseline that is the uncompressed model."""

FEWEST_PAIRS = 3
"""Trials from which a rank correlation is taken: two rankings of two trials are the same or opposite."""


@dataclass(frozen=True)
class Measurement:
    """One model on one target.

    size_bytes: sum by `stat` of the files the runtime opens. latency_ms: median time of a call,
    interleaved with the original and scaled to the original's quiet time, so that drift of the
    machine cancels; low and high are its 10th and 90th percentile. accuracy: percent, on
    validation. kl: mean divergence of the validation logits from the teacher's, nats.
    """

    size_bytes: int
    latency_ms: float
    accuracy: float
    kl: float = math.nan
    latency_low_ms: float = math.nan
    latency_high_ms: float = math.nan
    raw_latency_ms: float = math.nan
    raw_original_ms: float = math.nan

    def objectives(self) -> tuple[float, float, float]:
        """Size, latency, accuracy as floats (integers crash Optuna's multi-objective TPE)."""
        return float(self.size_bytes), float(self.latency_ms), float(self.accuracy)


@dataclass(frozen=True)
class Trial:
    """A candidate evaluated or failed; `name` is set on baselines."""

    number: int
    candidate: Candidate
    measurement: Measurement | None = None
    failure: str | None = None
    name: str | None = None
    test_accuracy: float | None = None
    predicted_size_bytes: int = 0
    seconds: float = 0.0
    worker: str = ""
    seed: int = 0
    rung: int = 1
    """How long it was fine-tuned: 0 not at all, 1 briefly, 2 longer."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each stage of the trial: stitch, finetune, save, accuracy, latency."""
    ended_s: float | None = None
    """Seconds of the run when it ended, on the clock of its drivers; None where no version noted it."""
    row_scores: str = field(default="", repr=False)
    """Its score on each validation row, as `tasks/row_scores` writes them; empty where they were not kept."""

    @property
    def is_baseline(self) -> bool:
        """Whether this is one of the models that every run is compared with."""
        return self.name is not None


def finished(trials: Iterable[Trial]) -> list[tuple[Trial, Measurement]]:
    """Trials that gave a measurement, with it."""
    return [(trial, trial.measurement) for trial in trials if trial.measurement is not None]


def searched_trials(trials: Iterable[Trial]) -> list[Trial]:
    """The trials of the search itself, whatever their rung: all but the baselines."""
    return [trial for trial in trials if not trial.is_baseline]


def without_trained_kl(trial: Trial) -> Trial:
    """A trial without its divergence from the original where it was trained.

    Under another teacher training may raise it, so that it tells nothing of how far a trained model came.
    """
    if trial.rung == 0 or trial.measurement is None:
        return trial
    return replace(trial, measurement=replace(trial.measurement, kl=math.nan))


def is_candidate(trial: Trial) -> bool:
    """Whether a trial counts as one that the user asked for: baselines and promotions do not."""
    return trial.rung == 0 and not trial.is_baseline


def tried_trials(trials: Iterable[Trial]) -> list[Trial]:
    """Those that count as ones the user asked for: the one count for terminal, status and plan."""
    return [trial for trial in trials if is_candidate(trial)]


def failed_trials(trials: Iterable[Trial]) -> list[Trial]:
    """Those of the search that failed: the one count for the terminal, the limit and the records."""
    return [trial for trial in searched_trials(trials) if trial.failure is not None]


def cause_of(failure: str) -> str:
    """What a failure begins with: the class of an error, or a sentence.

    >>> cause_of("TimedOut: it worked for 612 s"), cause_of(" ")
    ('TimedOut', 'no cause was recorded')
    """
    return re.split(r"[:\n]", failure.strip(), maxsplit=1)[0].strip() or "no cause was recorded"
