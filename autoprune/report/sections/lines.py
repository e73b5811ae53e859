"""Where the front is no better than a simple model that no search was needed for, in words."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.report.text import named_score
from autoprune.run.front_schema import Front, LineRow
from autoprune.run.text import small_size
from autoprune.space.budget import Budget, megabytes


def not_above(front: Front) -> str:
    """Up to which size the front is not above the lines that win; empty where none does.

    A line wins over the members of the front that have no fewer bytes and no better score on validation,
    which all of them have been measured on. Those that only milliseconds put on the front, beside a smaller
    member that is above the line, are not told.
    """
    winners: dict[int | None, list[LineRow]] = {}
    for line in front.lines:
        limit = _first_above(front, line)
        sizes = [trial.size_bytes or 0 for trial in front.trials if trial.on_front]
        if any(line.size_bytes <= size and (limit is None or size < limit) for size in sizes):
            winners.setdefault(limit, []).append(line)
    return " ".join(_sentence(front, limit, lines) for limit, lines in winners.items())


def _first_above(front: Front, line: LineRow) -> int | None:
    """Bytes of the smallest member of the front that is better than a line; None where none is."""
    ahead = front.run.metric.is_ahead
    members = (trial for trial in front.trials if trial.on_front and trial.measured)
    return min((t.size_bytes or 0 for t in members if ahead(t.accuracy or 0.0, line.accuracy)), default=None)


def _sentence(front: Front, limit: int | None, lines: Sequence[LineRow]) -> str:
    where = "Nowhere is the front" if limit is None else f"Below {megabytes(limit)} the front is no"
    score = front.run.metric
    named = (f"{x.name} ({small_size(x.size_bytes)}, {named_score(score, x.accuracy)})" for x in lines)
    return f"{where} better on validation than {' or '.join(named)}."


def fits_budget(front: Front, line: LineRow) -> bool:
    """Whether a line is within the limits of a run."""
    limits = front.run.budget
    return Budget(limits.size_bytes, limits.latency_ms).allows(line.size_bytes, line.latency_ms or 0.0)
