"""What each worker did when: a lane a worker, a bar a trial, and in words how busy they were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from autoprune.report.text import duration, plural, share
from autoprune.run.front_schema import Front, TrialRow

KINDS = ("untrained", "trained", "timing", "failed")
"""What a bar is; the last part of a trial, in which its latency is taken, is a bar of its own."""

MOST_LANES = 40
"""Workers that are drawn."""

MOST_BARS = 3000
"""Bars that are drawn: of more, neighbours of a kind are joined."""


class Bar(NamedTuple):
    """A stretch of a worker's time, in seconds of the run. number: its trial's; None of several in one."""

    lane: int
    kind: int
    begin: float
    end: float
    number: int | None


@dataclass(frozen=True)
class Timeline:
    """The lanes of the workers from the first trial's begin to the last one's end."""

    workers: tuple[str, ...]
    bars: tuple[Bar, ...]
    words: str

    def as_json(self) -> dict[str, object]:
        """As the page draws it."""
        return {
            "kinds": KINDS,
            "workers": self.workers,
            "bars": [[b.lane, b.kind, round(b.begin, 2), round(b.end, 2), b.number] for b in self.bars],
        }


def timeline(front: Front) -> Timeline | None:
    """The lanes; None of a run that did not note when its trials ended."""
    trials = [trial for trial in front.trials if trial.ended_s is not None and trial.seconds]
    if not trials:
        return None
    workers = sorted({trial.worker for trial in trials}, key=_natural)
    lanes = {name: k for k, name in enumerate(workers)}
    bars = [bar for trial in trials for bar in _bars(trial, lanes[trial.worker])]
    shown = _joined([bar for bar in bars if bar.lane < MOST_LANES])
    return Timeline(
        workers=tuple(name or "worker not recorded" for name in workers[:MOST_LANES]),
        bars=tuple(shown),
        words=_words(len(workers), bars),
    )


def _natural(name: str) -> tuple[str, int]:
    """Worker 10 after worker 9."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def _bars(trial: TrialRow, lane: int) -> list[Bar]:
    end = trial.ended_s or 0.0
    begin = max(0.0, end - (trial.seconds or 0.0))
    if trial.state == "FAIL":
        return [Bar(lane, KINDS.index("failed"), begin, end, trial.number)]
    kind = KINDS.index("trained" if trial.rung else "untrained")
    timed = (trial.parts or {}).get("latency", 0.0)
    middle = max(begin, end - timed)
    whole = Bar(lane, kind, begin, middle, trial.number)
    return [whole, Bar(lane, KINDS.index("timing"), middle, end, trial.number)] if timed > 0 else [whole]


def _joined(bars: Sequence[Bar]) -> list[Bar]:
    """At most `MOST_BARS`: neighbours of a kind are joined over gaps that double until so few are left."""
    ordered = sorted(bars, key=lambda bar: (bar.lane, bar.kind, bar.begin))
    if len(ordered) <= MOST_BARS:
        return ordered
    gap = (max(bar.end for bar in bars) - min(bar.begin for bar in bars)) / 4000
    while True:
        joined: list[Bar] = []
        for bar in ordered:
            last = joined[-1] if joined else None
            if last and (last.lane, last.kind) == (bar.lane, bar.kind) and bar.begin - last.end <= gap:
                joined[-1] = last._replace(end=max(last.end, bar.end), number=None)
            else:
                joined.append(bar)
        if len(joined) <= MOST_BARS:
            return joined
        gap *= 2


def _words(workers: int, bars: Sequence[Bar]) -> str:
    """How many workers there were, and what share of their time had work."""
    begin, end = min(bar.begin for bar in bars), max(bar.end for bar in bars)
    busy = sum(_covered(lane) for _, lane in groupby(sorted(bars, key=_place), key=lambda bar: bar.lane))
    said = (
        f"{plural(workers, 'worker')} had work in {share(busy / max(workers * (end - begin), 1e-9))} of the "
        f"{duration(end - begin)} from the begin of the first trial to the end of the last."
    )
    parts = [
        f"{share(sum(b.end - b.begin for b in bars if b.kind == kind) / max(busy, 1e-9))} {name}"
        for kind, name in enumerate(("untrained trials", "trained trials", "timing", "failed trials"))
        if any(b.kind == kind for b in bars)
    ]
    more = f" The first {MOST_LANES} of them are drawn." if workers > MOST_LANES else ""
    return f"{said} Of that: {', '.join(parts)}.{more}"


def _place(bar: Bar) -> tuple[int, float]:
    return bar.lane, bar.begin


def _covered(bars: Iterable[Bar]) -> float:
    """Seconds of a lane with work, each counted once."""
    total, until = 0.0, 0.0
    for bar in bars:
        total += max(0.0, bar.end - max(bar.begin, until))
        until = max(until, bar.end)
    return total
