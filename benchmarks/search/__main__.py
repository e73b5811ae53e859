"""Does our search find more than others do? At equal trials and at equal time, on two real models.

    python -m benchmarks.search [--model both] [--trials 100] [--seeds 3] [--jobs 2] [-o benchmarks/results]
    python -m benchmarks.search --check

Our sampler, the solver alone, an EvoPress-style evolution and Optuna's random, TPE, NSGA-II and GP
samplers search the built-in demo's MiniLM and a small transformer on real digits, every candidate measured
without fine-tuning (`arena.py`), scored by the shares of boxes that are the same for all (`scores.py`).
On the digits 10,000 measurements set the mark (`reference.py`). `--check` runs what the claims need at a
small size, prints them last and exits with 1 where one does not hold; it writes no results.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

# Before NumPy and torch are there: one thread a search, so that several run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore", category=FutureWarning)

import optuna

from autoprune.core.files import write_json
from autoprune.space.trial import Measurement
from benchmarks.search import (
    claims,
    joint,
    picture,
    race,
    reference,
    tables,
)
from benchmarks.search.methods import METHODS, OURS
from benchmarks.search.scores import MEASURES, Ruler

RESULTS = Path(__file__).parents[1] / "results"
REFERENCE = "digits-reference.json"

CHECK_ROWS, CHECK_SEEDS = {"minilm": 64, "digits": None}, {"minilm": 1, "digits": 3}
CHECK_METHODS = {"minilm": tuple(method for method in METHODS if method != "gp"), "digits": METHODS}
"""GP thinks for five minutes a search, so a check has it once, on the digits; the full run has all."""


@dataclass(frozen=True)
class Plan:
    """What is run on one arena."""

    arena: str
    rows: int | None
    methods: Sequence[str]
    seeds: int
    trials: int
    once: Sequence[str] = ("solver",)
    """Searches that are run with one seed: the solver has none."""


@dataclass
class Found:
    """What it gave."""

    plan: Plan
    ruler: Ruler
    curves: dict[str, list[race.Curve]]
    joint: joint.Joint | None
    reference: dict[str, Any] | None
    claims: list[claims.Claim] = field(default_factory=list)


def main() -> int:
    """Run, print and write; 1 where a claim does not hold."""
    given = _arguments()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.jobs, mp_context=context, initializer=_quiet) as pool:
        started = [(plan, _submit(pool, plan)) for plan in _plans(given)]
        for plan, waiting in started:
            found.append(_gather(plan, waiting))
            print("\n".join(_report(found[-1])), flush=True)
    if not given.check:
        _write(found, given.output)
    print("\nclaims")
    held = [claim for each in found for claim in each.claims]
    print(*held, sep="\n")
    return 0 if all(claim.holds for claim in held) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("minilm", "digits", "both"), default="both")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="searches side by side, one thread each")
    parser.add_argument("--check", action="store_true", help="the claims at a small size, nothing written")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    return parser.parse_args()


def _plans(given: argparse.Namespace) -> Iterator[Plan]:
    for name in ("digits", "minilm") if given.model == "both" else (given.model,):
        race.known_arena(name, CHECK_ROWS[name] if given.check else None)  # fitted once, not by every job
        if given.check:
            methods = [method for method in given.methods if method in CHECK_METHODS[name]]
            seeds = min(given.seeds, CHECK_SEEDS[name])
            yield Plan(name, CHECK_ROWS[name], methods, seeds, given.trials, once=("solver", "gp"))
        else:
            yield Plan(name, None, given.methods, given.seeds, given.trials)


def _quiet() -> None:
    warnings.filterwarnings("ignore")


@dataclass
class _Waiting:
    """Jobs under way."""

    runs: dict[str, list[Future[race.Run]]]
    joint: dict[str, Future[list[Measurement]]]
    reference: Future[dict[str, Any]] | None


def _submit(pool: ProcessPoolExecutor, plan: Plan) -> _Waiting:
    """All jobs of an arena, the longest first."""
    mark = pool.submit(_measure_reference, plan.rows) if plan.arena == "digits" else None
    runs: dict[str, list[Future[race.Run]]] = {}
    for method in reversed(METHODS):
        if method in plan.methods:
            seeds = range(1 if method in plan.once else plan.seeds)
            runs[method] = [
                pool.submit(race.run, plan.arena, plan.rows, method, seed, plan.trials) for seed in seeds
            ]
    kinds = joint.KINDS if OURS in plan.methods else ()
    halves = {
        kind: pool.submit(joint.found_by, kind, plan.arena, plan.rows, 0, min(joint.TRIALS, plan.trials))
        for kind in kinds
    }
    return _Waiting(runs, halves, mark)


def _measure_reference(rows: int | None) -> dict[str, Any]:
    arena = race.known_arena("digits", rows)
    return reference.reference(arena, Ruler.of(arena), RESULTS / REFERENCE)


def _gather(plan: Plan, waiting: _Waiting) -> Found:
    """Wait for an arena's jobs and score what they found."""
    runs = {method: [future.result() for future in seeds] for method, seeds in waiting.runs.items()}
    halves = {kind: future.result() for kind, future in waiting.joint.items()}
    mark = None if waiting.reference is None else waiting.reference.result()
    arena = race.known_arena(plan.arena, plan.rows)
    ruler = Ruler.of(arena)
    curves = {
        method: [race.Curve.of(result, arena, ruler, tuple(MEASURES)) for result in runs[method]]
        for method in METHODS
        if method in runs
    }
    found = Found(plan, ruler, curves, joint.compare(arena, ruler, halves) if halves else None, mark)
    found.claims = list(claims.claims_of(plan.arena, curves, mark, found.joint))
    return found


