"""The results as tables for people: medians over seeds with the least and the most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.search.methods import OURS
from benchmarks.search.race import Curve
from benchmarks.search.scores import MEASURES

CHECKPOINTS = (20, 50, 100)


def rows_of(curves: Mapping[str, Sequence[Curve]], trials: int) -> list[dict[str, Any]]:
    """One row a method and measure: [least, median, most] at the checkpoints and at equal seconds."""
    stops = [count for count in CHECKPOINTS if count <= trials] or [trials]
    spans = equal_seconds(curves, stops)
    rows = []
    for measure in MEASURES:
        for method, seeds in curves.items():
            by_trials = {n: _spread([curve.at(measure, n) for curve in seeds]) for n in stops}
            by_seconds = {
                round(span, 1): _spread([curve.at_seconds(measure, span) for curve in seeds])
                for span in spans
            }
            rows.append(
                {
                    "measure": measure,
                    "method": method,
                    "seeds": len(seeds),
                    "after_trials": by_trials,
                    "after_seconds": by_seconds,
                    "seconds": median(curve.run.seconds[-1] for curve in seeds),
                    "think_seconds": median(curve.run.think_seconds for curve in seeds),
                }
            )
    return rows


def equal_seconds(curves: Mapping[str, Sequence[Curve]], stops: Sequence[int]) -> list[float]:
    """When ours (or else the first) had done so many trials, by the median of its seeds.

    A search that ended sooner counts as it ended.
    """
    ours = curves.get(OURS) or next(iter(curves.values()))
    return [median(curve.run.seconds[min(n, len(curve.run.seconds)) - 1] for curve in ours) for n in stops]


def lines_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows as aligned text, a block a measure."""
    lines = []
    for measure, words in MEASURES.items():
        own = [row for row in rows if row["measure"] == measure]
        trials, seconds = list(own[0]["after_trials"]), list(own[0]["after_seconds"])
        heads = [f"{n} trials" for n in trials] + [f"at {s:g} s" for s in seconds]
        lines += ["", f"hypervolume in ({words})", f"{'':12}" + "".join(f"{head:>24}" for head in heads)]
        for row in own:
            cells = [*row["after_trials"].values(), *row["after_seconds"].values()]
            lines.append(f"{row['method']:12}" + "".join(f"{_cell(cell):>24}" for cell in cells))
    return lines[1:]


def _spread(values: Sequence[float]) -> list[float]:
    return [round(value, 5) for value in (min(values), median(values), max(values))]


def _cell(values: Sequence[float]) -> str:
    low, middle, high = values
    return f"{middle:.4f}" if low == high else f"{middle:.4f} ({low:.3f}-{high:.3f})"
