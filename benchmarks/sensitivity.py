"""Which prediction of damage ranks candidates as measuring them does, and leads to better ones?

    python -m benchmarks.sensitivity [--candidates 96] [--rows 256] [--exact 0] [-o FILE.json]

On the built-in demo, candidates of many sizes and kinds are stitched without fine-tuning, and their
KL(teacher || model) on validation rows is set against what several predictions say of them. Then each
prediction chooses candidates for a ladder of sizes, whose KL is measured too. About six minutes on a core.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from autoprune.compress.statistics import Statistics
from autoprune.compress.stitch import stitch
from autoprune.core.progress import Progress
from autoprune.evaluation.jobs import Setting
from autoprune.evaluation.measure import logits_of
from autoprune.evaluation.workbench import Workbench
from autoprune.evaluation.worker import make_worker
from autoprune.models.unit import Unit
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import prepare
from autoprune.run.config import DEMO_DEFAULTS, Config
from autoprune.sensitivity.fisher_scores import measure_sensitivity
from autoprune.sensitivity.weight_changes import Lookup, weight_changes
from autoprune.space.costs import Costs
from autoprune.space.levels import UNTOUCHED, Candidate, Choices, Level, SearchSpace
from autoprune.strategy.baselines import warm_starts
from autoprune.targets.packed import torch_runner
from autoprune.tasks.answers import divergence
from autoprune.tasks.task import Encoded

Table = dict[str, dict[Level, float]]
Prediction = Callable[[Candidate], float]

RESULTS = Path(__file__).parent / "results" / "sensitivity.json"

REMOVAL, ROWS = "independent tokens, removal x 6", "rows, sum of units"
"""What was used before, and what is."""

LADDER = 9
"""Sizes that each prediction chooses a candidate for, from just above the smallest."""


@dataclass(frozen=True)
class Bench:
    """The demo with a worker's teacher and library, and the rows that candidates are measured on."""

    workbench: Workbench
    setting: Setting
    space: SearchSpace
    sizes: Costs
    validation: Encoded

    def kl(self, candidate: Candidate) -> float:
        """Measured on the validation rows."""
        teacher = self.setting.validation_answers.values[: len(self.validation)]
        return divergence(self.logits(candidate, self.validation), teacher)

    def logits(self, candidate: Candidate, data: Encoded) -> NDArray[np.float32]:
        """What the candidate's model says, without fine-tuning."""
        model = stitch(self.workbench.teacher, self.setting.units, candidate, self.workbench.library).model
        return logits_of(torch_runner(model), self.setting.task, data)


# ---- candidates ---------------------------------------------------------------------------------


def random_candidates(space: SearchSpace, rng: random.Random) -> Iterator[Candidate]:
    """Every unit at any level, all alike."""
    while True:
        yield Candidate(tuple((unit.unit, rng.choice(list(unit.levels()))) for unit in space.units))


def about_a_strength(space: SearchSpace, rng: random.Random) -> Iterator[Candidate]:
    """Levels about one ratio and one number of bits that are drawn first, so that sizes spread."""
    while True:
        ratio, bits = rng.uniform(0.0, 0.9), rng.uniform(1.0, 5.0)

        def near(one: Choices, ratio: float = ratio, bits: float = bits) -> Level:
            r, b = ratio + rng.gauss(0.0, 0.2), 2 ** (bits + rng.gauss(0.0, 0.7))
            plain = (storage for storage in reversed(one.storages) if not storage.rounds_inputs)
            nearest = min(plain, key=lambda storage: abs(storage.bits - b))
            return Level(min(one.ratios, key=lambda x: abs(x - r)), nearest)

        yield Candidate(tuple((unit.unit, near(unit)) for unit in space.units))


def near_solutions(space: SearchSpace, costs: Costs, rng: random.Random) -> Iterator[Candidate]:
    """A repair's candidates along the sizes, each with none to four units changed at random."""
    starts = warm_starts(space, costs, limit_bytes=None, count=16)[1:]
    while True:
        one = rng.choice(starts)
        for unit in rng.sample(space.units, rng.randrange(5)):
            one = one.with_level(unit.unit, rng.choice(list(unit.levels())))
        yield one


