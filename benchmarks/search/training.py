"""Does it pay to rank candidates by what training leaves? Searches whose fine-tunes are simulated.

    python -m benchmarks.search.training [--trials 40] [--seeds 3] [--budget 0.35] [--variants NAME...]

Candidates of the digits are measured untrained as ever (`arena.py`). A fine-tune leaves a share of the
divergence that depends on what did the harm: each sort of removal and each storage has a share of its own,
drawn once a seed, and each candidate is off by some noise. Nobody is told these shares. One worker searches
by the schedule of `autoprune search`, finalists left out, so that all variants have the same number of
candidates and nearly the same number of fine-tunes. All that was measured counts, trained or not.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial
from autoprune.strategy.aim import Aim
from autoprune.strategy.hypervolume import resolved_kl
from autoprune.strategy.proposer import HypervolumeProposer
from autoprune.strategy.records import Records
from autoprune.strategy.schedule import Plan, Schedule
from autoprune.strategy.solver.mckp import Problem
from autoprune.strategy.starts import solver_answers
from autoprune.strategy.study import Study
from autoprune.strategy.surrogates.recovery_model import (
    LEFT_OF_REMOVAL,
    LEFT_OF_ROUNDING,
    MEASURED_STEPS,
    WHOLE_LAYERS,
    Training,
    mendable,
)
from benchmarks.search.arena import Arena, name_of
from benchmarks.search.race import known_arena
from benchmarks.search.scores import Ruler

SPREAD = 0.3
"""Standard deviation, in the logarithm, of the true shares around those that the search assumes at first."""

NOISE = 0.15
"""The same of a candidate around what its sorts of damage say."""

UNDONE = 0.1
"""Share of the fine-tunes that change nothing."""

REMOVED = {"attention": "heads", "feed_forward": "neurons", "rare": "tokens"}
"""What the digits' units lose, by the last part of their name."""

VARIANTS = {
    "untrained ranks": (False, False, False),
    "+ the floor": (False, True, False),
    "+ starts": (False, True, True),
    "what training leaves": (True, True, True),
    "without the floor": (True, False, True),
    "without the starts": (True, True, False),
}
"""Whether a search knows of training, counts little what accuracy cannot resolve, begins with the solver."""


@dataclass(frozen=True)
class Truth:
    """What the simulated fine-tune leaves: the logarithm of the share, by what was removed or the bits."""

    aim: Aim
    removed: dict[str, str]
    left: dict[str | int, float]
    seed: int

    @classmethod
    def of(cls, aim: Aim, removed: dict[str, str], seed: int) -> Truth:
        """Shares drawn around those that are assumed; a training never does harm."""
        rng = random.Random(f"left {seed}")
        table: dict[str | int, float] = {**LEFT_OF_REMOVAL, **LEFT_OF_ROUNDING}
        left = {
            name: min(0.0, float(np.log(share)) + rng.gauss(0.0, SPREAD)) for name, share in table.items()
        }
        return cls(aim, removed, left, seed)

    def trained(self, candidate: Candidate, kl: float) -> float:
        """Divergence after the fine-tune of a candidate of so much before."""
        rng = random.Random(f"{self.seed} {name_of(candidate)}")
        if rng.random() < UNDONE:
            return kl
        features, chosen = self.aim.features, self.aim.problem.chosen(candidate)
        logs, total = 0.0, 1e-12
        for u, (unit, level) in enumerate(candidate.items):
            removal, rounding = features.removal[u, chosen[u]], features.rounding[u, chosen[u]]
            what = WHOLE_LAYERS if level.ratio == 1.0 else self.removed.get(unit, "")
            logs += removal * self.left.get(what, 0.0) + rounding * self.left.get(level.storage.bits, 0.0)
            total += removal + rounding
        share = logs / total * float(mendable(np.array([kl]))[0]) + rng.gauss(0.0, NOISE)
        return min(kl, kl * float(np.exp(share)))


def opened(arena: Arena, variant: str, seed: int, budget: Budget) -> tuple[Aim, Truth]:
    """The aim of a variant, and what is true and not told to it."""
    knows, floor, _ = VARIANTS[variant]
    removed = {unit.unit: REMOVED.get(unit.unit.rpartition(".")[2], "") for unit in arena.space.units}
    training = Training(MEASURED_STEPS if knows else 0, removed)
    answers = len(arena.evaluator.labels) if floor else None
    aim = Aim.of(Problem.of(arena.space, arena.costs), budget, training=training, answers=answers)
    return aim, Truth.of(aim, removed, seed)


