"""Is what the search trains never worse than what a user would try by hand, at ten budgets, trained alike?

    python -m benchmarks.finetune.budgets [MODEL...] [--steps N] [--count N] [-o FILE.json]

MODEL: reviews, resnet, vit; without any, all three. At each budget of bytes are trained: the solver's first
answers (by storages alone, by removal alone, of both), then the answer that the trials so far teach; and
beside them the uniform models that fit: the widest storage, and pruning by one ratio. The search's pick is
its own candidate of least divergence on validation. It is compared on test rows with each of the others,
by the paired test that the search itself uses. Bytes are those of the packed layout, as predicted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.core.files import write_json
from autoprune.evaluation.finetune import Recipe
from autoprune.space.budget import Budget
from autoprune.space.costs import Costs
from autoprune.space.levels import Candidate, Level, SearchSpace
from autoprune.space.storage import widest_first
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.aim import Aim
from autoprune.strategy.baselines import UNIFORM_PRUNING, uniform_name, uniform_pruning
from autoprune.strategy.paired import told_apart
from autoprune.strategy.records import Records
from autoprune.strategy.repair import fits
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.starts import answers_by_sort
from autoprune.strategy.surrogates.recovery_model import Training
from autoprune.tasks.row_scores import rows_as_text
from benchmarks.finetune.opened import Opened, Scored

RESULTS = Path(__file__).parents[1] / "results" / "budgets.json"

SEARCH, LEARNED = "search", "learned"


@dataclass(frozen=True)
class Tried:
    """A candidate trained at a budget. better: whether it is told to be better than the search's pick."""

    model: str
    limit_bytes: int
    what: str
    size_bytes: int
    kl_before: float
    kl: float
    validation: float
    test: float
    better: bool | None = None


class Ladder:
    """One model at budgets from the smallest to the largest; what was trained teaches the next answers."""

    def __init__(self, name: str, opened: Opened, steps: int) -> None:
        self.name, self.opened = name, opened
        self.recipe = Recipe(steps, opened.prepared.recipe.batch_size, opened.prepared.recipe.learning_rate)
        self.space: SearchSpace = opened.prepared.inputs.space
        self.costs: Costs = opened.costs()
        self.trials: list[Trial] = []
        self.done: dict[Candidate, tuple[float, Scored, Scored]] = {}

    def limits(self, count: int) -> list[int]:
        """Budgets from a little over the smallest candidate to just under uniform 8 bits, equal factors."""
        low = 1.3 * self.costs.size_bytes(self.costs.smallest(self.space))
        high = 0.95 * self.costs.size_bytes(self.space.uniform(Level.of(0.0, 8)))
        return [int(size) for size in np.geomspace(low, high, count)]

    def at(self, limit: int) -> list[Tried]:
        """All that is tried at one budget, the search's pick first."""
        budget = Budget(size_bytes=limit)
        task, units = self.opened.prepared.setting.task, self.opened.prepared.setting.units
        training = Training(self.recipe.steps, {unit.name: unit.removed for unit in units})
        aim = Aim.of(
            Problem.of(self.space, self.costs), budget,
            training=training, answers=task.answer_count(task.validation),
        )  # fmt: skip
        searched = answers_by_sort(aim)
        for candidate in searched.values():
            self._train(candidate)
        learned = aim.answer(Records.of(aim.problem, self.trials), budget)
        if learned is not None:
            searched[LEARNED] = learned
        pick = min(searched.values(), key=lambda candidate: self._train(candidate)[1].kl)
        named = {SEARCH: pick, **searched, **self._uniform(budget)}
        return [self._tried(what, candidate, pick, limit) for what, candidate in named.items()]

    def _uniform(self, budget: Budget) -> dict[str, Candidate]:
        """The uniform model of the widest storage that fits, and uniform pruning."""
        named: dict[str, Candidate] = {}
        for storage in widest_first(storage for unit in self.space.units for storage in unit.storages):
            candidate = self.space.uniform(Level(0.0, storage))
            if not storage.rounds_inputs and fits(candidate, self.costs, budget):
                named[uniform_name(storage)] = candidate
                break
        pruned = uniform_pruning(self.space, self.costs, budget)
        return named | ({UNIFORM_PRUNING: pruned} if pruned is not None else {})

    def _train(self, candidate: Candidate) -> tuple[float, Scored, Scored]:
        """Divergence before, and answers to validation and test after; each candidate once."""
        if candidate not in self.done:
            untrained = self.opened.trained(candidate, Recipe(0, 1, 0.0), seed=0)
            before = self.opened.answers(untrained, "validation").kl
            trained = self.opened.trained(candidate, self.recipe, seed=0)
            after = self.opened.answers(trained, "validation")
            self.done[candidate] = before, after, self.opened.answers(trained, "test")
            self.trials += [_trial(candidate, before, 0), _trial(candidate, after.kl, 1)]
        return self.done[candidate]

    def _tried(self, what: str, candidate: Candidate, pick: Candidate, limit: int) -> Tried:
        before, validation, test = self._train(candidate)
        better = None if what == SEARCH else _is_better(test, self._train(pick)[2])
        size = self.costs.size_bytes(candidate)
        return Tried(
            self.name, limit, what, size, before, validation.kl, validation.score, test.score, better
        )


def _trial(candidate: Candidate, kl: float, rung: int, rows: str = "") -> Trial:
    return Trial(0, candidate, Measurement(0, 1.0, 0.0, kl), rung=rung, row_scores=rows)


def _is_better(other: Scored, pick: Scored) -> bool:
    """Whether another model is told to be more accurate than the pick on the same rows."""
    ours, theirs = (_trial(Candidate(()), 0.0, 1, rows_as_text(scored.rows)) for scored in (other, pick))
    return other.score > pick.score and told_apart(ours, theirs) is not False


def summary(tried: list[Tried]) -> str:
    """One line a budget, and how many the search's pick is not worse at."""
    lines, held = [], 0
    budgets = dict.fromkeys((one.model, one.limit_bytes) for one in tried)
    for model, limit in budgets:
        same = [one for one in tried if (one.model, one.limit_bytes) == (model, limit)]
        held += not any(one.better for one in same)
        scores = "  ".join(
            f"{one.what} {one.kl:.4f}/{one.test:.1f}{'!' if one.better else ''}" for one in same
        )
        lines.append(f"{model:8} {limit / 1e6:7.3f} MB  {scores}")
    return "\n".join([*lines, f"not worse at {held} of {len(budgets)} budgets"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune.budgets", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--count", type=int, default=10, help="budgets a model")
    parser.add_argument("--folder", type=Path, default=None, help="of the benchmark's models")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    tried: list[Tried] = []
    if asked.output.exists():
        tried = [Tried(**row) for row in json.loads(asked.output.read_text())["rows"]]
    for name in asked.models or ["reviews", "resnet", "vit"]:
        tried = [one for one in tried if one.model != name]
        ladder = Ladder(name, Opened.of(name, asked.folder), asked.steps)
        for limit in ladder.limits(asked.count):
            tried += ladder.at(limit)
            print(
                summary([one for one in tried if (one.model, one.limit_bytes) == (name, limit)]), flush=True
            )
            write_json(asked.output, record(tried, asked.steps))
    print(summary(tried))


def record(tried: list[Tried], steps: int) -> Mapping[str, Any]:
    """The content of the results file."""
    versions = {name: metadata.version(name) for name in ("autoprune", "torch", "transformers")}
    return {"versions": versions, "steps": steps, "rows": [asdict(one) for one in tried]}


if __name__ == "__main__":
    main()