def draw(kinds: Mapping[str, Iterator[Candidate]], count: int) -> list[tuple[str, Candidate]]:
    """So many different candidates, of all kinds in turn."""
    out: dict[Candidate, str] = {}
    while len(out) < count:
        kind = list(kinds)[len(out) % len(kinds)]
        one = next(kinds[kind])
        if any(level != UNTOUCHED for _, level in one.items):
            out.setdefault(one, kind)
    return [(kind, candidate) for candidate, kind in out.items()]


# ---- predictions --------------------------------------------------------------------------------


def independent_tokens(bench: Bench, unit: Unit) -> dict[Level, float]:
    """Damage of a unit's levels with tokens taken as independent, and the Fisher as diagonal.

    1/2 uses sum_o g_o E[(D x + c)^2]_o a row (K-FAC's view: Martens and Grosse, arXiv 1503.05671, 3.1).
    """
    total = torch.zeros(len(unit.levels()))
    for path, change in weight_changes(unit, bench.workbench.teacher, bench.workbench.library).items():
        seen = Statistics.from_arrays(bench.setting.statistics[path])
        if isinstance(change, Lookup):
            rows = change.rows(torch.arange(len(change.old)))
            harm = torch.stack([seen.moment @ d.square() @ seen.gradient for d in rows])
        else:
            d, c = change.weight, change.bias
            error = ((d @ seen.moment) * d).sum(2) + 2 * c * (d @ seen.mean) + c.square()
            harm = seen.uses * error.clamp(min=0) @ seen.gradient
        total += 0.5 * harm
    return dict(zip(unit.levels(), total.tolist(), strict=True))


def with_removal_factor(table: Mapping[Level, float], factor: float = 6.0) -> dict[Level, float]:
    """The same with what removal alone does counted so many times, as fitted to 46 candidates."""
    return {level: harm + (factor - 1) * table[Level(level.ratio)] for level, harm in table.items()}


def exact_alone(bench: Bench, rows: int) -> Table:
    """Measured KL of each variant alone on training rows: what predicting it cannot do better."""
    data, none = bench.setting.task.train.first(rows), bench.space.untouched()
    teacher = bench.logits(none, data)
    return {
        unit.unit: {
            level: divergence(bench.logits(none.with_level(unit.unit, level), data), teacher)
            for level in unit.levels()
        }
        for unit in bench.space.units
    }


def summed(damage: Table) -> Prediction:
    """A candidate's damage as the sum of its units'."""
    return lambda candidate: sum(damage[unit][level] for unit, level in candidate.items)


# ---- the experiment -----------------------------------------------------------------------------


