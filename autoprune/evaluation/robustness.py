"""A model asked about altered or attacked test rows: its score, and whether it answers as the original does.

Shapes: n rows, k outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.evaluation.attacks import WordSwaps, fast_gradient_sign
from autoprune.evaluation.jobs import ModelRef, Original, PackedModel
from autoprune.evaluation.measure import logits_of
from autoprune.evaluation.packed_model import unpacked
from autoprune.evaluation.workbench import Workbench
from autoprune.models.split_embedding import whole
from autoprune.tasks.alterations import FGSM, WORD_SWAPS, altered_pictures
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.task import Arrays, Data, Encoded, Task
from autoprune.tasks.word_tokens import WordTokens
from autoprune.workers.pool import Job


@dataclass(frozen=True)
class AlteredRows:
    """Test rows with an alteration.

    name: of the alteration; "" is none. numbers: of the rows [n] in the task's test split. tokens: of texts
    with it, in the same order; None of pictures, which the worker alters, of rows as they are, and of those
    that are attacked, where words says which tokens of a vocabulary are words.
    """

    name: str
    numbers: NDArray[np.int64] = field(repr=False)
    seed: int
    tokens: Encoded | None = field(default=None, repr=False)
    words: WordTokens | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Examined:
    """Of each sort of rows the score, 0 to 100, and the percent of answers that are not the original's.

    flips: None where answers are no classes.
    """

    scores: tuple[float, ...]
    flips: tuple[float | None, ...]


@dataclass(frozen=True)
class Examine(Job[Examined]):
    """A model's answers to altered rows."""

    model: ModelRef
    rows: tuple[AlteredRows, ...]


def examine(job: Examine, bench: Workbench) -> Examined:
    """Score a model on each sort of rows, on the target, and compare its answers with the original's."""
    scores: list[float] = []
    flips: list[float | None] = []
    with bench.runners(job.model) as [run]:
        for rows in job.rows:
            is_attack = rows.name in (FGSM, WORD_SWAPS)
            if is_attack:
                with bench.room.busy():
                    data = attacked_data(rows, job.model, bench)
            else:
                data = altered_data(rows, bench.task)
            theirs = None if is_attack else bench.original_answers.get(rows.name)
            if theirs is None:
                theirs = logits_of(bench.original(), bench.task, data, room=bench.room.busy)
                if not is_attack:
                    bench.original_answers[rows.name] = theirs
            is_original = isinstance(job.model, Original)
            ours = theirs if is_original else logits_of(run, bench.task, data, room=bench.room.busy)
            scores.append(bench.task.score(data, ours))
            flips.append(flipped(ours, theirs) if bench.task.kind.predicts_classes else None)
    return Examined(tuple(scores), tuple(flips))


def attacked_data(rows: AlteredRows, model: ModelRef, bench: Workbench) -> Data:
    """Test rows made hard for one model, by its own gradient or answers in torch."""
    data, original = bench.task.test.pick(rows.numbers), whole(bench.teacher)
    match model:
        case Original():
            attacked = original
        case PackedModel(weights):
            attacked = unpacked(weights, bench.setting.architecture).model
        case _:
            attacked = bench.stitched(model).model
    attacked.eval()
    if isinstance(data, Arrays):
        return fast_gradient_sign(attacked, bench.task, data)
    assert rows.words is not None
    looked_up: Any = original.get_input_embeddings()  # type: ignore[operator]
    return WordSwaps.of(attacked, looked_up.weight, bench.task, rows.words, data).swapped(data)


def flipped(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Percent of rows whose likeliest class by two models' logits [n k] differs.

    >>> flipped(np.array([[1.0, 0], [1, 0]], np.float32), np.array([[2.0, 0], [0, 1]], np.float32))
    50.0
    """
    return 100.0 * float((ours.argmax(1) != theirs.argmax(1)).mean())


def altered_data(rows: AlteredRows, task: Task) -> Data:
    """Test rows of a task with an alteration; what came is left as it is."""
    if rows.tokens is not None:
        return rows.tokens
    data = task.test.pick(rows.numbers)
    if not rows.name:
        return data
    assert isinstance(data, Arrays)
    inputs = {
        name: altered_pictures(images, rows.name, seed=rows.seed, rows=rows.numbers)
        for name, images in data.inputs.items()
        if isinstance(images, ByteImages)
    }
    return replace(data, inputs={**data.inputs, **inputs})
