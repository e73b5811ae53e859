"""Where candidates are really fine-tuned: does our search find more than others for the same training?

    python -m benchmarks.search.trained [--finetunes 24] [--seeds 3] [--methods NAME...] [-o FILE.json]

The digits' model, as in `arena.py`. Others have every candidate that they ask for fine-tuned, as a trial
of Optuna's would be: reconstructed, then 40 steps. Ours has its own schedule: candidates are measured
untrained, and those that promise most are fine-tuned; of what training leaves it knows only the shares that
the search assumes at first. All are charged the seconds that they took, thinking too, and ours those of
predicting damage.
Scores are those of `scores.py`, with the box's floor at the divergence that validation resolves.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import optuna

from autoprune.core.files import write_json
from autoprune.space.budget import Budget
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.aim import Aim
from autoprune.strategy.hypervolume import resolved_kl
from autoprune.strategy.proposer import HypervolumeProposer
from autoprune.strategy.schedule import Plan, Schedule
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.starts import solver_answers
from autoprune.strategy.study import Study
from autoprune.strategy.surrogates.recovery_model import MEASURED_STEPS, Training
from benchmarks.harness.claim import Claim
from benchmarks.search import race
from benchmarks.search.arena import Arena
from benchmarks.search.methods import METHODS, OPTUNA, OURS
from benchmarks.search.scores import MEASURES, Ruler
from benchmarks.search.training import REMOVED

RESULTS = Path(__file__).parents[1] / "results" / "search-trained.json"
EARLY = 2
"""Ours with one fine-tune for so many of the others'."""


@dataclass(frozen=True)
class Step:
    """One measurement of a search: the fine-tunes begun by then, and the seconds since its start."""

    measurement: Measurement
    finetunes: int
    seconds: float


@dataclass(frozen=True)
class Progress:
    """What a search had found, step by step."""

    method: str
    seed: int
    steps: Sequence[Step]

    def after(self, finetunes: int) -> list[Measurement]:
        """What was measured with so many fine-tunes."""
        return [step.measurement for step in self.steps if step.finetunes <= finetunes]

    def at(self, seconds: float) -> list[Measurement]:
        """What was measured by then."""
        return [step.measurement for step in self.steps if step.seconds <= seconds]

    def seconds_of(self, finetunes: int) -> float:
        """When so many fine-tunes were done."""
        return max(step.seconds for step in self.steps if step.finetunes <= finetunes)


def searched(method: str, seed: int, finetunes: int) -> Progress:
    """A search until so many candidates are fine-tuned."""
    trained = race.known_arena("digits", None, MEASURED_STEPS)
    if method == OURS:
        return Progress(method, seed, ours(race.known_arena("digits", None), trained, seed, finetunes))
    run = race.search(trained, method, seed, finetunes)
    found = zip(run.measurements(trained), run.seconds, strict=True)
    return Progress(method, seed, [Step(m, k + 1, at) for k, (m, at) in enumerate(found)])


def ours(untrained: Arena, trained: Arena, seed: int, finetunes: int) -> list[Step]:
    """Our search by the schedule of `autoprune search`, finalists left out."""
    removed = {unit.unit: REMOVED.get(unit.unit.rpartition(".")[2], "") for unit in untrained.space.units}
    answers = len(untrained.evaluator.labels)
    aim = Aim.of(
        Problem.of(untrained.space, untrained.costs), Budget(),
        training=Training(MEASURED_STEPS, removed), answers=answers,
    )  # fmt: skip
    first = solver_answers(aim)
    plan = Plan(
        budget=Budget(), wanted=100 * finetunes, steps=MEASURED_STEPS, answers=answers,
        byte_range=aim.scale.byte_range, first=frozenset(first), left=aim.shares_left,
    )  # fmt: skip
    steps: list[Step] = []
    clock, count = untrained.setup_seconds, 0
    with TemporaryDirectory(prefix="autoprune-bench-") as folder:
        study = Study(Path(folder) / "study.db", untrained.space, proposer=HypervolumeProposer(aim, seed))
        try:
            schedule = Schedule(study, plan, first)
            while True:
                start = time.perf_counter()
                asked = schedule.next()
                clock += time.perf_counter() - start
                if asked is None or count + (asked.rung == 1) > finetunes:
                    return steps
                arena = trained if asked.rung else untrained
                count += asked.rung == 1
                m, took = arena.evaluate(asked.candidate)
                clock += took
                steps.append(Step(m, count, clock))
                study.tell(asked.token, Trial(-1, asked.candidate, m, seconds=took, rung=asked.rung))
        finally:
            study.close()