def figures(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> dict[str, float]:
    """Rank correlations, the common factor, and the rms error of the log before and after it."""
    gap = np.log(measured / predicted)
    return {
        "spearman": float(stats.spearmanr(predicted, measured).statistic),
        "kendall": float(stats.kendalltau(predicted, measured).statistic),
        "factor": float(np.exp(gap.mean())),
        "rms_log": float(np.sqrt(np.mean(gap**2))),
        "rms_log_scaled": float(gap.std()),
    }


def ladder(bench: Bench, damage: Table) -> list[dict[str, float]]:
    """Size and measured KL of the candidates that a table of damage leads to, size by size."""
    costs = bench.sizes.with_damage(damage)
    top = bench.sizes.size_bytes(bench.space.untouched()) * 0.35
    low = bench.sizes.size_bytes(bench.sizes.smallest(bench.space)) * 1.08
    out = []
    for limit in np.geomspace(low, top, LADDER):
        one = warm_starts(bench.space, costs, limit_bytes=int(limit), count=1)[0]
        out.append({"limit": int(limit), "size_bytes": costs.size_bytes(one), "kl": bench.kl(one)})
    return out


def open_bench(rows: int, seed: int) -> Bench:
    """The demo, prepared."""
    config = Config.of(max_length=int(DEMO_DEFAULTS["max_length"]), finetune_steps=12, seed=seed)
    inputs = read_inputs(config)
    setting = prepare(config, inputs, Progress()).setting
    workbench = make_worker({"setting": setting}).workbench
    for unit in setting.units:
        for ratio in unit.ratios:
            workbench.library.build(unit, ratio)
    return Bench(workbench, setting, inputs.space, inputs.sizes, setting.task.validation.first(rows))


def drawn_for(
    bench: Bench, tables: Mapping[str, Table], count: int, seed: int
) -> list[tuple[str, Candidate]]:
    """Candidates of all kinds; near the solutions of what is used now and of what was before."""
    rng, space = random.Random(seed), bench.space
    kinds = {"random": random_candidates(space, rng), "about a strength": about_a_strength(space, rng)}
    for name in (REMOVAL, ROWS):
        costs = bench.sizes.with_damage(tables[name])
        kinds[f"near solutions of {name!r}"] = near_solutions(space, costs, rng)
    return draw(kinds, count)


def compared(
    bench: Bench,
    drawn: list[tuple[str, Candidate]],
    measured: NDArray[np.float64],
    predictions: Mapping[str, Prediction],
    tables: Mapping[str, Table],
) -> dict[str, Any]:
    """Figures of every prediction, of all candidates and of each kind, printed as they come."""
    out: dict[str, Any] = {}
    print(f"{'':34}{'Spearman':>9}{'Kendall':>9}{'factor':>8}{'rms log':>9}{'scaled':>8}{'ladder KL':>11}")
    for name, predict in predictions.items():
        predicted = np.array([predict(candidate) for _, candidate in drawn])
        now: dict[str, Any] = dict(figures(predicted, measured))
        line = "{spearman:9.3f}{kendall:9.3f}{factor:8.2f}{rms_log:9.2f}{rms_log_scaled:8.2f}".format(**now)
        now["spearman_by_kind"] = {}
        for kind in dict.fromkeys(kind for kind, _ in drawn):
            mine = np.array([source == kind for source, _ in drawn])
            now["spearman_by_kind"][kind] = figures(predicted[mine], measured[mine])["spearman"]
        if name in tables:
            now["ladder"] = ladder(bench, tables[name])
            line += f"{np.exp(np.mean(np.log([step['kl'] for step in now['ladder']]))):11.5f}"
        out[name] = now
        print(f"{name:34}{line}", flush=True)
    return out


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=96)
    parser.add_argument("--rows", type=int, default=256, help="rows of the pass, and validation rows")
    parser.add_argument("--exact", type=int, default=0, help="rows to measure every variant alone on; slow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    bench = open_bench(given.rows, given.seed)
    workbench, task, units = bench.workbench, bench.setting.task, bench.setting.units
    start = time.process_time()
    found = measure_sensitivity(
        workbench.teacher, units, workbench.library, task, task.train, rows=given.rows, seed=given.seed
    )
    seconds = time.process_time() - start
    plain = {unit.name: independent_tokens(bench, unit) for unit in units}
    tables: dict[str, Table] = {
        "independent tokens": plain,
        REMOVAL: {name: with_removal_factor(table) for name, table in plain.items()},
        ROWS: found.damage(),
    }
    if given.exact:
        tables["each variant measured alone"] = exact_alone(bench, given.exact)
    predictions = {name: summed(table) for name, table in tables.items()}
    predictions["rows, units together"] = found.together
    drawn = drawn_for(bench, tables, given.candidates, given.seed)
    variants = sum(map(len, found.scores.values()))
    print(f"{variants} variants on {given.rows} rows in {seconds:.1f} s of one core; {len(drawn)} candidates")
    measured = np.array([bench.kl(candidate) for _, candidate in drawn])
    report = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread, CPU",
        "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
        "candidates": len(drawn), "rows": given.rows, "seed": given.seed,
        "variants": variants, "core_seconds_of_the_pass": round(seconds, 1),
        "measured_kl": [float(x) for x in np.percentile(measured, [0, 25, 50, 75, 100])],
        "predictions": compared(bench, drawn, measured, predictions, tables),
    }  # fmt: skip
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
