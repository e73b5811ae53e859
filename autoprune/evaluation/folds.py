"""A candidate made again on the rows of all folds but one, and scored on that one.

Shapes: n rows, k outputs.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoprune.evaluation.devices import best_device
from autoprune.evaluation.finetune import Recipe, finetune
from autoprune.evaluation.lesson import Lesson
from autoprune.evaluation.measure import logits_of
from autoprune.evaluation.workbench import Workbench
from autoprune.space.levels import Candidate, is_untouched
from autoprune.tasks.folds import joined_answers, pooled
from autoprune.workers.pool import Job


@dataclass(frozen=True)
class FoldScore(Job[float]):
    """A candidate fine-tuned by a recipe on all rows but those of one fold: its score there, 0 to 100.

    held [n]: numbers of the fold's rows among training and validation rows, one after the other.
    """

    candidate: Candidate
    recipe: Recipe
    seed: int
    held: NDArray[np.int64] = field(repr=False)


def score_fold(job: FoldScore, bench: Workbench, parts: int) -> float:
    """Fine-tune on the other folds, save for the target, and score as saved.

    Units lose the same rows and are rounded by the same statistics as in the search.

    Args:
        parts: in how many a batch is trained on.
    """
    setting, task = bench.setting, bench.task
    rows = pooled(task)
    answers = joined_answers(setting.train_answers, setting.validation_answers)
    others = np.setdiff1d(np.arange(len(rows)), job.held)
    np.random.default_rng(job.seed).shuffle(others)  # the last are guard rows
    taught = None
    if setting.taught_answers is not None and setting.taught_validation is not None:
        taught = joined_answers(setting.taught_answers, setting.taught_validation).pick(others)
    with bench.room.busy():
        stitched = bench.stitched(job.candidate)
    if not is_untouched(job.candidate):
        stitched = finetune(
            stitched,
            Lesson(task, rows.pick(others), answers.pick(others), taught),
            job.recipe,
            seed=job.seed,
            step_room=bench.room.busy,
            device=best_device(),
            again=lambda: bench.stitched(job.candidate),
            teacher=bench.teacher_on(best_device()),
            parts=parts,
        )
    held, theirs = rows.pick(job.held), answers.pick(job.held)
    with tempfile.TemporaryDirectory(prefix="autoprune-") as name:
        run = bench.loaded(stitched, Path(name))
        logits = logits_of(run, task, held, watched=theirs.watched, room=bench.room.busy)
    return task.score(held, logits, theirs)
