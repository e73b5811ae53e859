"""A brief fine-tune under the teacher, with the candidate's rounding in the forward pass.

Shapes: o output features, i input features, m answered places of a batch, k outputs.
Weights behind their codes are trained in units of their scale, so that a step is a share of a code
whatever the width; see `student`. Dropout and weight decay are off unless the recipe asks for them.
Figures are in docs/decisions/017-training-in-units-of-the-scale.md.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autoprune.compress.stitch import Stitched
from autoprune.core.memory import give_memory_back
from autoprune.evaluation.augmentation import Augmenter
from autoprune.evaluation.devices import on_device
from autoprune.evaluation.distillation import Targets, distillation_loss
from autoprune.evaluation.lesson import Lesson, divergence_of, guarded, is_no_worse
from autoprune.evaluation.reconstruction import StepRoom, reconstruct_
from autoprune.evaluation.student import Student
from autoprune.models.outputs import answered, outputs_of
from autoprune.tasks.task import Data

WARMUP = 0.1
"""Share of the steps in which the learning rate rises; after them it falls as a cosine."""

NEGLIGIBLE_KL = 3e-4
"""Divergence (nats a row) below which there is nothing to mend, and a fine-tune is left out."""

REFERENCE_KL = 0.05
"""Divergence (nats a row) before training from which the recipe's learning rate is taken as it is.

Few steps of small batches do harm of their own, which grows with the square of the rate, so below it the
rate falls with the root of what there is to mend."""

TRAINED_KL = 0.01
"""Divergence (nats a row) before a fine-tune from which gradients are worth their time after the
reconstruction; below it they brought nothing (docs/decisions/026-layer-wise-reconstruction.md)."""

RECONSTRUCTED = 1.6
"""Rows to reconstruct layers on, for each that is trained on: with fewer, models at 4 bits gain nothing."""

CODE_RATE, SCALE_RATE, VECTOR_RATE = 100 / 3, 100 / 3, 10.0
"""Learning rates of weights in units of their scale, of scales in their logarithm, and of norms and biases,
as multiples of the recipe's: 0.001, 0.001 and 0.0003 at 3e-5."""


@dataclass(frozen=True)
class Recipe:
    """How a trial is fine-tuned: in so many steps at most.

    learning_rate: of matrices that stay floats; others have multiples of it (`CODE_RATE`). augment: whether
    the rows of each step are changed (see `augmentation`). weight_decay: of weights, decoupled from their
    gradients (Loshchilov and Hutter, arXiv 1711.05101); scales, norms and biases have none. dropout: of the
    model's dropout layers (Srivastava et al., JMLR 15, 2014).
    """

    steps: int
    batch_size: int
    learning_rate: float
    augment: bool = False
    weight_decay: float = 0.0
    dropout: float = 0.0


def finetune(
    stitched: Stitched,
    lesson: Lesson,
    recipe: Recipe,
    *,
    seed: int,
    step_room: StepRoom = contextlib.nullcontext,
    device: torch.device | None = None,
    again: Callable[[], Stitched] | None = None,
    teacher: nn.Module | None = None,
    parts: int = 1,
) -> Stitched:
    """A stitched model reconstructed and trained, rounded as it will be stored.

    Of the model as it came, reconstructed, and trained, the one with the least divergence on guard rows is
    given back; where that is the first, `stitched` or its like. Under another teacher that divergence is from
    the teacher, but between the first two it is from the original.

    Args:
        step_room: entered for each step; lets another process of the machine time in peace.
        device: where to train; the result comes back on the CPU.
        again: makes the stitched model once more. Where it is given, `stitched` itself is trained, and of no
            use afterwards, so that no second copy of it is in memory; else a copy is.
        teacher: on `device`, to reconstruct layers by, and to answer augmented rows; without it layers are
            only trained.
        parts: in how many a batch is trained on, one after another, for less memory.

    Raises:
        FloatingPointError: when the loss is no longer finite, or was not to begin with.
        ValueError: for a recipe that augments without a teacher, or under another than the original.
    """
    if recipe.steps == 0:
        return stitched
    augmenter = _augmenter(recipe, lesson, teacher, seed)
    where = device or torch.device("cpu")
    guard, training = guarded(lesson.task, lesson.data)
    before_by_row = divergence_of(guard, stitched.model, lesson, step_room)
    before = float(before_by_row.mean())
    if not math.isfinite(before):
        raise FloatingPointError(f"divergence from the teacher is {before} before the fine-tune")
    is_other = lesson.taught is not None
    if before < NEGLIGIBLE_KL and not is_other:
        return stitched
    apart = before
    if is_other:
        apart = float(divergence_of(guard, stitched.model, lesson, step_room, lesson.goal).mean())
    start = stitched if again else replace(stitched, model=copy.deepcopy(stitched.model))
    start.model.to(where)
    if teacher is not None:
        rows = round(RECONSTRUCTED * recipe.steps * recipe.batch_size)
        start = reconstruct_(start, teacher, lesson.task, training, rows=rows, seed=seed, step_room=step_room)
    student = Student.of(start)
    first = student.state()
    least, is_better = apart, False
    if teacher is None or apart >= TRAINED_KL:
        learn = partial(_learn, student.model, lesson, parts=parts, augmenter=augmenter)
        _train_(student, lesson, recipe, training, apart, seed=seed, step_room=step_room, learn=learn)
        least = float(divergence_of(guard, student.model, lesson, step_room, lesson.goal).mean())
        is_better = least < apart
    if teacher is not None:
        last = student.state()
        student.return_to(first)
        by_row = divergence_of(guard, student.model, lesson, step_room, lesson.goal)
        if is_better and least <= by_row.mean():
            student.return_to(last)
        else:
            if is_other:
                by_row = divergence_of(guard, student.model, lesson, step_room)
            is_better = is_no_worse(by_row, before_by_row)
    settled = student.settled() if is_better else again() if again else stitched
    give_memory_back()
    return settled


