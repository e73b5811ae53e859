"""After the search: the points to ship and the original over folds of training and validation rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.evaluation.folds import FoldScore
from autoprune.pipeline.cached_answers import drawn_numbers
from autoprune.pipeline.opened import OpenedSearch
from autoprune.pipeline.prepare import Prepared
from autoprune.run.config import Config
from autoprune.run.folds import Folds, record_folds, recorded_folds
from autoprune.tasks.folds import deal_folds, pooled
from autoprune.workers.pool import run_all


def cross_validate(search: OpenedSearch) -> None:
    """Score what lacks a fold, if the run asks for folds; each (point, fold) is recorded as it ends."""
    count = search.config.search.folds
    if not count:
        return
    wanted = [trial for trial in search.ledger.standing().original_and_points if trial.measurement]
    folds = folds_of(search.prepared, search.config)
    record = recorded_folds(search.run.path) or Folds(
        count=count, rows=len(folds), seed=search.config.search.seed
    )
    todo = [
        (trial, fold)
        for trial in wanted
        for fold in range(record.count)
        if str(fold) not in record.scores.get(str(trial.number), {})
    ]
    if not todo:
        return
    jobs = []
    for trial, fold in todo:
        job = search.job(trial.candidate, trial.rung)
        jobs.append(FoldScore(trial.candidate, job.recipe, job.seed, np.flatnonzero(folds == fold)))

    def done(k: int, score: float) -> None:
        nonlocal record
        trial, fold = todo[k]
        record = record.with_score(trial.number, fold, score)
        record_folds(search.run.path, record)

    with search.progress.bar(f"Points on {record.count} folds", len(jobs)) as bar:
        run_all(search.pool, jobs, done, bar)


def folds_of(prepared: Prepared, config: Config) -> NDArray[np.int64]:
    """The fold of each of the training rows that fine-tunes draw from, then of each validation row."""
    task, inputs, seed = prepared.setting.task, prepared.inputs, config.search.seed
    rows = pooled(task)
    groups: Sequence[object] = list(range(len(rows)))
    if inputs.groups is not None:
        train, validation = inputs.groups
        groups = [train[k] for k in drawn_numbers(len(train), len(task.train), seed)] + list(validation)
    has_class = task.kind.predicts_classes and not task.kind.answers_each_token
    return deal_folds(groups, rows.labels if has_class else None, int(config.search.folds or 0), seed=seed)
