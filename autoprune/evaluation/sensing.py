"""What each variant of a unit harms, on a worker: predicted by gradients, of tokens measured."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from autoprune.evaluation.measure import logits_of
from autoprune.evaluation.workbench import Workbench
from autoprune.models.unit import Unit
from autoprune.sensitivity.fisher_scores import Sensitivity, measure_sensitivity
from autoprune.sensitivity.token_removal import with_measured_removal
from autoprune.space.levels import UNTOUCHED, Candidate, Level
from autoprune.targets.packed import torch_runner
from autoprune.tasks.answers import divergence


def sense(workbench: Workbench, units: Sequence[Unit]) -> Sensitivity:
    """What each variant of some units harms."""
    setting, task = workbench.setting, workbench.task
    sensitivity = measure_sensitivity(
        workbench.teacher, units, workbench.library, task, task.train,
        rows=setting.sensitivity_rows, seed=setting.seed, spread=setting.train_answers.spread,
    )  # fmt: skip
    return with_measured_removal(sensitivity, units, functools.partial(_harm_alone, workbench))


def _harm_alone(workbench: Workbench, unit: Unit, level: Level) -> float:
    """Divergence, nats a row, of the model with one unit at a level, on some rows of validation."""
    setting, task = workbench.setting, workbench.task
    every = len(task.validation)
    rows = np.unique(np.linspace(0, every - 1, min(every, setting.sensitivity_rows)).astype(np.int64))
    answers = setting.validation_answers.pick(rows)
    items = ((other.name, level if other == unit else UNTOUCHED) for other in setting.units)
    model = workbench.stitched(Candidate(tuple(items))).model
    run = torch_runner(model, task.kind)
    return divergence(logits_of(run, task, task.validation.pick(rows), watched=answers.watched), answers)
