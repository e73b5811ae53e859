"""A brief fine-tune under the teacher, with the candidate's rounding in the forward pass.

Shapes: o output features, i input features, g groups in a row, s weights in a group, k classes.
Rounding is straight-through (Bengio et al., arXiv 1308.3432): forward uses the rounded weight,
backward treats rounding as the identity. Scales and zero points stay as the library chose them, so
what is trained is the float weight behind each code, biases, norms and the head; embeddings are
frozen. Dropout is off: in so few steps its noise costs more than it teaches (measured: 120 steps
won back 0.7 of 6.4 points with it and 2.9 without).
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize

from autoprune.compress.stitch import Stitched
from autoprune.core.memory import give_memory_back
from autoprune.evaluation.distillation import Targets, distance, distillation_loss
from autoprune.models.outputs import answered, outputs_of
from autoprune.tasks.answers import Answers
from autoprune.tasks.task import Data, Task

WARMUP = 0.1
"""Share of the steps in which the learning rate rises; after them it falls as a cosine."""

GUARD_ROWS = 256
"""Training rows that are not trained on: a fine-tune that does them harm is undone. An eighth of them
where each has an answer at many places."""

NEGLIGIBLE_KL = 3e-4
"""Divergence (nats a row) below which there is nothing to mend, and a fine-tune is left out."""

REFERENCE_KL = 0.05
"""Divergence (nats a row) before training at which the recipe's learning rate is taken as it is.

Few steps of small batches do harm of their own, which grows with the square of the rate: 24 steps at
3e-5 put 0.003 nats between the teacher and an 8-bit copy of it that was within 0.00001. So the rate
falls with the root of what there is to mend: at 0.015 nats 3e-5 made things worse, 1e-5 better."""


@dataclass(frozen=True)
class Recipe:
    """How a trial is fine-tuned."""

    steps: int
    batch_size: int
    learning_rate: float


def finetune(
    stitched: Stitched,
    task: Task,
    data: Data,
    teacher: Answers,
    recipe: Recipe,
    *,
    seed: int,
    step_room: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    device: torch.device | None = None,
    again: Callable[[], Stitched] | None = None,
) -> Stitched:
    """A stitched model trained, rounded as it will be stored; as it was where that is no better.

    Args:
        data: training rows; teacher is what the teacher answers to them.
        step_room: entered for each step; lets another process of the machine time in peace.
        device: where to train; the result comes back on the CPU.
        again: makes the stitched model once more. Where it is given, `stitched` itself is trained, and of no
            use afterwards, so that no second copy of it is in memory; else a copy is.

    Raises:
        FloatingPointError: when the loss is no longer finite, or was not to begin with.
    """
    if recipe.steps == 0:
        return stitched
    where = device or torch.device("cpu")
    guard, training = _parted(data, task)
    before = _divergence_on(guard, stitched, task, data, teacher, step_room)
    if not math.isfinite(before):
        raise FloatingPointError(f"divergence from the teacher is {before} before the fine-tune")
    if before < NEGLIGIBLE_KL:
        return stitched
    student = _trainable_(stitched.model if again is not None else copy.deepcopy(stitched.model), stitched)
    student = student.to(where)
    parameters = [p for p in student.parameters() if p.requires_grad]
    rate = recipe.learning_rate * min(1.0, math.sqrt(max(0.0, before) / REFERENCE_KL))
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(step, recipe.steps))
    rng = np.random.default_rng(seed)
    for step, rows in enumerate(task.random_rows(training, recipe.batch_size, recipe.steps, rng)):
        with step_room():
            _learn(student, task, data, teacher, rows, step)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
    del optimizer, scheduler, parameters  # whose moments are twice the model
    settled = _settled(student.cpu(), stitched)
    give_memory_back()
    after = _divergence_on(guard, settled, task, data, teacher, step_room)
    if after < before:
        return settled
    return stitched if again is None else again()


def _learn(
    student: nn.Module, task: Task, data: Data, teacher: Answers, rows: NDArray[np.int64], step: int
) -> None:
    """Add the gradients of a batch's loss to a student's; a vocabulary's logits of a few rows at a time."""
    where = next(student.parameters()).device
    size = task.evaluation_batch if task.kind.predicts_next_token else len(rows)
    places = len(task.labels(data, rows))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        inputs = {name: torch.from_numpy(x).to(where) for name, x in task.batch(data, part).items()}
        with _mixed_precision(where):
            output = outputs_of(student, inputs, task.kind)
        answers = answered(output, task.answered(data, part)).float()
        labels = torch.from_numpy(task.labels(data, part)).to(where)
        loss = distillation_loss(answers, Targets.of(teacher, part, where), labels, task)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss became {loss.item()} at fine-tune step {step}")
        (loss * (len(labels) / max(places, 1))).backward()  # type: ignore[no-untyped-call]


def _parted(data: Data, task: Task) -> tuple[NDArray[np.int64], Data]:
    """Numbers of the guard rows, the last ones, and the rows to train on; few rows serve as both."""
    guards = GUARD_ROWS // 8 if task.kind.answers_each_token else GUARD_ROWS
    kept = len(data) - guards
    if kept < guards:
        return np.arange(len(data)), data
    return np.arange(kept, len(data)), data.first(kept)


def _divergence_on(
    rows: NDArray[np.int64],
    stitched: Stitched,
    task: Task,
    data: Data,
    teacher: Answers,
    step_room: Callable[[], contextlib.AbstractContextManager[object]],
) -> float:
    """Mean divergence of the given rows from the teacher, nats a place."""
    total, places = 0.0, 0
    ordered = rows[np.argsort(data.lengths[rows], kind="stable")]
    for chosen in np.array_split(ordered, -(-len(rows) // task.evaluation_batch)):
        with step_room(), torch.inference_mode():
            inputs = {name: torch.from_numpy(x) for name, x in task.batch(data, chosen).items()}
            output = outputs_of(stitched.model, inputs, task.kind)
            answers = answered(output, task.answered(data, chosen))
            total += float(distance(answers, Targets.of(teacher, chosen))) * len(answers)
            places += len(answers)
    return total / max(places, 1)


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


def _trainable_(student: nn.Module, stitched: Stitched) -> nn.Module:
    """Make the stitched model, or its copy, train behind what is stored, in place."""
    student.eval()
    for module in student.modules():
        if isinstance(module, nn.Embedding):
            module.weight.requires_grad_(False)
    for path, stored in stitched.stored.items():
        module = student.get_submodule(path)
        if isinstance(module, nn.Embedding):
            continue
        start = stored.start(stitched.floats.get(path))
        module.weight = nn.Parameter(start.reshape_as(module.weight))  # type: ignore[arg-type]
        parametrize.register_parametrization(module, "weight", stored.rounding(), unsafe=True)
    return student


def _settled(student: nn.Module, stitched: Stitched) -> Stitched:
    """The trained student as a plain module with the stored weights that it computes with."""
    stored = dict(stitched.stored)
    for path, module in list(student.named_modules()):
        if not parametrize.is_parametrized(module, "weight"):
            continue
        holder = module.parametrizations["weight"]
        with torch.no_grad():
            stored[path] = holder[0].stored(holder.original)
            value = stored[path].dequantize().reshape(holder.original.shape)
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        module.weight = nn.Parameter(value)
    student.requires_grad_(True)
    return replace(stitched, model=student.eval(), stored=stored, floats={})


def _mixed_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bfloat16 autocast on CUDA; on CPUs it is slower than float32, so nothing there."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()
