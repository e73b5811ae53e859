"""The same trial fine-tuned on the CPU and on the GPU: how far apart are the two models?

A search may have workers of both kinds, and a trial made again may land on the other. Training on CUDA is in
bfloat16, so some difference is right; beside it stands that between two seeds on the CPU, which says what is
much.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.compress.stitch import Stitched
from autoprune.evaluation.finetune import Recipe, finetune
from autoprune.evaluation.lesson import Lesson
from autoprune.evaluation.measure import logits_of
from autoprune.evaluation.seeds import candidate_seed
from autoprune.evaluation.workbench import Workbench
from autoprune.space.levels import Candidate, Level
from autoprune.tasks.answers import divergence
from benchmarks.gpu.figures import Figures
from benchmarks.gpu.models import open_workbench, uniform
from benchmarks.gpu.setup import Setup

CPU, DEVICE, OTHER_SEED = "on the cpu", "on the device", "on the cpu, another seed"
LEVELS = {"half pruned, 8 bits": Level.of(0.5, 8), "3 bits": Level.of(0.0, 3)}


def measure(setup: Setup, figures: Figures) -> None:
    """KL and accuracy of each candidate: untrained, trained on the CPU, on the GPU, and with another seed.

    All are evaluated by the same runtime, torch on the CPU. Whether the fine-tune was kept: one that harms
    the guard rows is undone. These are evaluated on the CPU, which one step's seconds are mostly for.
    """
    workbench, recipe = open_workbench(setup)
    recipe = replace(recipe, steps=setup.steps)
    other = torch.device("cuda" if setup.cuda else "cpu")
    for name, level in LEVELS.items():
        candidate = uniform(workbench, level)
        seed = candidate_seed(0, candidate)
        found: dict[str, Any] = {"steps": recipe.steps, "device": str(other)}
        logits = {"untrained": _logits(workbench, workbench.stitched(candidate))}
        found["untrained"] = _scores(workbench, logits["untrained"])
        cpu = torch.device("cpu")
        runs = {CPU: (cpu, seed), DEVICE: (other, seed), OTHER_SEED: (cpu, seed + 1)}
        for run, (device, run_seed) in runs.items():
            once = replace(recipe, steps=1)
            _, first = _trained(workbench, candidate, once, device, run_seed)  # CUDA starts in here
            _, brief = _trained(workbench, candidate, once, device, run_seed)
            student, seconds = _trained(workbench, candidate, recipe, device, run_seed)
            logits[run] = _logits(workbench, student)
            found[run] = {
                **_scores(workbench, logits[run]),
                "kept": not np.array_equal(logits[run], logits["untrained"]),
                "seconds": seconds,
                "seconds of one step": [first, brief],
                "ms of each further step": 1e3 * (seconds - brief) / max(1, recipe.steps - 1),
            }
            figures.note(**{name: found})
        found["between the devices"] = _difference(logits[CPU], logits[DEVICE])
        found["between two seeds"] = _difference(logits[CPU], logits[OTHER_SEED])
        figures.note(**{name: found})


def _trained(
    workbench: Workbench, candidate: Candidate, recipe: Recipe, device: torch.device, seed: int
) -> tuple[Stitched, float]:
    """A candidate after a fine-tune, and the seconds that took, guard rows included."""
    setting, task = workbench.setting, workbench.task
    stitched = workbench.stitched(candidate)
    start = time.perf_counter()
    student = finetune(
        stitched,
        Lesson(task, task.train, setting.train_answers),
        recipe,
        seed=seed,
        device=device,
        again=lambda: workbench.stitched(candidate),
        teacher=workbench.teacher_on(device),
    )
    return student, time.perf_counter() - start


def _logits(workbench: Workbench, stitched: Stitched) -> NDArray[np.float32]:
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
        run = workbench.loaded(stitched, Path(name))
        torch.set_num_threads(threads)  # a target takes one
        return logits_of(run, workbench.task, workbench.task.validation)


def _scores(workbench: Workbench, logits: NDArray[np.float32]) -> dict[str, float]:
    task, answers = workbench.task, workbench.setting.validation_answers
    return {"kl": divergence(logits, answers), "accuracy": task.score(task.validation, logits, answers)}


def _difference(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> dict[str, float]:
    """KL of one model's answers to another's, the largest difference of a logit, and rows answered unlike."""
    return {
        "kl": divergence(theirs, ours),
        "largest_logit_difference": float(np.abs(ours - theirs).max()),
        "percent_answered_unlike": 100.0 * float((ours.argmax(-1) != theirs.argmax(-1)).mean()),
    }
