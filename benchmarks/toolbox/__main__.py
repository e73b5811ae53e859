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
import multiprocessing
import os
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.core.files import read_json, write_json
from benchmarks.harness.claim import Claim
from benchmarks.harness.commands import Bench
from benchmarks.toolbox.rows import (
    Key,
    Plan,
    Row,
    Subject,
    checked_export,
    measured,
    run_name,
    subject_of,
)
from benchmarks.toolbox.spaces import unchanged
from benchmarks.toolbox.tools import SUBJECTS, TOOLS, Tool, for_check, tools_named
from benchmarks.toolbox.verdicts import rows_table, verdicts, verdicts_table

RESULTS = Path(__file__).parents[1] / "results" / "toolbox.json"
CHECK_WORDS = ("--finetune-steps", "4", "--calibration-rows", "64", "--limit-rows", "400", "200", "200")
CHECK_TRIALS, CHECK_TRIALS_OF_EXPORTS = 2, 8
CHECK_SHARE = 0.3
"""Of the original's bytes: 16-bit floats alone are larger, so a tool has to be used."""


def main() -> None:
    """Measure, write after each row, and print the tables."""
    asked = _asked()
    rows = _read(asked.output)
    if not asked.table:
        bench = Bench(asked.work.resolve(), asked.zoo, asked.trials, asked.workers)
        tools = tools_named(asked.tools)
        sys.exit(_check(bench, tools, asked) if asked.check else _run(bench, tools, asked))
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
    rows, failed = _read(asked.output), 0
    for name in asked.model or SUBJECTS:
        subject = subject_of(name, asked.zoo)
        for limit in asked.limit or subject.limits:
            for tool in tools:
                for seed in asked.seed or [0]:
                    key = (name, limit, tool.name, seed, False)
                    if name not in tool.subjects or any(row.key == key for row in rows):
                        continue
                    made = _row(Plan(bench, seed, ()), subject, limit, tool)
                    failed += made is None
                    if made is not None:
                        rows = _noted(asked.output, made)
                        print(rows_table([made]), flush=True)
    full = [row for row in rows if not row.check]
    print(rows_table(full), verdicts_table(verdicts(full)), sep="\n\n")
    return int(failed > 0)


def _check(bench: Bench, tools: tuple[Tool, ...], asked: argparse.Namespace) -> int:
    """One small row a tool, as many at once as there are processors; 1 where one failed or was not used."""
    known = {row.key: row for row in _read(asked.output)}
    alike: dict[str, list[str]] = {}  # names of tools of one run, which two processes may not both make
    for tool in tools:
        alike.setdefault(run_name(for_check(tool)), []).append(tool.name)
    claims = []
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        made = [pool.submit(_check_rows, bench, names, asked.zoo, known) for names in alike.values()]
        for done in as_completed(made):
            for name, row, limit in done.result():
                if row is not None and row.key not in known:
                    _noted(asked.output, row)
                [tool] = tools_named([name])
                claims.append(_claim(tool, row, limit))
                print(claims[-1], flush=True)
    return int(not all(claim.holds for claim in claims))


def _check_rows(
    bench: Bench, names: list[str], zoo: Path | None, known: dict[Key, Row]
) -> list[tuple[str, Row | None, int]]:
    """Tools whose searches are one run: each with its row, None where it failed, and its limit."""
    out = []
    for tool in tools_named(names):
        small = for_check(tool)
        trials = CHECK_TRIALS_OF_EXPORTS if small.is_plain else CHECK_TRIALS
        subject = replace(subject_of(tool.subject, zoo, small=True), trials=trials)
        limit = int(CHECK_SHARE * subject.float_bytes)
        row = known.get((subject.name, limit, tool.name, 0, True))
        plan = Plan(bench, 0, CHECK_WORDS, few=True)
        out.append((tool.name, row or _row(plan, subject, limit, small), limit))
    return out


def _claim(tool: Tool, row: Row | None, limit: int) -> Claim:
    """That a tool works from the space file or flag to a model that is loaded again."""
    by_space = for_check(tool).edit is not unchanged
    says = f"{tool.name}: searched{', used, exported and loaded' if by_space else ' or exported'}"
    if row is None:
        return Claim(says, "a command failed, see above", False)
    is_sure = tool.only is not None and tool.baseline is None and row.of_best is not None
    used = not is_sure or (row.of_best or (0, 0))[0] > 0 or (row.of_trials or (0, 0))[0] > 0
    fits = row.best["size_bytes"] <= limit or bool(tool.export) or tool.baseline is not None
    chosen = "" if row.of_best is None else "; in {} of {} parts of the best".format(*row.of_best)
    figures = f"{row.best['size_bytes']} bytes of {limit}, KL {row.best['kl']}{chosen}; {row.cpu_seconds} s"
    return Claim(says, figures, used and fits)


def _row(plan: Plan, subject: Subject, limit: int, tool: Tool) -> Row | None:
    """A new row; None, with the reason printed, where a command failed."""
    try:
        row = measured(plan, subject, limit, tool)
        if plan.few and tool.edit is not unchanged:
            checked_export(plan, subject, limit, tool)
    except AutopruneError:
        traceback.print_exc()
        return None
    return row


def _read(path: Path) -> list[Row]:
    return [Row.from_json(row) for row in read_json(path)["rows"]] if path.is_file() else []


def _noted(path: Path, row: Row) -> list[Row]:
    """Put one row into the file, which another process may have written to meanwhile."""
    rows = [*(old for old in _read(path) if old.key != row.key), row]
    versions = {package: metadata.version(package) for package in ("autoprune", "torch", "transformers")}
    write_json(path, {"versions": versions, "rows": [each.as_json() for each in rows]})
    return rows


if __name__ == "__main__":
    main()
