"""Where the front is no better than a simple model that no search was needed for, in words."""

from __future__ import annotations

from autoprune.report.text import named_score
from autoprune.run.front_schema import Front, LineRow
from autoprune.space.budget import Budget, megabytes


def not_above(front: Front) -> str:
    """For each line that wins, up to which size the front is not above it; empty where none does.

    A line wins over the members of the front that have no fewer bytes and no better score on validation,
    which all of them have been measured on. One that only milliseconds put on the front, beside a smaller
    member that is above the line, is not told.
    """
    return " ".join(sentence for line in front.lines if (sentence := _won(front, line)))


def _won(front: Front, line: LineRow) -> str:
    members = [
        (trial.size_bytes, trial.accuracy)
        for trial in front.trials
        if trial.on_front and trial.size_bytes is not None and trial.accuracy is not None
    ]
    above = [size for size, score in members if front.run.metric.is_ahead(score, line.accuracy)]
    limit = min(above, default=None)
    beaten = [size for size, _ in members if line.size_bytes <= size and (limit is None or size < limit)]
    if not beaten:
        return ""
    figures = f"{small_size(line.size_bytes)}, {named_score(front.run.metric, line.accuracy)} on validation"
    where = "Nowhere is the front" if limit is None else f"Below {megabytes(limit)} the front is no"
    return f"{where} better than {line.name} ({figures})."


def fits_budget(front: Front, line: LineRow) -> bool:
    """Whether a line is within the limits of a run."""
    limits = front.run.budget
    return Budget(limits.size_bytes, limits.latency_ms).allows(line.size_bytes, line.latency_ms or 0.0)


def small_size(size_bytes: int) -> str:
    """A size for people, with another digit below 1 MB.

    >>> small_size(64_198), small_size(812_000), small_size(2_349_000)
    ('0.06 MB', '0.81 MB', '2.3 MB')
    """
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes < 10**6 else megabytes(size_bytes)
