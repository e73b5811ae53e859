"""`compare.html`: several runs on one page, under the same policy as a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import markupsafe

from autoprune.report.compared.compared_runs import Comparable, ComparedRun, comparable, read_runs
from autoprune.report.compared.differences import Difference, differences, summaries
from autoprune.report.compared.equal_limits import LimitTable, limit_tables
from autoprune.report.page import (
    STYLES,
    asset,
    check_own_page,
    embedded,
    error_of,
    metric_data,
    policy,
    template,
)
from autoprune.report.text import write_text
from autoprune.run.front_schema import TrialRow

SCRIPTS = ("dom.js", "metric.js", "chart.js", "compare.js")
"""Inlined in this order."""

MARK = '<meta name="generator" content="autoprune compare">'
"""What a page of ours has in its head, so that no other file is overwritten."""

MOST_POINTS = 300
"""Members of a front that are drawn of a run at most."""


class Comparison(NamedTuple):
    """Runs and all that is said of them."""

    runs: Sequence[ComparedRun]
    what: Comparable
    differences: list[Difference]
    tables: list[LimitTable]


def compare(folders: Sequence[Path]) -> Comparison:
    """Read runs and hold them against each other.

    Raises:
        AutopruneError: as `read_runs` raises.
    """
    runs = read_runs(folders)
    what = comparable(runs)
    return Comparison(runs, what, differences(runs), limit_tables(runs, what))


def page_path(output: Path | None) -> Path:
    """Where to write: a free name in the working directory, or the one asked for.

    Raises:
        AutopruneError: for one that is there and is no page that compares runs.
    """
    if output is None:
        names = ("compare.html", *(f"compare-{k}.html" for k in range(2, 1000)))
        return next(path for path in map(Path, names) if not path.exists())
    path = output / "compare.html" if output.is_dir() else output
    check_own_page(path, MARK, "page that compares runs")
    return path


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write the page, whole or not at all."""
    write_text(path, render_comparison(comparison))


def render_comparison(comparison: Comparison) -> str:
    """The page as text."""
    style, script = ("\n".join(map(asset, names)) for names in (STYLES, SCRIPTS))
    metric = comparison.runs[0].front.run.metric
    data = {
        "metric": metric_data(metric),
        "same_clock": comparison.what.same_clock,
        "storages": {},
        "runs": [
            {"letter": run.letter, "title": run.title, "points": _points(run)} for run in comparison.runs
        ],
    }
    texts = {"style": style, "script": script, "data": embedded(data), "mark": MARK}
    unescaped = {name: markupsafe.Markup(text) for name, text in texts.items()}  # nosec B704
    return template("compare.html.j2").render(
        runs=comparison.runs,
        warnings=comparison.what.warnings,
        differences=comparison.differences,
        summaries=summaries(comparison.runs),
        tables=comparison.tables,
        title=f"{metric.title} and size of {len(comparison.runs)} runs",
        policy=policy(style, script),
        **unescaped,
    )


def _points(run: ComparedRun) -> list[dict[str, object]]:
    """The original and the front: what the chart draws."""
    front = run.front
    members = [trial for trial in front.trials if trial.on_front and trial.measured]
    members.sort(key=lambda trial: trial.size_bytes or 0)
    step = -(-len(members) // MOST_POINTS) or 1
    original = [] if front.original is None else [front.original]
    return [_point(run, trial) for trial in {t.number: t for t in [*original, *members[::step]]}.values()]


def _point(run: ComparedRun, trial: TrialRow) -> dict[str, object]:
    fields = ("number", "name", "size_bytes", "latency_ms", "accuracy", "test_accuracy", "kl", "on_front")
    return {**{name: getattr(trial, name) for name in fields}, "error": error_of(run.front, trial)}
