"""Models of several runtimes side by side: scored on the same rows, timed in turn in one process.

Shapes: m models, r rounds, b rows of a batch, s its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing import get_context
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.evaluation.measure import logits_of
from autoprune.space.levels import Candidate, Level
from autoprune.targets import Runner
from autoprune.tasks.answers import divergence
from autoprune.tasks.scoring import accuracy
from autoprune.tasks.task import Batch, Task
from autoprune.workers.machine_lock import default_room

Load = Callable[[], Runner]
"""Loads a saved model; can be sent to another process."""

Setting = tuple[int, int]
"""Batch and sequence that latency is timed at."""

VALIDATION, TEST = "validation", "test"


@dataclass(frozen=True)
class Spread:
    """Milliseconds of a call: median, 10th and 90th percentile."""

    median_ms: float
    low_ms: float
    high_ms: float

    @classmethod
    def of(cls, seconds: NDArray[np.float64]) -> Spread:
        """Of one model's calls [r]."""
        low, median, high = (float(1e3 * np.percentile(seconds, q)) for q in (10, 50, 90))
        return cls(median, low, high)


@dataclass(frozen=True)
class Score:
    """Percent of rows right, by split; kl: divergence from the teacher on validation, nats a row."""

    accuracy: Mapping[str, float]
    kl: float | None


