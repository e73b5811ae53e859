"""What does a fine-tune bring? Candidates untrained, reconstructed, trained, and both, on validation.

    python -m benchmarks.finetune [MODEL...] [--candidates KIND...] [--ways WAY...] [--seeds N] [--steps N...]

MODEL: reviews (MiniLM, sentiment), embeddings (MiniLM, sentences), smollm2 (news), resnet (digits); without
any, reviews. Candidates: 2-bit and 3-bit (widths alone), removed (the solver's least damaging of at most a
quarter of the 8-bit bytes), tight (a seventh). The results are written after each row. Divergence is in
nats a place, accuracy the task's score; seconds are of one core, process time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

from autoprune.core.files import write_json
from autoprune.evaluation.finetune import Recipe
from autoprune.space.levels import Candidate, Level
from autoprune.strategy.solver.mckp import Problem, solve
from benchmarks.finetune.opened import Opened

RESULTS = Path(__file__).parents[1] / "results" / "finetune.json"
SHARES = {"removed": 1 / 4, "tight": 1 / 7}
"""Of the bytes of uniform 8 bits, that a candidate may have."""

WAYS = ("untrained", "trained", "reconstructed", "both")


@dataclass(frozen=True)
class Row:
    """A candidate after one recipe."""

    model: str
    candidate: str
    way: str
    steps: int
    seed: int
    kl: float
    score: float
    seconds: float


def candidates(opened: Opened, kinds: list[str]) -> Iterator[tuple[str, Candidate]]:
    """The candidates that are asked for, by name."""
    space, units = opened.prepared.inputs.space, opened.prepared.setting.units
    problem: Problem | None = None
    for kind in kinds:
        if kind.endswith("-bit"):
            yield kind, space.uniform(Level.of(0.0, int(kind[0])))
            continue
        if problem is None:
            problem = Problem.of(space, opened.costs())
        eight = sum(unit.size_bytes(Level.of(0.0, 8)) for unit in units)
        chosen = solve(problem, limit_bytes=int(SHARES[kind] * eight), limit_ms=None)
        if chosen is not None:
            yield kind, problem.candidate(chosen)


def rows_of(
    name: str, opened: Opened, candidate: Candidate, kind: str, steps: int, seed: int, ways: list[str]
) -> Iterator[Row]:
    """One candidate in every way that is asked for."""
    size = opened.prepared.recipe.batch_size
    rate = opened.prepared.recipe.learning_rate
    for way in ways:
        if way in ("untrained", "reconstructed") and seed:
            continue
        begun = time.process_time()
        # Reconstructed alone: so small a rate that no weight moves, and as many rows as with steps.
        recipe = Recipe(1, size * steps, 1e-12) if way == "reconstructed" else Recipe(steps, size, rate)
        if way == "untrained":
            recipe = replace(recipe, steps=0)
        stitched = opened.trained(candidate, recipe, seed=seed, reconstructs=way != "trained")
        seconds = time.process_time() - begun
        answers = opened.answers(stitched, "validation")
        yield Row(name, kind, way, steps, seed, answers.kl, answers.score, round(seconds, 1))


def table(rows: list[Row]) -> str:
    """Means over seeds, one line a candidate and number of steps."""
    lines = [f"{'model':12}{'candidate':10}{'steps':>6}" + "".join(f"{way:>24}" for way in WAYS)]
    groups = dict.fromkeys((row.model, row.candidate, row.steps) for row in rows)
    for model, candidate, steps in groups:
        line = f"{model:12}{candidate:10}{steps:6}"
        for way in WAYS:
            same = [
                r for r in rows if (r.model, r.candidate, r.steps, r.way) == (model, candidate, steps, way)
            ]
            if same:
                kl, score = fmean(r.kl for r in same), fmean(r.score for r in same)
                line += f"{f'{kl:.4f} {score:.2f} {fmean(r.seconds for r in same):.0f} s':>24}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--candidates", nargs="+", default=["2-bit", "3-bit", "removed", "tight"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[48])
    parser.add_argument("--folder", type=Path, default=None, help="of the benchmark's models")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rows: list[Row] = []
    if asked.output.exists():
        rows = [Row(**row) for row in json.loads(asked.output.read_text())["rows"]]
    for name in asked.models or ["reviews"]:
        opened = Opened.of(name, asked.folder)
        again = {
            (name, kind, steps, way)
            for kind in asked.candidates
            for steps in asked.steps
            for way in asked.ways
        }
        rows = [row for row in rows if (row.model, row.candidate, row.steps, row.way) not in again]
        for kind, candidate in candidates(opened, asked.candidates):
            for steps in asked.steps:
                for seed in range(asked.seeds):
                    for row in rows_of(name, opened, candidate, kind, steps, seed, asked.ways):
                        rows.append(row)
                        print(row, flush=True)
                        write_json(asked.output, record(rows))
    print(table(rows))


def record(rows: list[Row]) -> dict[str, Any]:
    """The content of the results file."""
    versions = {name: metadata.version(name) for name in ("autoprune", "torch", "transformers")}
    return {"versions": versions, "rows": [asdict(row) for row in rows]}


if __name__ == "__main__":
    main()