def _train_(
    student: Student,
    lesson: Lesson,
    recipe: Recipe,
    training: Data,
    before: float,
    *,
    seed: int,
    step_room: StepRoom,
    learn: Callable[[NDArray[np.int64], int], None],
) -> None:
    """Train in place.

    before: divergence before the fine-tune, nats a row. learn: adds the gradients of the loss of rows at a
    step.
    """
    rate = recipe.learning_rate * min(1.0, math.sqrt(before / REFERENCE_KL))
    optimizer = _optimizer(student, rate, recipe.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, recipe.steps))
    rng = np.random.default_rng(seed)
    batches = lesson.task.random_rows(training, recipe.batch_size, recipe.steps, rng)
    for step, rows in enumerate(batches):
        with step_room():
            with dropping(student.model, recipe.dropout, seed + step):
                learn(rows, step)
            nn.utils.clip_grad_norm_(student.parameters, 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)


def _optimizer(student: Student, rate: float, decay: float) -> torch.optim.Optimizer:
    """AdamW with a rate for each sort of parameter, of which `rate` is that of matrices that stay floats."""
    sorts = [
        (CODE_RATE * rate, decay, student.codes),
        (SCALE_RATE * rate, 0.0, student.scales),
        (VECTOR_RATE * rate, 0.0, student.vectors),
        (rate, decay, student.matrices),
    ]
    groups = [
        {"params": list(chosen), "lr": own_rate, "weight_decay": own_decay}
        for own_rate, own_decay, chosen in sorts
        if chosen
    ]
    return torch.optim.AdamW(groups, fused=True)


@contextlib.contextmanager
def dropping(model: nn.Module, share: float, seed: int) -> Iterator[None]:
    """The model's dropout layers drop a share of what goes through them; nothing else of it trains.

    What they drop depends on the seed alone, and the global generator is as it was afterwards.
    """
    layers = dropout_layers(model) if share else []
    if not layers:
        yield
        return
    before = [(layer.p, layer.training) for layer in layers]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            for layer in layers:
                layer.p, layer.training = share, True
            yield
        finally:
            for layer, (p, training) in zip(layers, before, strict=True):
                layer.p, layer.training = p, training


def dropout_layers(model: nn.Module) -> list[nn.Dropout]:
    """Those that a recipe's dropout switches on."""
    return [module for module in model.modules() if isinstance(module, nn.Dropout)]


def _augmenter(recipe: Recipe, lesson: Lesson, teacher: nn.Module | None, seed: int) -> Augmenter | None:
    """What changes rows, where the recipe asks for it; its randomness is apart from that of the batches."""
    if not recipe.augment:
        return None
    if teacher is None:
        raise ValueError("a recipe that augments rows needs the teacher, to answer them")
    if lesson.taught is not None:
        raise ValueError("a recipe that augments rows has them answered by the original alone")
    return Augmenter(teacher, lesson.task, np.random.default_rng([seed, 1]))


def _learn(
    student: nn.Module,
    lesson: Lesson,
    rows: NDArray[np.int64],
    step: int,
    *,
    parts: int,
    augmenter: Augmenter | None = None,
) -> None:
    """Add the gradients of a batch's loss to a student's; a vocabulary's logits of a few rows at a time.

    parts: in how many the batch is taken at least; gradients add up to those of the whole.
    """
    task, data = lesson.task, lesson.data
    where = next(student.parameters()).device
    size = min(task.evaluation_batch if task.kind.predicts_next_token else len(rows), -(-len(rows) // parts))
    count = len(task.labels(data, rows))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        batch, wanted = task.batch(data, part), Targets.of(lesson.goal, part, where)
        if augmenter is not None:
            batch = augmenter.changed(batch)
        inputs = {name: on_device(x, where) for name, x in batch.items()}
        with _mixed_precision(where):
            output = outputs_of(student, inputs, task.kind)
        places = task.answered(data, part)
        if augmenter is not None:
            wanted = augmenter.targets(inputs, places, wanted)
        answers = answered(output, places).float()
        labels = torch.from_numpy(task.labels(data, part)).to(where)
        loss = distillation_loss(answers, wanted, labels, task)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss became {loss.item()} at fine-tune step {step}")
        (loss * (len(labels) / max(count, 1))).backward()  # type: ignore[no-untyped-call]


def rate_share(step: int, steps: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then a cosine to a tenth.

    >>> rate_share(0, 100), rate_share(10, 100)
    (0.1, 1.0)
    """
    warm = max(1, round(WARMUP * steps))
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))


def _mixed_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bfloat16 autocast on CUDA; on CPUs it is slower than float32, so nothing there."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()