@dataclass
class Row:
    """A saved model on a runtime, and all that was measured of it.

    on: the target's name, or the rival's runtime. candidate, predicted_bytes: of ours alone, level: of our
    uniform ones; is_fast: whether the target says that it computes that level faster than floats.
    splits: what it is to be scored on. reference: the same model's score in torch, before it was saved
    for the target. recorded: what the search measured of it on its own target. seconds: of its calls [r].
    """

    name: str
    on: str
    how: str
    load: Load
    size_bytes: int
    splits: Sequence[str]
    candidate: Candidate | None = None
    predicted_bytes: int | None = None
    level: Level | None = None
    is_fast: bool = False
    score: Score | None = None
    reference: Score | None = None
    recorded: Score | None = None
    seconds: dict[Setting, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether autoprune made it."""
        return self.candidate is not None

    def latency(self, setting: Setting) -> Spread:
        """Its milliseconds at a setting that was timed."""
        return Spread.of(self.seconds[setting])


# ---- scores -------------------------------------------------------------------------------------


class Scorer:
    """Scores models in processes of their own, several at a time: nothing is timed meanwhile."""

    def __init__(self, task: Task, teacher_logits: NDArray[np.float32], jobs: int) -> None:
        self._pool = ProcessPoolExecutor(
            jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(task, teacher_logits)
        )

    def submit(self, load: Load, splits: Sequence[str]) -> Future[Score]:
        """The score of a model on some splits of the task, each whole and at the rows' natural length."""
        return self._pool.submit(_score, load, tuple(splits))

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


_KNOWN: dict[str, Any] = {}


def _begin(task: Task, teacher_logits: NDArray[np.float32]) -> None:
    torch.set_num_threads(1)
    _KNOWN.update(task=task, logits=teacher_logits)


def _score(load: Load, splits: tuple[str, ...]) -> Score:
    run, task = load(), _KNOWN["task"]
    found = {split: logits_of(run, task, getattr(task, split), room=default_room().busy) for split in splits}
    right = {split: accuracy(logits, getattr(task, split).labels) for split, logits in found.items()}
    kl = divergence(found[VALIDATION], _KNOWN["logits"]) if VALIDATION in found else None
    return Score(right, kl)


# ---- milliseconds -------------------------------------------------------------------------------


def time_in_turn(
    runs: Sequence[Runner],
    batch: Batch,
    *,
    rounds: int,
    warm: bool,
    alone: Callable[[], AbstractContextManager[object]],
) -> NDArray[np.float64]:
    """Seconds of each model's calls [m r]: every round calls all models, so that drift meets all alike.

    A round starts with another model than the one before, every other one runs backwards, so that no
    model always follows the same one. warm: each timed call follows one that is not, as in a server
    that has one model: the weights of the others are out of the cache.
    """
    for run in runs:
        with alone():
            run(batch)
    seconds = np.empty((len(runs), rounds))
    for k in range(rounds):
        order = np.roll(np.arange(len(runs)), -k)
        for row in order[:: -1 if k % 2 else 1]:
            with alone():
                if warm:
                    runs[row](batch)
                start = perf_counter()
                runs[row](batch)
                seconds[row, k] = perf_counter() - start
    return seconds


def time_rows(rows: Sequence[Row], task: Task, rounds: Mapping[Setting, int]) -> Iterator[Setting]:
    """Fill in the latency of rows, setting by setting; yields each as it is done."""
    runs = [row.load() for row in rows]
    for setting, count in rounds.items():
        batch = task.timing_batch(*setting)
        alone = default_room().alone
        seconds = time_in_turn(runs, batch, rounds=count, warm=setting[0] == 1, alone=alone)
        for row, own in zip(rows, seconds, strict=True):
            row.seconds[setting] = own
        yield setting


def times_faster(row: Row, than: Row | None, setting: Setting) -> float | None:
    """Another's time over a row's, the median over rounds; None where either was not timed.

    Taken round by round, so that a slow stretch of the machine, which meets both, moves it least.
    """
    if than is None or setting not in row.seconds or setting not in than.seconds:
        return None
    return float(np.median(than.seconds[setting] / row.seconds[setting]))


# ---- tables -------------------------------------------------------------------------------------


def lines_of(rows: Sequence[Row], setting: Setting, references: Mapping[str, Row]) -> list[str]:
    """The rows at one setting as aligned text; `references`: what ratios are taken to, by heading."""
    heads = [f"x {name}" for name in references]
    widths = [max(14, len(head) + 2) for head in heads]
    names = max(len(row.name) for row in rows) + 2
    places = max(len(row.on) for row in rows) + 2
    lines = [
        f"batch {setting[0]}, sequence {setting[1]}, one thread",
        f"{'':{names}}{'on':{places}}{'MB':>7}{'ms':>9}{'10-90 %':>18}"
        + "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))
        + f"{'validation':>12}{'test':>8}{'KL':>10}",
    ]
    for row in rows:
        spread = row.latency(setting)
        ratios = [times_faster(row, reference, setting) for reference in references.values()]
        lines.append(
            f"{row.name:{names}}{row.on:{places}}{row.size_bytes / 1e6:7.2f}{spread.median_ms:9.2f}"
            f"{f'{spread.low_ms:.2f}-{spread.high_ms:.2f}':>18}"
            + "".join(f"{_shown(ratio, '.2f'):>{width}}" for ratio, width in zip(ratios, widths, strict=True))
            + _shown_score(row.score)
        )
    return lines


def _shown_score(score: Score | None) -> str:
    right: Mapping[str, float] = {} if score is None else score.accuracy
    kl = None if score is None else score.kl
    validation, test = (_shown(right.get(split), ".2f") for split in (VALIDATION, TEST))
    return f"{validation:>12}{test:>8}{_shown(kl, '.4f'):>10}"


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def as_json(row: Row, references: Mapping[str, Row]) -> dict[str, Any]:
    """A row for the results' file; `references`: what ratios are taken to, by name."""
    candidate = None if row.candidate is None else {u: str(level) for u, level in row.candidate.items}
    return {
        "name": row.name,
        "on": row.on,
        "how": row.how,
        "size_bytes": row.size_bytes,
        "predicted_size_bytes": row.predicted_bytes,
        "accuracy": None if row.score is None else dict(row.score.accuracy),
        "kl": None if row.score is None else row.score.kl,
        "accuracy in torch": None if row.reference is None else dict(row.reference.accuracy),
        "accuracy recorded by the search": None if row.recorded is None else dict(row.recorded.accuracy),
        "latency": {
            f"batch {setting[0]}, sequence {setting[1]}": vars(row.latency(setting))
            | _ratios(row, references, setting)
            for setting in row.seconds
        },
        "levels": candidate,
    }


def _ratios(row: Row, references: Mapping[str, Row], setting: Setting) -> dict[str, float | None]:
    return {
        f"times faster than {name}": times_faster(row, reference, setting)
        for name, reference in references.items()
    }
