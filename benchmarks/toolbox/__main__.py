"""Which tools of the toolbox pay? Each switched on beside the default search, by the command as a user would.

    python -m benchmarks.toolbox [TOOL...] [--model NAME] [--limit BYTES] [-o FILE.json]
    python -m benchmarks.toolbox --check
    python -m benchmarks.toolbox --table

TOOL: as `tools.py` names it; all if none is given. Models: MiniLM on the demo's reviews (`demo`) and a ResNet
on digits (`cnn`), at three size limits each; the small ResNet of the check, at two; and MiniLM's sentence
embeddings, at one. The search is free to choose the tool or not. A finished row is not run again, and one
that was stopped goes on where it was. Bytes, accuracy and divergence do not depend on what else the machine
does; milliseconds and seconds do. --check has each tool as the only choice, with few trials, as many tools at
once as there are processors, and exports and loads what a space file brought: it exits 1 where a tool is not
used or a command fails.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.harness.commands import Bench
from benchmarks.toolbox.check import check
from benchmarks.toolbox.results import RESULTS, note_row, read_rows
from benchmarks.toolbox.rows import Plan, attempted, subject_of
from benchmarks.toolbox.tools import SUBJECTS, TOOLS, Tool, tools_named
from benchmarks.toolbox.verdicts import rows_table, verdicts, verdicts_table


def main() -> None:
    """Measure, write after each row, and print the tables."""
    asked = _asked()
    rows = read_rows(asked.output)
    if not asked.table:
        bench = Bench(asked.work.resolve(), asked.zoo, asked.trials, asked.workers)
        tools = tools_named(asked.tools)
        sys.exit(check(bench, tools, asked.zoo, asked.output) if asked.check else _run(bench, tools, asked))
    full = [row for row in rows if not row.check]
    print(rows_table(full), verdicts_table(verdicts(full)), sep="\n\n")


def _asked() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.toolbox", description=__doc__, formatter_class=raw
    )
    parser.add_argument("tools", nargs="*", metavar="TOOL", help="; ".join(tool.name for tool in TOOLS))
    parser.add_argument("--model", action="append", choices=SUBJECTS, help="all if not given")
    parser.add_argument(
        "--limit", action="append", type=int, metavar="BYTES", help="the model's if not given"
    )
    parser.add_argument("--seed", action="append", type=int, help="0 if not given")
    parser.add_argument("--check", action="store_true", help="small: each tool runs, and is really used")
    parser.add_argument("--table", action="store_true", help="print what is there; run nothing")
    parser.add_argument("--trials", type=int, help="of each search, instead of its own number")
    parser.add_argument("--workers", type=int, default=0, help="Ray workers; 0 is one process")
    parser.add_argument("--work", type=Path, default=Path("runs/toolbox"), help="where runs lie")
    parser.add_argument("--zoo", type=Path, help="where models and data lie; the cache folder if not given")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    return parser.parse_args()


def _run(bench: Bench, tools: tuple[Tool, ...], asked: argparse.Namespace) -> int:
    """Every row that is not there; 1 where a command failed."""
    rows, failed = read_rows(asked.output), 0
    for name in asked.model or SUBJECTS:
        subject = subject_of(name, asked.zoo)
        for limit in asked.limit or subject.limits:
            for tool in tools:
                for seed in asked.seed or [0]:
                    key = (name, limit, tool.name, seed, False)
                    if name not in tool.subjects or any(row.key == key for row in rows):
                        continue
                    made = attempted(Plan(bench, seed, ()), subject, limit, tool)
                    failed += made is None
                    if made is not None:
                        rows = note_row(asked.output, made)
                        print(rows_table([made]), flush=True)
    full = [row for row in rows if not row.check]
    print(rows_table(full), verdicts_table(verdicts(full)), sep="\n\n")
    return int(failed > 0)


if __name__ == "__main__":
    main()
