"""From inputs to all that workers need: a teacher fit for the task, its statistics and logits."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import nn

from autoprune import teacher
from autoprune.calibrate import Statistics, calibrate
from autoprune.files import cache_folder, content_key, written_whole
from autoprune.finetune import Recipe
from autoprune.inputs import Inputs
from autoprune.jobs import Setting
from autoprune.measure import logits_of
from autoprune.progress import Progress
from autoprune.run import Config
from autoprune.targets.packed import torch_runner
from autoprune.task import Encoded, Task

log = logging.getLogger(__name__)

SENSITIVITY_ROWS = 256
"""Training rows whose gradients tell what a variant harms: its standard error is 9 % with 256."""

TEACHER_VERSION, VERSION = 1, 2
"""Raised when a cached teacher, or its statistics and logits, would come out differently."""


@dataclass(frozen=True)
class Prepared:
    """Inputs with a teacher that is fit for the task, and the setting for workers."""

    inputs: Inputs
    model: nn.Module
    setting: Setting
    recipe: Recipe
    model_hash: str


def prepare(config: Config, inputs: Inputs, progress: Progress) -> Prepared:
    """Fit the teacher if its head is missing, calibrate, and gather what workers need."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model, task = _teacher(config, inputs, progress)
    model_hash = _state_hash(model)
    key = content_key(VERSION, model_hash, inputs.data_hash, config.max_length,
                      config.calibration_rows, config.seed)  # fmt: skip
    paths = [weight.path for unit in inputs.units for weight in unit.weights]
    steps = inputs.file.finetune.steps if config.finetune_steps is None else config.finetune_steps
    recipe = Recipe(steps, inputs.file.finetune.batch_size, inputs.file.finetune.learning_rate)
    rows = min(len(task.train), max(2048, recipe.steps * recipe.batch_size))
    task = replace(task, train=_head(task.train, rows, config.seed))
    statistics = _statistics(config, model, task, paths, key, progress)
    logits = _logits(model, task, f"{key}-{rows}", progress)
    model_config: Any = model.config
    setting = Setting(
        config=json.loads(model_config.to_json_string(use_diff=False)),
        state={name: tensor.numpy() for name, tensor in model.state_dict().items()},
        statistics={where: one.arrays() for where, one in statistics.items()},
        units=inputs.units,
        task=task,
        train_logits=logits["train"],
        validation_logits=logits["validation"],
        target=config.target,
        key=key,
        batch=config.batch,
        sequence=config.sequence,
        sensitivity_rows=SENSITIVITY_ROWS,
        seed=config.seed,
    )
    return Prepared(inputs, model, setting, recipe, model_hash)


def _teacher(config: Config, inputs: Inputs, progress: Progress) -> tuple[nn.Module, Task]:
    """The model with a head for the task, and the task with labels as that head numbers them."""
    loaded, task = inputs.loaded, inputs.task
    if loaded.has_head:
        order = teacher.label_order(loaded.model, task.label_names)
        if order is None:
            log.info("the model's label names are not the data's; labels are taken by number")
            return loaded.model, task
        return loaded.model, replace(
            task,
            train=teacher.with_label_order(task.train, order),
            validation=teacher.with_label_order(task.validation, order),
            test=teacher.with_label_order(task.test, order),
            label_names=tuple(name for _, name in sorted(zip(order, task.label_names, strict=True))),
        )
    recipe = teacher.FitRecipe(epochs=config.teacher_epochs, learning_rate=config.teacher_rate)
    model: Any = loaded.model
    body = _state_hash(model.base_model)
    key = content_key(TEACHER_VERSION, body, inputs.data_hash, config.max_length, asdict(recipe), config.seed)
    path = cache_folder() / "teachers" / key
    if not path.is_dir():
        with progress.bar("Fitting the teacher: the model has no trained head for this task", 1) as bar:
            teacher.fit(
                model,
                task,
                recipe,
                seed=config.seed,
                on_step=lambda step, steps, loss: bar(step, f"loss {loss:.3f}", steps),
            )
        teacher.name_labels(model, task.label_names)
        with written_whole(path) as temporary:
            model.save_pretrained(temporary)
            loaded.tokenizer.save_pretrained(temporary)
    found = teacher.load_pretrained(str(path), labels=len(task.label_names))
    return found.model, task


def _statistics(
    config: Config, model: nn.Module, task: Task, paths: Sequence[str], key: str, progress: Progress
) -> dict[str, Statistics]:
    """Calibration statistics, cached."""
    name = content_key(key, list(paths))
    path = cache_folder() / "statistics" / f"{name}.safetensors"
    if not path.is_file():
        with progress.bar(f"Calibrating on {config.calibration_rows} rows", 1):
            made = calibrate(model, paths, task, task.train, rows=config.calibration_rows, seed=config.seed)
        arrays = {f"{where}:{k}": x for where, one in made.items() for k, x in one.arrays().items()}
        with written_whole(path) as temporary:
            save_file(arrays, temporary)
    by_path: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name, array in load_file(path).items():
        where, _, part = name.rpartition(":")
        by_path.setdefault(where, {})[part] = array
    return {where: Statistics.from_arrays(arrays) for where, arrays in by_path.items()}


def _logits(model: nn.Module, task: Task, name: str, progress: Progress) -> dict[str, NDArray[np.float32]]:
    """The teacher's logits on the fine-tuning rows and on validation, cached."""
    path = cache_folder() / "logits" / f"{name}.safetensors"
    if not path.is_file():
        run = torch_runner(model)
        with progress.bar("Teacher's logits", 1):
            made = {part: logits_of(run, task, getattr(task, part)) for part in ("train", "validation")}
        with written_whole(path) as temporary:
            save_file(made, temporary)
    return load_file(path)


def _head(rows: Encoded, count: int, seed: int) -> Encoded:
    """`count` rows drawn by a shuffle that follows from the seed."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:count])
    spans = [slice(rows.starts[k], rows.starts[k + 1]) for k in chosen]
    return Encoded(
        np.concatenate([rows.ids[s] for s in spans]),
        np.concatenate([rows.types[s] for s in spans]),
        np.concatenate([[0], np.cumsum(rows.lengths[chosen])]).astype(np.int64),
        rows.labels[chosen],
    )


def _state_hash(model: nn.Module) -> str:
    """SHA-256 over a model's tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()
