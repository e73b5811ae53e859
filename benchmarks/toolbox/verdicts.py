"""Which tools pay: each beside what it is compared with, at the same model, limit and seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.toolbox.rows import Row
from benchmarks.toolbox.tools import TOOLS, Tool

PAYS, HARMS = 0.9, 1.1
"""Shares of the divergence, or of an export's bytes, from which a tool pays or harms; between them no
difference is told: a first guess, since how far seeds of one search spread was not measured."""


@dataclass(frozen=True)
class Verdict:
    """One tool on one model, over its limits.

    kl: geometric mean of the least divergence within the limit (of a rule: of its own model) over that of the
    other; None for an export. points: mean difference of the shipped models' test accuracy. size: geometric
    mean of an export's bytes over those of what it replaces, None for a search. cpu: seconds over the
    other's, geometric mean. chosen: of the parts of the shipped models.
    """

    tool: str
    subject: str
    against: str
    limits: int
    kl: float | None
    points: float
    size: float | None
    cpu: float
    chosen: tuple[int, int] | None

    @property
    def says(self) -> str:
        """Whether it pays."""
        share = self.size if self.kl is None else self.kl
        if share is None:
            return "more accurate" if self.points > 0 else "not more accurate"
        return "pays" if share <= PAYS else "harms" if share >= HARMS else "no difference"


def verdicts(rows: Sequence[Row], *, check: bool = False) -> list[Verdict]:
    """Those of all tools that have a row beside what they are compared with."""
    known = {row.key: row for row in rows if row.check == check}
    out = []
    for tool in TOOLS:
        for subject in dict.fromkeys(row.subject for row in known.values()):
            pairs = [
                (row, known[subject, row.limit_bytes, tool.against, row.seed, check])
                for row in known.values()
                if (row.subject, row.tool) == (subject, tool.name)
                and tool.name != tool.against
                and (subject, row.limit_bytes, tool.against, row.seed, check) in known
            ]
            if pairs:
                out.append(_verdict(tool, subject, pairs))
    return out


def _verdict(tool: Tool, subject: str, pairs: Sequence[tuple[Row, Row]]) -> Verdict:
    counts = [row.of_best for row, _ in pairs if row.of_best is not None]
    chosen = (sum(n for n, _ in counts), sum(of for _, of in counts)) if counts else None
    is_family = any(row.members_bytes for row, _ in pairs)
    return Verdict(
        tool.name, subject, tool.against, len(pairs),
        kl=None if tool.export else _mean(_kl(tool, row) / other.closest["kl"] for row, other in pairs),
        points=sum(_test(row) - _test(other) for row, other in pairs) / len(pairs),
        size=_mean(row.best["size_bytes"] / (row.members_bytes or other.best["size_bytes"])
                   for row, other in pairs) if tool.keeps_answers or is_family else None,
        cpu=_mean(row.cpu_seconds / other.cpu_seconds for row, other in pairs if other.cpu_seconds),
        chosen=chosen,
    )  # fmt: skip


def _kl(tool: Tool, row: Row) -> float:
    return float((row.best if tool.baseline else row.closest)["kl"])


def _test(row: Row) -> float:
    best = row.best
    return float(best["accuracy"] if best["test_accuracy"] is None else best["test_accuracy"])


def _mean(shares: Any) -> float:
    """The geometric mean; NaN of none."""
    values = [math.log(share) for share in shares if share > 0]
    return math.exp(sum(values) / len(values)) if values else math.nan


def rows_table(rows: Sequence[Row]) -> str:
    """One line of Markdown a row."""
    lines = [
        "| model | limit, MB | tool | MB | test | points lost | KL | least KL | chosen | ms | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row.subject, row.limit_bytes)):
        best, original = row.best, row.original
        lost = float(original["test_accuracy"] or original["accuracy"]) - _test(row)
        chosen = "" if row.of_best is None else "{} of {}".format(*row.of_best)
        lines.append(
            f"| {row.subject} | {row.limit_bytes / 1e6:g} | {row.tool} | {best['size_bytes'] / 1e6:.3f} | "
            f"{_test(row):.2f} | {lost:+.2f} | {_told(best['kl'])} | {_told(row.closest['kl'])} | {chosen} | "
            f"{_told(best['latency_ms'], 2)} | {row.cpu_seconds:.0f} |"
        )
    return "\n".join(lines)


def verdicts_table(found: Sequence[Verdict]) -> str:
    """One line of Markdown a tool and model."""
    lines = [
        "| tool | model | limits | KL, share | bytes, share | points on test | chosen | CPU, share | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        chosen = "" if one.chosen is None else "{} of {}".format(*one.chosen)
        against = "" if one.against == "default" else f" (against {one.against})"
        lines.append(
            f"| {one.tool}{against} | {one.subject} | {one.limits} | {_told(one.kl, 2)} | "
            f"{_told(one.size, 2)} | {one.points:+.2f} | {chosen} | {_told(one.cpu, 2)} | {one.says} |"
        )
    return "\n".join(lines)


def _told(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"
