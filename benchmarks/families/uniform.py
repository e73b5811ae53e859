"""A uniform model beside a run's trials: how large it is, and what it scores, measured as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from autoprune.compress.integers import round_nearest
from autoprune.core.progress import Progress
from autoprune.evaluation.jobs import Evaluate, Evaluated, Score
from autoprune.evaluation.measure import labels_watched, logits_of
from autoprune.evaluation.worker import make_worker
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import prepare
from autoprune.run.config import Config
from autoprune.space.levels import Level
from autoprune.targets.packed import torch_runner


@dataclass(frozen=True)
class Uniform:
    """Bytes by `stat`, scores on validation and test (0 to 100, larger is better), and KL."""

    size_bytes: int
    accuracy: float
    test_accuracy: float
    kl: float


def measured(config: Config, bits: int, *, steps: int = 0) -> Uniform:
    """That model, stitched from the run's own library, and trained for so many of the run's steps."""
    prepared = prepare(config, read_inputs(config), Progress(quiet=True))
    work = make_worker({"setting": prepared.setting})
    candidate = prepared.inputs.space.uniform(Level.of(0.0, bits))
    recipe = replace(prepared.recipe, steps=steps)
    found = work(Evaluate(candidate, recipe, config.search.seed, 1.0))
    assert isinstance(found, Evaluated)
    test = work(Score(found.packed))
    assert isinstance(test, float)
    one = found.measurement
    return Uniform(one.size_bytes, one.accuracy, test, one.kl)


def nearest_score(config: Config, bits: int) -> float:
    """Score on test of the model with each weight rounded by itself to `bits`, by torch."""
    inputs = read_inputs(config)
    model, task = inputs.loaded.model, inputs.task
    with torch.no_grad():
        for unit in inputs.units:
            for path in (weight.path for weight in unit.weights):
                weight = model.get_parameter(f"{path}.weight")
                rounded = round_nearest(weight.flatten(1), bits=bits, group_size=unit.group_size)
                weight.copy_(rounded.dequantize().reshape_as(weight))
    watched = labels_watched(task, task.test)
    return task.score(task.test, logits_of(torch_runner(model, task.kind), task, task.test, watched=watched))
