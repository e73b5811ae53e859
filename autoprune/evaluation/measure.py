"""A measurement of one model on one target: accuracy, divergence and time of what was saved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.core.processors import unthrottled
from autoprune.targets.target import Runner
from autoprune.tasks.answers import WATCHED, Answers, log_probabilities, places_of, spread_of, watch
from autoprune.tasks.task import Batch, Data, Task

Entered = Callable[[], contextlib.AbstractContextManager[object]]
"""Something entered around work: a room shared with others, or had alone."""

Timed = Callable[[Batch], object]
"""A model, or anything else, whose answer does not matter."""

TIMING_PAIRS = 15
"""Calls of a model, each beside one of the original, that its milliseconds are taken from."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a call: median, 10th and 90th percentile, and the original's median.

    All raw, from one interleaved series on one machine. ratio: median over pairs of this model's time to
    the original's just before or after it, which a slow stretch of the machine moves least. quick_ratio:
    that of the lower quartiles of both, which other programs disturb less.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    original_ms: float
    ratio: float
    quick_ratio: float

    def scaled(self, reference_ms: float) -> tuple[float, float, float]:
        """Median, low, high as if the original had taken `reference_ms`: drift cancels."""
        factor, median = reference_ms / self.original_ms, reference_ms * self.ratio
        return median, min(median, self.low_ms * factor), max(median, self.high_ms * factor)

    def fields(self, reference_ms: float) -> dict[str, float]:
        """The same as a `Measurement` has it."""
        median, low, high = self.scaled(reference_ms)
        return {
            "latency_ms": median,
            "latency_low_ms": low,
            "latency_high_ms": high,
            "raw_latency_ms": self.median_ms,
            "raw_original_ms": self.original_ms,
        }


@dataclass(frozen=True)
class DefaultRun:
    """What was measured of a model as its runtime runs it with no settings.

    settings: what the runtime takes then, in words. accuracy and latency: None where they could not be
    measured. failure: how its process ended, where it did not run.
    """

    settings: str
    accuracy: float | None = None
    latency: Timing | None = None
    failure: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DefaultRun:
        """Inverse of `asdict`."""
        return cls(**{**data, "latency": data["latency"] and Timing(**data["latency"])})


def logits_of(
    run: Runner,
    task: Task,
    data: Data,
    *,
    watched: NDArray[np.int32] | None = None,
    room: Entered = contextlib.nullcontext,
) -> NDArray[np.float32]:
    """Answers [m k] to all rows, in the rows' order.

    watched: outputs [m w] whose log-probabilities are taken instead of all logits; see `answers`.
    """
    starts = task.answer_starts(data)
    out: NDArray[np.float32] | None = None
    for _, places, found in answer_batches(run, task, data, starts, room):
        if watched is not None:
            found = log_probabilities(found, watched[places])
        if out is None:
            out = np.empty((starts[-1], found.shape[-1]), np.float32)
        out[places] = found
    if out is None:
        raise ValueError("no rows to evaluate")
    return out


def teacher_answers(
    run: Runner, task: Task, data: Data, *, room: Entered = contextlib.nullcontext
) -> Answers:
    """What the teacher answers to all rows, with what others are compared by."""
    starts = task.answer_starts(data)
    if not task.kind.predicts_next_token:
        values = logits_of(run, task, data, room=room)
        return Answers(values, starts, spread=0.0 if task.is_probable else spread_of(values))
    watched = np.empty((starts[-1], WATCHED), np.int32)
    values = np.empty(watched.shape, np.float32)
    for rows, places, logits in answer_batches(run, task, data, starts, room):
        watched[places] = watch(logits, task.labels(data, rows))
        values[places] = log_probabilities(logits, watched[places])
    return Answers(values, starts, watched)


def labels_watched(task: Task, data: Data) -> NDArray[np.int32] | None:
    """The least that a language model's score needs: the tokens that came [m 1]; None for other tasks."""
    if not task.kind.predicts_next_token:
        return None
    return task.labels(data, np.arange(len(data))).astype(np.int32)[:, None]


def answer_batches(
    run: Runner, task: Task, data: Data, starts: NDArray[np.int64], room: Entered
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Batches of all rows: their numbers, their places among all answers, and those answers [m k]."""
    for rows, batch in task.sorted_batches(data, task.evaluation_batch):
        with room():
            logits = run(batch)
        at = task.answered(data, rows)
        yield rows, places_of(starts, rows), logits if at is None else logits[at]


def time_interleaved(
    run: Timed, original: Timed, batch: Batch, *, pairs: int = TIMING_PAIRS, warm_up: int = 3
) -> Timing:
    """Time a model and the original in turn, so that both meet the same machine.

    The order within a pair alternates. Call it where nothing else runs.
    """
    return time_together([run], original, batch, rounds=pairs, warm_up=warm_up)[0]


def time_together(
    runs: Sequence[Timed], original: Timed, batch: Batch, *, rounds: int = TIMING_PAIRS, warm_up: int = 3
) -> list[Timing]:
    """Time several models and the original in turn: each beside the original, all on the same machine.

    Where the machine's memory is shared, what a model takes of the original's time differs by a third from
    one minute to another (SmolLM2: 8 bits of 32), so models are compared by what they took in one series.
    Each round begins with another model. Call it where nothing else runs.
    """
    every = [original, *runs]
    for _ in range(warm_up):
        for run in every:
            run(batch)
    taken = unthrottled(lambda: _series(every, batch, rounds))
    return [_timing(ours, taken[0]) for ours in taken[1:]]


def _series(runs: list[Timed], batch: Batch, rounds: int) -> NDArray[np.float64]:
    """Seconds of each model in each round."""
    taken = np.empty((len(runs), rounds))
    for k in range(rounds):
        for j in np.roll(np.arange(len(runs)), -k):
            start = time.perf_counter()
            runs[j](batch)
            taken[j, k] = time.perf_counter() - start
    return taken


def _timing(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Timing:
    """What a model and the original took, round by round, in seconds."""
    low, median, high = (1e3 * np.percentile(ours, q) for q in (10, 50, 90))
    whole, ratio = 1e3 * np.median(theirs), np.median(ours / theirs)
    quick = np.percentile(ours, 25) / np.percentile(theirs, 25)
    return Timing(float(median), float(low), float(high), float(whole), float(ratio), float(quick))
