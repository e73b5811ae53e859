"""What does a fine-tune bring? Candidates untrained, reconstructed, trained, and both, on validation.

    python -m benchmarks.finetune [MODEL...] [--candidates KIND...] [--seeds N] [--steps N...] [-o FILE.json]

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
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from autoprune.core.files import write_json
from autoprune.core.progress import Progress
from autoprune.evaluation.finetune import Lesson, Recipe, finetune
from autoprune.evaluation.jobs import Sense
from autoprune.evaluation.measure import logits_of
from autoprune.evaluation.worker import Worker, make_worker
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import Prepared, prepare
from autoprune.run.config import DEMO_DEFAULTS, Config
from autoprune.search.solver.mckp import Problem, solve
from autoprune.sensitivity.fisher_scores import Sensitivity
from autoprune.space.levels import Candidate, Level
from autoprune.targets.packed import torch_runner
from autoprune.tasks.answers import divergence
from autoprune.tasks.data.demo import demo_model
from benchmarks.harness import models as zoo

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


def config_of(name: str, folder: Path) -> Config:
    """The settings of a search on one of the models."""
    if name == "reviews":
        return Config.of(**DEMO_DEFAULTS)
    if name == "embeddings":
        return Config.of(
            model=str(demo_model()), dataset=str(zoo.reviews(folder)), task="sentence-embedding",
            group_by="movie_name", max_length=64,
        )  # fmt: skip
    if name == "smollm2":
        return Config.of(
            model=str(zoo.smollm2(folder)), dataset=str(zoo.news(folder)), task="causal-lm",
            limit_rows=(205, 16, 30),
        )  # fmt: skip
    if name == "resnet":
        return Config.of(
            model=str(zoo.resnet(folder)),
            dataset=str(zoo.digit_images(folder)),
            task="image-classification",
        )
    raise SystemExit(f"no such model: {name!r}; there are reviews, embeddings, smollm2 and resnet")


def candidates(prepared: Prepared, worker: Worker, kinds: list[str]) -> Iterator[tuple[str, Candidate]]:
    """The candidates that are asked for, by name."""
    space, units = prepared.inputs.space, prepared.setting.units
    problem: Problem | None = None
    for kind in kinds:
        if kind.endswith("-bit"):
            yield kind, space.uniform(Level.of(0.0, int(kind[0])))
            continue
        if problem is None:
            harm = worker(Sense(tuple(units)))
            assert isinstance(harm, Sensitivity)
            problem = Problem.of(space, prepared.inputs.sizes.with_damage(harm.damage()))
        eight = sum(unit.size_bytes(Level.of(0.0, 8)) for unit in units)
        chosen = solve(problem, limit_bytes=int(SHARES[kind] * eight), limit_ms=None)
        if chosen is not None:
            yield kind, problem.candidate(chosen)


def rows_of(
    name: str, worker: Worker, candidate: Candidate, kind: str, steps: int, seed: int
) -> Iterator[Row]:
    """One candidate in every way."""
    bench = worker.workbench
    task, setting = bench.task, bench.setting
    lesson = Lesson(task, task.train, setting.train_answers)
    answers = setting.validation_answers
    size = 4 if task.kind.predicts_next_token else 16
    for way in WAYS:
        if way in ("untrained", "reconstructed") and seed:
            continue
        begun = time.process_time()
        stitched = bench.stitched(candidate)
        if way != "untrained":
            # Reconstructed alone: so small a rate that no weight moves, and as many rows as with steps.
            recipe = Recipe(1, size * steps, 1e-12) if way == "reconstructed" else Recipe(steps, size, 3e-5)
            teacher = None if way == "trained" else bench.teacher
            stitched = finetune(
                stitched, lesson, recipe, seed=seed, again=lambda: bench.stitched(candidate), teacher=teacher
            )
        seconds = time.process_time() - begun
        run = torch_runner(stitched.model, task.kind)
        logits = logits_of(run, task, task.validation, watched=answers.watched)
        score = task.score(task.validation, logits, answers)
        yield Row(name, kind, way, steps, seed, divergence(logits, answers), score, round(seconds, 1))


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
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", default=[48])
    parser.add_argument("--folder", type=Path, default=None, help="of the benchmark's models")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rows: list[Row] = []
    if asked.output.exists():
        rows = [Row(**row) for row in json.loads(asked.output.read_text())["rows"]]
    for name in asked.models or ["reviews"]:
        prepared = prepare(
            config_of(name, asked.folder), read_inputs(config_of(name, asked.folder)), Progress()
        )
        torch.set_num_threads(1)
        worker = make_worker({"setting": prepared.setting})
        rows = [row for row in rows if row.model != name or row.candidate not in asked.candidates]
        for kind, candidate in candidates(prepared, worker, asked.candidates):
            for steps in asked.steps:
                for seed in range(asked.seeds):
                    for row in rows_of(name, worker, candidate, kind, steps, seed):
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
