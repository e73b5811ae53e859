"""A model of these benchmarks as a search has it before its first trial, in one process and without Ray."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.compress.stitch import Stitched
from autoprune.core.progress import Progress
from autoprune.evaluation.finetune import Recipe, finetune
from autoprune.evaluation.jobs import Sense
from autoprune.evaluation.lesson import Lesson
from autoprune.evaluation.measure import labels_watched, logits_of
from autoprune.evaluation.worker import Worker, make_worker
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import Prepared, prepare
from autoprune.run.config import DEMO_DEFAULTS, Config
from autoprune.sensitivity.fisher_scores import Sensitivity
from autoprune.space.costs import Costs
from autoprune.space.levels import Candidate
from autoprune.targets.packed import torch_runner
from autoprune.tasks.answers import divergence
from autoprune.tasks.data.demo import demo_model
from autoprune.tasks.row_scores import row_scores
from benchmarks.harness import models as zoo

NAMES = ("reviews", "embeddings", "smollm2", "resnet", "vit")
"""MiniLM's sentiment of reviews, MiniLM's sentence embeddings, SmolLM2 on news, and two models of digits."""


@dataclass(frozen=True)
class Scored:
    """What a model answers: divergence from the teacher (nats a place; NaN on test), score, scores by row."""

    kl: float
    score: float
    rows: NDArray[Any] | None


@dataclass(frozen=True)
class Opened:
    """A prepared search, and a worker in this process."""

    prepared: Prepared
    worker: Worker

    @classmethod
    def of(cls, name: str, folder: Path | None) -> Opened:
        """One of `NAMES`, with its files in a folder; torch computes in one thread from now on."""
        config = config_of(name, folder)
        prepared = prepare(config, read_inputs(config), Progress())
        torch.set_num_threads(1)
        return cls(prepared, make_worker({"setting": prepared.setting}))

    def costs(self) -> Costs:
        """Bytes and predicted damage of every unit at every level; no milliseconds."""
        harm = self.worker(Sense(tuple(self.prepared.setting.units)))
        assert isinstance(harm, Sensitivity)
        return self.prepared.inputs.sizes.with_damage(harm.damage())

    def trained(
        self, candidate: Candidate, recipe: Recipe, *, seed: int, reconstructs: bool = True
    ) -> Stitched:
        """A candidate as a trial makes it."""
        bench = self.worker.workbench
        lesson = Lesson(bench.task, bench.task.train, bench.setting.train_answers)
        teacher = bench.teacher if reconstructs else None
        return finetune(
            bench.stitched(candidate), lesson, recipe, seed=seed,
            again=lambda: bench.stitched(candidate), teacher=teacher,
        )  # fmt: skip

    def answers(self, stitched: Stitched, split: Literal["validation", "test"]) -> Scored:
        """How good it is on a split, in float32 by torch."""
        task, teacher = self.worker.workbench.task, self.prepared.setting.validation_answers
        data = task.validation if split == "validation" else task.test
        if data is None:
            raise SystemExit("there are no test rows")
        watched = teacher.watched if split == "validation" else labels_watched(task, data)
        values = logits_of(torch_runner(stitched.model, task.kind), task, data, watched=watched)
        if split == "test":
            return Scored(np.nan, task.score(data, values, None), row_scores(task, data, values))
        rows = row_scores(task, data, values, teacher)
        return Scored(divergence(values, teacher), task.score(data, values, teacher), rows)


def config_of(name: str, folder: Path | None) -> Config:
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
    if name in ("resnet", "vit"):
        model = zoo.resnet(folder) if name == "resnet" else zoo.vit(folder)
        return Config.of(model=str(model), dataset=str(zoo.digit_images(folder)), task="image-classification")
    raise SystemExit(f"no such model: {name!r}; there are {', '.join(NAMES)}")