def _report(found: Found) -> Iterator[str]:
    plan, ruler = found.plan, found.ruler
    yield f"\n{plan.arena}: {plan.trials} trials, {plan.seeds} seeds; median (least-most)"
    yield (
        f"boxes: {ruler.low_bytes:,} to {ruler.high_bytes:,} bytes, "
        f"KL {ruler.floor_kl:.3g} to {ruler.top_kl:.3g}; "
        f"to {ruler.reference.size_bytes:,} bytes, {ruler.reference.latency_ms:.4g} ms and "
        f"{ruler.reference.accuracy:.1f} % to 100 %"
    )
    if found.reference is not None:
        scores = ", ".join(f"({MEASURES[m]}) {v:.4f}" for m, v in found.reference["scores"].items())
        yield f"{found.reference['evaluations']:,} evaluations: {scores}"
    yield from tables.lines_of(tables.rows_of(found.curves, plan.trials))


def _write(found: Sequence[Found], folder: Path) -> None:
    """`search.json`, the digits' reference front and the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, one thread a search, CPU",
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "optuna")},
        "measures": MEASURES,
        "arenas": [_record(gathered) for gathered in found],
    }
    write_json(folder / "search.json", about)
    marks: dict[str, float] = {}
    for gathered in found:
        if gathered.reference is not None:
            (folder / REFERENCE).write_text(_by_line(gathered.reference), encoding="utf-8")
            marks[gathered.plan.arena] = gathered.reference["scores"]["plane"]
    picture.draw(
        {gathered.plan.arena: gathered.curves for gathered in reversed(found)}, marks, folder / "search.png"
    )


def _record(found: Found) -> dict[str, Any]:
    return {
        "plan": asdict(found.plan),
        "boxes": {
            "plane": {"bytes": [found.ruler.low_bytes, found.ruler.high_bytes],
                      "kl": [found.ruler.floor_kl, found.ruler.top_kl]},
            "speed": dict(zip(("size_bytes", "latency_ms", "accuracy"), found.ruler.reference.objectives(),
                              strict=True)),
        },
        "reference": None if found.reference is None else found.reference["scores"],
        "rows": tables.rows_of(found.curves, found.plan.trials),
        "joint": None if found.joint is None else found.joint.as_json(),
        "claims": [asdict(claim) for claim in found.claims],
    }  # fmt: skip


def _by_line(record: Mapping[str, Any]) -> str:
    """JSON with a front member a line."""
    parts = []
    for key, value in record.items():
        if isinstance(value, list):
            body = "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]"
        else:
            body = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {body}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
