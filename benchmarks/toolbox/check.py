"""Does each tool work, from what a user writes to a model that is loaded again? Searched with it alone."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.claim import Claim
from benchmarks.harness.commands import Bench
from benchmarks.toolbox.results import note_row, read_rows
from benchmarks.toolbox.rows import Key, Plan, Row, attempted, run_name, subject_of
from benchmarks.toolbox.spaces import unchanged
from benchmarks.toolbox.tools import Tool, for_check, tools_named

WORDS = ("--finetune-steps", "4", "--calibration-rows", "64", "--limit-rows", "400", "200", "200")
TRIALS, TRIALS_OF_EXPORTS = 2, 8
SHARE = 0.3
"""Of the original's bytes: 16-bit floats alone are larger, so a tool has to be used."""


def check(bench: Bench, tools: tuple[Tool, ...], zoo: Path | None, output: Path) -> int:
    """One small row a tool, as many at once as there are processors; 1 where one failed or was not used."""
    known = {row.key: row for row in read_rows(output)}
    alike: dict[str, list[str]] = {}  # names of tools of one run, which two processes may not both make
    for tool in tools:
        alike.setdefault(run_name(for_check(tool)), []).append(tool.name)
    claims = []
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        made = [pool.submit(_check_rows, bench, names, zoo, known) for names in alike.values()]
        for done in as_completed(made):
            for name, row, limit in done.result():
                if row is not None and row.key not in known:
                    note_row(output, row)
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
        trials = TRIALS_OF_EXPORTS if small.is_plain else TRIALS
        subject = replace(subject_of(tool.subject, zoo, small=True), trials=trials)
        limit = int(SHARE * subject.float_bytes)
        row = known.get((subject.name, limit, tool.name, 0, True))
        plan = Plan(bench, 0, WORDS, few=True)
        out.append((tool.name, row or attempted(plan, subject, limit, small), limit))
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