def table(found: Mapping[str, Sequence[Progress]], finetunes: int) -> list[dict[str, Any]]:
    """One row a method and measure: scores after half of the fine-tunes, all, and at our time."""
    arena = race.known_arena("digits", None)
    ruler = Ruler.of(arena)
    ruler = replace(ruler, floor_kl=max(ruler.floor_kl, resolved_kl(len(arena.evaluator.labels))))
    mine = found.get(OURS) or next(iter(found.values()))
    span = median(search.seconds_of(finetunes) for search in mine)

    def scores(measure: str, searches: Sequence[list[Measurement]]) -> list[float]:
        return [round(ruler.score(measure, each), 5) for each in searches]

    return [
        {
            "measure": measure, "method": method,
            "half": scores(measure, [search.after(finetunes // EARLY) for search in searches]),
            "all": scores(measure, [search.after(finetunes) for search in searches]),
            "at_our_seconds": scores(measure, [search.at(span) for search in searches]),
            "seconds": round(median(search.seconds_of(finetunes) for search in searches), 1),
        }
        for measure in MEASURES
        for method, searches in found.items()
    ]  # fmt: skip


def claims_of(rows: Sequence[Mapping[str, Any]], finetunes: int) -> list[Claim]:
    """Whether ours is ahead of each other search, in all seeds; of Optuna's with half of the fine-tunes."""
    by = {row["method"]: row for row in rows if row["measure"] == "trade"}
    out = []
    for method, row in by.items():
        if method == OURS or OURS not in by:
            continue
        own = finetunes // EARLY if method in OPTUNA else finetunes
        mine, theirs = by[OURS]["half" if method in OPTUNA else "all"], row["all"]
        out.append(
            Claim(
                f"after {own} fine-tunes ahead of {method} after {finetunes}, every seed",
                f"{min(mine):.4f} to {max(mine):.4f} against {min(theirs):.4f} to {max(theirs):.4f}",
                min(mine) > max(theirs),
            )
        )
    return out


def lines_of(rows: Sequence[Mapping[str, Any]], finetunes: int) -> list[str]:
    """The rows as aligned text, a block a measure."""
    heads = (f"{finetunes // EARLY} fine-tunes", f"{finetunes} fine-tunes", "at our seconds")
    lines = []
    for measure, words in MEASURES.items():
        lines.append(f"\nhypervolume in ({words})\n{'':12}" + "".join(f"{head:>26}" for head in heads))
        for row in rows:
            if row["measure"] == measure:
                cells = "".join(
                    f"{f'{median(v):.4f} ({min(v):.3f}-{max(v):.3f})':>26}"
                    for v in (row["half"], row["all"], row["at_our_seconds"])
                )
                lines.append(f"{row['method']:12}{cells}{row['seconds']:9.0f} s")
    return lines


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search.trained", description=__doc__)
    parser.add_argument("--finetunes", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: dict[str, list[Progress]] = {}
    for method in given.methods:
        for seed in range(1 if method == "solver" else given.seeds):
            found.setdefault(method, []).append(searched(method, seed, given.finetunes))
            print(f"{method} {seed}: {found[method][-1].seconds_of(given.finetunes):.0f} s", flush=True)
    rows = table(found, given.finetunes)
    claims = claims_of(rows, given.finetunes)
    print(*lines_of(rows, given.finetunes), "", *claims, sep="\n")
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "optuna")}
    about = {"machine": f"{platform.machine()}, one thread, CPU", "versions": versions}
    write_json(
        given.output,
        {**about, "finetunes": given.finetunes, "rows": rows, "claims": [asdict(claim) for claim in claims]},
    )


if __name__ == "__main__":
    main()
