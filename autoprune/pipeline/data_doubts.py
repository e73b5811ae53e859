"""What a model says of the rows of its data: which are far from all others, which labels are doubted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.core.cache import DiskCache
from autoprune.core.errors import AutopruneError
from autoprune.core.processors import usable_processors
from autoprune.core.progress import Progress
from autoprune.evaluation.embedding import embedded_rows
from autoprune.models.loading import Loaded
from autoprune.run.identity import weights_hash
from autoprune.tasks.data.cleaning import Cleaned, check_enough, cleaned
from autoprune.tasks.data.repeats import find_repeats
from autoprune.tasks.data.splits import Splits
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.label_doubts import doubted_of, standardised
from autoprune.tasks.task import Task

REPEATS, LABELS = CLEANINGS = ("repeats", "labels")
"""What --clean-data may name. A doubted row may be a hard one and no wrong one: to leave it out may cost more
than it mends (docs/decisions/035-rows-with-doubted-labels.md)."""

_EMBEDDINGS = DiskCache("embeddings", 1, ".npy")


def has_class_a_row(kind: TaskKind) -> bool:
    """Whether each row has one class, so that its label may be doubted."""
    return kind.predicts_classes and not kind.answers_each_token


def embedding(loaded: Loaded, task: Task, split: str, progress: Progress) -> NDArray[np.float32]:
    """A model's vectors [n d] of the rows of a split, cached."""

    def made() -> NDArray[np.float32]:
        torch.set_num_threads(usable_processors())
        rows = getattr(task, split)
        with progress.bar(f"Embedding the {split} rows", len(rows)) as bar:
            done = 0

            def on_rows(count: int) -> None:
                nonlocal done
                done += count
                bar(done, "")

            return embedded_rows(loaded.model.eval(), task, rows, on_rows=on_rows)

    parts = [
        torch.__version__, weights_hash(loaded.model.state_dict()), loaded.architecture.identity(),
        task.digest(), split,
    ]  # fmt: skip
    return _EMBEDDINGS.get(parts, make=made, save=_save, load=np.load)


def _save(vectors: NDArray[np.float32], path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, vectors)


def clean(rows: Splits, loaded: Loaded, task: Task, *, what: str, seed: int, progress: Progress) -> Cleaned:
    """The training rows that are better left out.

    Args:
        what: one of `CLEANINGS`. Labels are judged by the model's embedding.

    Raises:
        AutopruneError: for another, for labels where a row has no class, and where a class would have no
            training row any more.
    """
    if what not in CLEANINGS:
        raise AutopruneError(f"--clean-data {what!r} does not exist; there are {' and '.join(CLEANINGS)}")
    doubted: list[int] = []
    if what == LABELS:
        if not has_class_a_row(task.kind):
            raise AutopruneError(
                f"--clean-data {LABELS}: rows of task {task.kind} have no class each, so that no label can "
                f"be doubted; give {REPEATS}"
            )
        vectors = standardised(embedding(loaded, task, "train", progress))
        train, classes = rows.train, len(rows.label_names)
        doubted = [doubt.row for doubt in doubted_of(vectors, train.labels, train.keys(), classes, seed=seed)]
    left_out = cleaned(find_repeats(rows), rows.train, doubted)
    check_enough(rows.train, left_out.kept, rows.label_names)
    return left_out


def without(rows: Splits, task: Task, what: Cleaned, encode: Callable[[Splits], Task]) -> tuple[Splits, Task]:
    """Rows and task without the training rows that are left out.

    encode: makes a task of rows; asked where the training rows of a task are not those that were read.
    """
    kept = replace(rows, train=rows.train.pick(what.kept))
    if task.kind.predicts_next_token:
        return kept, encode(kept)
    return kept, replace(task, train=task.train.pick(np.array(what.kept)))