def searched(arena: Arena, variant: str, seed: int, trials: int, budget: Budget) -> list[Trial]:
    """All trials of a search by one of the variants, in order."""
    knows, floor, begins = VARIANTS[variant]
    aim, truth = opened(arena, variant, seed, budget)
    first = solver_answers(aim) if begins else []
    plan = Plan(
        budget=budget, wanted=trials, steps=MEASURED_STEPS,
        answers=len(arena.evaluator.labels) if floor else 10**9,
        byte_range=aim.scale.byte_range, first=frozenset(first),
    )  # fmt: skip
    plan = replace(plan, left=aim.shares_left) if knows else plan
    with TemporaryDirectory(prefix="autoprune-bench-") as folder:
        study = Study(Path(folder) / "study.db", arena.space, proposer=HypervolumeProposer(aim, seed))
        schedule = Schedule(study, plan, first)
        try:
            while (asked := schedule.next()) is not None and asked.rung < 2:
                m, _ = arena.evaluate(asked.candidate)
                if asked.rung:
                    m = replace(m, kl=truth.trained(asked.candidate, m.kl))
                study.tell(asked.token, Trial(-1, asked.candidate, m, rung=asked.rung))
            return study.trials()
        finally:
            study.close()


@dataclass(frozen=True)
class Score:
    """What a search found within its budget, trained or not.

    plane, trade: shares of the boxes of `scores.py`, up to the budget's bytes and down to the divergence that
    validation resolves. least_kl: least divergence. answer_kl: what its answers to five budgets diverge by
    once trained, the geometric mean. trained: fine-tunes.
    """

    plane: float
    trade: float
    least_kl: float
    answer_kl: float
    trained: int


def scored(arena: Arena, variant: str, seed: int, trials: Sequence[Trial], budget: Budget) -> Score:
    """The score of a search's trials."""
    ruler = Ruler.of(arena)
    limit = budget.size_bytes or ruler.high_bytes
    ruler = replace(
        ruler, high_bytes=limit, floor_kl=max(ruler.floor_kl, resolved_kl(len(arena.evaluator.labels)))
    )
    found = [
        trial.measurement
        for trial in trials
        if trial.measurement is not None and budget.allows(trial.measurement.size_bytes)
    ]
    aim, truth = opened(arena, variant, seed, budget)
    records = Records.of(aim.problem, trials)
    answers = []
    for size in ruler.low_bytes * (limit / ruler.low_bytes) ** np.linspace(0.2, 1, 5):
        answer = aim.answer(records, Budget(int(size)))
        if answer is not None:
            answers.append(truth.trained(answer, arena.evaluate(answer)[0].kl))
    return Score(
        ruler.score("plane", found),
        ruler.score("trade", found),
        min((m.kl for m in found), default=np.inf),
        float(np.exp(np.mean(np.log(answers)))),
        sum(trial.rung == 1 for trial in trials),
    )


def main() -> None:
    """Run the variants and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--budget", type=float, default=0.35, help="share of the range of bytes; 1 is no limit"
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    given = parser.parse_args()
    arena = known_arena("digits", None)
    low, high = arena.range_bytes
    budget = Budget() if given.budget >= 1 else Budget(round(low + given.budget * (high - low)))
    print(f"digits, {given.trials} candidates, {given.seeds} seeds, {budget.size_bytes or high:,} bytes")
    print(f"{'':24}{'bytes, KL':>10}{'and ms':>10}{'least KL':>10}{'answers':>10}{'trained':>9}")
    for variant in given.variants:
        scores = [
            scored(arena, variant, seed, searched(arena, variant, seed, given.trials, budget), budget)
            for seed in range(given.seeds)
        ]
        plane, trade, least, answer, trained = (
            mean(getattr(score, name) for score in scores)
            for name in ("plane", "trade", "least_kl", "answer_kl", "trained")
        )
        each = " ".join(f"{score.trade:.3f}" for score in scores)
        print(
            f"{variant:24}{plane:10.4f}{trade:10.4f}{least:10.5f}{answer:10.5f}{trained:9.1f}   {each}",
            flush=True,
        )


if __name__ == "__main__":
    main()
