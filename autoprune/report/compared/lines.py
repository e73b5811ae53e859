"""The same comparison as a short table for the terminal."""

from __future__ import annotations

from autoprune.report.compared.page import Comparison
from autoprune.run.text import printable


def comparison_lines(comparison: Comparison) -> list[str]:
    """What is compared, what cannot be, what differs, and what each run keeps at equal limits."""
    out = [printable(f"{run.title} ({run.folder})") for run in comparison.runs]
    out += [f"Note: {warning}" for warning in comparison.what.warnings]
    if comparison.differences:
        letters = [run.letter for run in comparison.runs]
        out += ["", "What differs"]
        for row in comparison.differences:
            values = "; ".join(f"{k} {v}" for k, v in zip(letters, row.values, strict=True))
            out.append(printable(f"  {row.name}: {values}"))
    for table in comparison.tables:
        heads = ["limit", *(run.letter for run in comparison.runs), "difference"]
        cells = [
            [row.limit, *("\u2013" if kept is None else kept.score for kept in row.kept),
             f"{row.verdict}, {row.split}"]
            for row in table.rows
        ]  # fmt: skip
        widths = [max(len(row[k]) for row in [heads, *cells]) for k in range(len(heads) - 1)]
        out += ["", table.title]
        for line in [heads, *cells]:
            padded = [text.rjust(wide) for text, wide in zip(line[:-1], widths, strict=True)]
            out.append(printable("  " + "  ".join([*padded, line[-1]]).replace("\u00a0", " ")))
    return out
