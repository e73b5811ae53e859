"""A search whose workers are simulated: their time is virtual, the driver and its files are real.

The model is a toy of many units; what a candidate comes to follows from it and a little noise of its own.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from torch import nn

from autoprune.core.progress import Progress
from autoprune.evaluation.finetune import Recipe
from autoprune.evaluation.jobs import Evaluate, Evaluated, PackedModel, Setting
from autoprune.evaluation.seeds import candidate_text
from autoprune.models.spec import Architecture
from autoprune.models.unit import Unit, Weight
from autoprune.pipeline.measured_costs import Costed
from autoprune.pipeline.opened import OpenedSearch, open_search
from autoprune.pipeline.prepare import Prepared
from autoprune.run.config import Config
from autoprune.run.folder import RunFolder
from autoprune.space.trial import ORIGINAL, Measurement
from autoprune.strategy.baselines import baselines
from autoprune.tasks.kinds import TEXT_CLASSIFICATION
from autoprune.tasks.row_scores import rows_as_text
from autoprune.tasks.task import Encoded, Task
from autoprune.workers.pool import Job, Outcome, Pool
from tests.support.toy_search import Toy

UNITS = 38
"""Units of the model: those of a BERT of six layers have as many."""

ROWS = 1000
"""Validation rows, each of which is right or wrong."""

SPREAD = 0.2
"""Trials take between 1 - this and 1 + this of their mean time."""

REFERENCE_MS = 20.0


@dataclass
class SimulatedPool(Pool):
    """Workers whose time is virtual: a job takes `seconds`, more or less, of a clock that waits cost nothing.

    The clock runs with the process, but for what the simulation itself takes, and skips ahead where the
    driver would wait. spans: when each job began and ended; last: when the last candidate was handed out.
    """

    toy: Toy
    size: int
    seconds: float
    model_bytes: int
    spans: list[tuple[float, float]] = field(default_factory=list)
    last: float = 0.0
    sent_models: int = 0
    offset: float = field(default_factory=lambda: -time.perf_counter())
    waiting: list[tuple[float, int, Job[Any], float]] = field(default_factory=list)

    def now(self) -> float:
        """Virtual seconds since the pool was made."""
        return time.perf_counter() + self.offset

    @property
    def free(self) -> int:
        return max(0, self.size - len(self.waiting))

    def start(self, context: Mapping[str, object]) -> None: ...

    def submit(self, key: int, job: Job[Any]) -> None:
        begun = self.now()
        seconds = self.seconds * random.Random(key).uniform(1 - SPREAD, 1 + SPREAD)
        heapq.heappush(self.waiting, (begun + seconds, key, job, seconds))
        self.spans.append((begun, begun + seconds))
        if not cast(Evaluate, job).recipe.steps:
            self.last = begun

    def next(self, timeout: float | None = None) -> Outcome[Any] | None:
        if not self.waiting:
            return None
        end, key, job, seconds = heapq.heappop(self.waiting)
        ready = max(end, self.now())
        result = self.evaluated(cast(Evaluate, job))
        self.offset = ready - time.perf_counter()
        return Outcome(key, result, None, f"worker-{key % self.size}", seconds)

    def close(self) -> None: ...

    def busy_share(self) -> float:
        """Share of the workers' time that they had work, from the first candidate to the last.

        After that there is nothing new to try, and workers wait for the few that are trained longer.
        """
        busy = sum(min(end, self.last) - min(begun, self.last) for begun, end in self.spans)
        return busy / max(self.size * (self.last - self.spans[0][0]), 1e-9)

    def evaluated(self, job: Evaluate) -> Evaluated:
        """What a candidate comes to: trained the longer, the less of its divergence is left."""
        draw = random.Random(f"{candidate_text(job.candidate)} {job.recipe.steps}")
        left = {0: 1.0, 40: 0.7}.get(job.recipe.steps, 0.5) * draw.uniform(0.9, 1.1)
        kl = self.toy.kl(job.candidate) * left
        right = np.random.default_rng(job.seed).random(ROWS) < max(0.5, 0.9 - 0.2 * kl)
        ms = self.toy.costs.latency_ms(job.candidate) * draw.uniform(0.97, 1.03)
        size = self.toy.costs.size_bytes(job.candidate)
        m = Measurement(size, ms, 100.0 * float(right.mean()), kl, 0.95 * ms, 1.1 * ms, ms, REFERENCE_MS)
        parts = {"stitch": 0.2, "finetune": 40.0, "save": 1.0, "accuracy": 15.0, "latency": 3.0}
        packed = PackedModel(bytes(self.model_bytes)) if job.wants_model(m) else None
        self.sent_models += packed is not None
        return Evaluated(m, parts, packed, rows_as_text(right))


def prepared(toy: Toy) -> Prepared:
    """Units of the toy's levels, and as little else as a search looks at."""
    starts, labels = np.arange(0, 2 * ROWS + 1, 2), np.arange(ROWS) % 2
    rows = Encoded(np.ones(2 * ROWS, np.int32), np.zeros(2 * ROWS, np.uint8), starts, labels)
    task = Task(rows, rows, rows, ("a", "b"), ("input_ids", "attention_mask"), pad_id=0)
    units = tuple(
        Unit(
            choices.unit, "dense", (Weight(f"{choices.unit}.up", 64, 64, True),),
            (Weight(f"{choices.unit}.down", 64, 64, True),), 64, 1, 32, choices.ratios, choices.storages,
        )
        for choices in toy.space.units
    )  # fmt: skip
    answers = cast(Any, None)
    setting = Setting(
        Architecture(TEXT_CLASSIFICATION, {"layers": 6}), {}, {}, units, task, answers, answers,
        target="packed", key="toy", batch=1, sequence=128, sensitivity_rows=8, seed=0,
    )  # fmt: skip
    inputs = SimpleNamespace(
        space=toy.space, sizes=toy.costs, original_bytes=toy.costs.size_bytes(toy.space.untouched()),
        dataset="rows.csv", data_hash="0" * 64, space_name="toy", texts=None, cleaned=None, teacher=None,
    )  # fmt: skip
    return Prepared(cast(Any, inputs), nn.Module(), setting, Recipe(40, 8, 1e-4), "0" * 64)


def open_simulated(
    folder: Path,
    *,
    workers: int,
    trials: int,
    seconds: float = 60.0,
    model_bytes: int = 100_000,
    storage: str | None = None,
) -> tuple[OpenedSearch, SimulatedPool]:
    """A search of the toy in a new folder, with its baselines; its study, ledger and files are real."""
    toy = Toy.of(UNITS, noise=0.05)
    whole = toy.costs.size_bytes(toy.space.untouched())
    config = Config.of(budget=(f"{whole // 4}B",), target="packed", seed=0, trials=trials, storage=storage)
    run = RunFolder.create(folder, config, "autoprune search")
    pool = SimulatedPool(toy, workers, seconds, model_bytes)
    search = open_search(
        run, prepared(toy), Costed(REFERENCE_MS, toy.costs), pool, Progress(quiet=True), wanted=trials
    )
    for name, candidate in baselines(toy.space, toy.costs, search.budget).items():
        job = search.job(candidate, 0)
        outcome = Outcome(0, pool.evaluated(job), None, "worker-0", seconds)
        trial = search.study.add(search.ledger.trial_of(candidate, 0, outcome, name))
        if name != ORIGINAL:
            search.ledger.keep(trial, outcome.result)
    return search, pool
