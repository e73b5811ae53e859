"""The workbench of the parts that use no command line: the demo's model, its variants and its data."""

from __future__ import annotations

import os

import torch

from autoprune.core.progress import Progress
from autoprune.evaluation.finetune import Recipe
from autoprune.evaluation.workbench import Workbench
from autoprune.evaluation.worker import make_worker
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import prepare
from autoprune.run.config import Config
from autoprune.space.levels import Candidate, Level
from benchmarks.gpu.demo import GROUP, MODEL, ROWS
from benchmarks.gpu.setup import Setup


def open_workbench(setup: Setup) -> tuple[Workbench, Recipe]:
    """A workbench on target packed, which is torch on the CPU, and the recipe of a trial.

    The statistics and the variants are those of a search on any target, so its caches serve here.
    """
    config = Config.of(
        model=f"{setup.demo}/{MODEL}", dataset=f"{setup.demo}/{ROWS}", group_by=GROUP,
        target="packed", **setup.settings,
    )  # fmt: skip
    prepared = prepare(config, read_inputs(config), Progress(quiet=True))
    workbench = make_worker({"setting": prepared.setting}).workbench
    torch.set_num_threads(min(16, len(os.sched_getaffinity(0))))
    return workbench, prepared.recipe


def uniform(workbench: Workbench, level: Level) -> Candidate:
    """Every unit at the level nearest to one that it has, and the variants of it in the library."""
    units = workbench.setting.units
    candidate = Candidate(tuple((unit.name, unit.choices.nearest(level)) for unit in units))
    for unit in units:
        workbench.library.build(unit, candidate[unit.name].ratio)
    return candidate
