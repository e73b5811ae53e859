"""What each run keeps at equal limits of size or latency, and whether that differs by more than noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.report.compared.compared_runs import Comparable, ComparedRun
from autoprune.report.shown import spread_places
from autoprune.report.text import MINUS, milliseconds, score_text, standard_error
from autoprune.run.front_schema import TrialRow
from autoprune.run.text import small_size
from autoprune.strategy.paired import scores_told_apart
from autoprune.tasks.row_scores import rows_of_text

MOST_LIMITS = 8
"""Rows of a table of limits."""

STEPS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
"""Round numbers of a decade that limits are drawn from."""

ONE_SIDED = 1.645
"""Standard errors that a normal variable is above with a probability of 5 %."""


@dataclass(frozen=True)
class Kept:
    """What a run keeps within a limit. score: on the split that is compared."""

    trial: str
    cost: str
    score: str


@dataclass(frozen=True)
class LimitRow:
    """A limit, what each run keeps within it (None: nothing is so small), and what the difference is."""

    limit: str
    kept: tuple[Kept | None, ...]
    split: str
    verdict: str
    is_settled: bool


@dataclass(frozen=True)
class LimitTable:
    """The rows of one sort of limit, `size` or `latency`."""

    title: str
    rows: tuple[LimitRow, ...]


def limit_tables(runs: Sequence[ComparedRun], what: Comparable) -> list[LimitTable]:
    """A table of sizes, and one of milliseconds where these are of one clock."""
    tables = [LimitTable("At equal sizes", _rows(runs, what, "size_bytes"))]
    if what.same_clock:
        tables.append(LimitTable("At equal latencies", _rows(runs, what, "latency_ms")))
    return [table for table in tables if table.rows]


def _rows(runs: Sequence[ComparedRun], what: Comparable, cost: str) -> tuple[LimitRow, ...]:
    return tuple(_row(runs, what, cost, limit) for limit in limits_of(runs, cost))


def limits_of(runs: Sequence[ComparedRun], cost: str) -> list[float]:
    """The runs' own limits, and round numbers from where every run has a model to where none has a larger."""
    costs = [[c for t in _models(run) if (c := getattr(t, cost)) is not None and c > 0] for run in runs]
    if not all(costs):
        return []
    low, high = max(map(min, costs)), max(map(max, costs))
    own = {getattr(run.front.run.budget, cost) for run in runs} - {None}
    first = math.floor(math.log10(low)) if low > 0 else 0
    last = math.ceil(math.log10(high)) if high > 0 else 0
    round_ = [step * 10.0**power for power in range(first, last + 1) for step in STEPS]
    inside = [value for value in round_ if low <= value <= high * 1.05]
    room = max(2, MOST_LIMITS - len(own))
    inside = [inside[k] for k in spread_places(len(inside), room)]
    return sorted({*map(float, own), *inside}) or [float(high)]


def _models(run: ComparedRun) -> list[TrialRow]:
    """The compressed models of a run: its trials and uniform baselines."""
    return [t for t in run.front.trials if t.measured and t is not run.front.original]


def kept_within(run: ComparedRun, cost: str, limit: float) -> TrialRow | None:
    """The most accurate model on validation within a limit; of equals the one that costs least."""
    within = [t for t in _models(run) if (c := getattr(t, cost)) is not None and c <= limit]
    return min(within, key=lambda t: (-(t.accuracy or 0.0), getattr(t, cost), t.number), default=None)


def _row(runs: Sequence[ComparedRun], what: Comparable, cost: str, limit: float) -> LimitRow:
    chosen = [kept_within(run, cost, limit) for run in runs]
    have = [trial for trial in chosen if trial is not None]
    split = "test" if have and all(trial.test_accuracy is not None for trial in have) else "validation"
    metric = runs[0].front.run.metric
    told = small_size(int(limit)) if cost == "size_bytes" else milliseconds(limit)
    kept = tuple(
        None
        if trial is None
        else Kept(
            trial.label,
            small_size(trial.size_bytes or 0) if cost == "size_bytes" else milliseconds(trial.latency_ms),
            score_text(metric, _score(trial, split)),
        )
        for trial in chosen
    )
    words, is_settled = _verdict(runs, chosen, split, what)
    return LimitRow(told, kept, split, words, is_settled)


def _score(trial: TrialRow, split: str) -> float:
    return (trial.test_accuracy if split == "test" else trial.accuracy) or 0.0


def _verdict(
    runs: Sequence[ComparedRun], chosen: Sequence[TrialRow | None], split: str, what: Comparable
) -> tuple[str, bool]:
    """The best of a row, and whether it is ahead of each other by more than noise."""
    pairs = [(run, trial) for run, trial in zip(runs, chosen, strict=True) if trial is not None]
    if len(pairs) < 2:
        return (f"only {pairs[0][0].letter} has a model within it" if pairs else "no run has one"), False
    if not what.same_data:
        return "not judged: other data", False
    pairs.sort(key=lambda pair: -_score(pair[1], split))
    (best, top), *others = pairs
    metric = best.front.run.metric
    apart: list[str] = []
    within: list[str] = []
    unknown: list[str] = []
    ways: set[str] = set()
    for run, trial in others:
        answer, way = told_apart((best, top), (run, trial), split, what)
        (unknown if answer is None else apart if answer else within).append(run.letter)
        ways.add(way)
    nearest = metric.signed(_score(top, split), _score(others[0][1], split))
    if _score(top, split) == _score(others[0][1], split):
        parts = [f"{best.letter} and {others[0][0].letter} are equal"]
        apart, within = ([k for k in letters if k != others[0][0].letter] for letters in (apart, within))
    else:
        parts = [f"{best.letter} is ahead by {nearest.lstrip('+' + MINUS)}"]
    if apart:
        parts.append(f"more than noise against {', '.join(apart)}")
    if within:
        parts.append(f"within the noise of {', '.join(within)}")
    if unknown:
        parts.append(f"not known against {', '.join(unknown)}")
    told = " and ".join(sorted(way for way in ways if way))
    return f"{'; '.join(parts)}{f' ({told})' if told else ''}", bool(apart) and not within and not unknown


def told_apart(
    better: tuple[ComparedRun, TrialRow], other: tuple[ComparedRun, TrialRow], split: str, what: Comparable
) -> tuple[bool | None, str]:
    """Whether a run's model is better than another's by more than noise, and by which test; None: not known.

    The paired test of `strategy/paired` where both answered the same rows and these were kept, else both
    standard errors, which forget that most rows are answered alike.
    """
    texts = [run.scores.of(split).get(str(trial.number), "") for run, trial in (better, other)]
    if what.same_rows and all(texts):
        answer = scores_told_apart(*texts)
        if answer is not None:
            return answer, "paired test"
    errors = [_error(run, trial, split) for run, trial in (better, other)]
    if errors[0] is None or errors[1] is None:
        return None, ""
    gap = _score(better[1], split) - _score(other[1], split)
    return gap > ONE_SIDED * math.hypot(errors[0], errors[1]), "error bars"


def _error(run: ComparedRun, trial: TrialRow, split: str) -> float | None:
    """The standard error of a score, in points: of a share of rows, or of the mean of rows that were kept."""
    facts = run.front.run
    rows = facts.test_rows if split == "test" else facts.validation_rows
    if facts.metric.is_share_of_rows:
        return standard_error(_score(trial, split), rows)
    kept = rows_of_text(run.scores.of(split).get(str(trial.number), ""))
    if kept is None or len(kept) < 2 or not facts.metric.higher_is_better or kept.dtype == np.bool_:
        return None
    return float(kept.std(ddof=1) / math.sqrt(len(kept)))
