"""From inputs to what workers need: a teacher with a trained head, its statistics and its logits."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch
from torch import Tensor, nn

from autoprune.compress.gates import STEPS, learn_gates
from autoprune.compress.importance import BY_GATES, BY_GRADIENT
from autoprune.compress.statistics import Statistics, calibrate
from autoprune.core.cache import DiskCache, content_key
from autoprune.core.files import write_json
from autoprune.core.processors import idle_processors, usable_processors
from autoprune.core.progress import Progress
from autoprune.evaluation import teacher
from autoprune.evaluation.finetune import Recipe
from autoprune.evaluation.jobs import Setting
from autoprune.evaluation.lesson import guarded
from autoprune.models import loading
from autoprune.models.spec import Architecture
from autoprune.models.split_embedding import RARE, parted
from autoprune.models.state import load_state_, state_of
from autoprune.models.unit import Unit
from autoprune.pipeline.cached_answers import VERSION, cached_answers, drawn, taught_answers
from autoprune.pipeline.inputs import Inputs
from autoprune.run.config import Config
from autoprune.run.identity import weights_hash
from autoprune.sensitivity.fisher_scores import measured_rows
from autoprune.targets.packed import WEIGHTS, torch_runner
from autoprune.targets.spot_check import spot_check
from autoprune.tasks.task import Data, Encoded, Task

log = logging.getLogger(__name__)

SENSITIVITY_ROWS = 256
"""Training rows whose gradients tell what a variant harms: its standard error is 9 % with 256."""

TRAINING_ROWS = 2560
"""Training rows, at least, that fine-tunes draw from and are guarded by; the teacher answers them."""

PLACED_ROWS, PLACED_CALIBRATION, PLACED_TRAINING = 32, 96, 160
"""The same where each row has an answer at many places; most rows to calibrate on there, and least to train
on and to guard with. A language model has a hundred answers a row."""

THREADS_SECONDS = 15.0
"""How often it is seen, while a teacher is fitted, how many processors others leave idle. A shorter
fit has as many threads as may be used, and gives the same bits each time."""

_TEACHERS = DiskCache("teachers", 2)
_STATISTICS = DiskCache("statistics", VERSION, ".safetensors")


@dataclass(frozen=True)
class Prepared:
    """Inputs with a teacher that is fit for the task, and the setting for workers.

    teacher_score: what another teacher scores on validation, where there is one and rows have labels.
    """

    inputs: Inputs
    model: nn.Module
    setting: Setting
    recipe: Recipe
    model_hash: str
    teacher_score: float | None = None


def prepare(config: Config, inputs: Inputs, progress: Progress) -> Prepared:
    """Fit the teacher if its head is missing, calibrate, and gather what workers need."""
    torch.set_num_threads(usable_processors())
    model, task = _teacher(config, inputs, progress)
    architecture, whole = _described(inputs.loaded.architecture, model), task.train
    model_hash = weights_hash(model.state_dict())
    asked = config.training.finetune_steps
    steps = inputs.file.finetune.steps if asked is None else asked
    finetune = inputs.file.finetune
    recipe = Recipe(
        steps, finetune.batch_size, finetune.learning_rate, config.training.augment, finetune.weight_decay,
        finetune.dropout,
    )  # fmt: skip
    least = PLACED_TRAINING if task.kind.answers_each_token else TRAINING_ROWS
    rows = min(len(task.train), max(least, recipe.steps * recipe.batch_size))
    task = replace(task, train=drawn(task.train, rows, config.search.seed))
    key = content_key(
        VERSION, torch.__version__, model_hash, architecture.identity(),
        spot_check(torch_runner(model, task.kind), task.batch(task.validation, task.example_rows)),
        inputs.encoded_hash, _always_used(inputs.loaded), rows, config.training.calibration_rows,
        config.search.seed,
    )  # fmt: skip
    torch.set_num_threads(usable_processors())  # always as many: their number moves the last bits
    statistics = _statistics(config, model, task, inputs.units, key, progress)
    uses = _uses(whole, task, inputs.loaded, config.search.seed)
    statistics = _with_counts(statistics, model, inputs.units, uses)
    answers = cached_answers(lambda: model, task, key, progress)
    taught = taught_answers(inputs, rows, config.search.seed, answers, progress)
    setting = Setting(
        architecture=architecture,
        state={name: tensor.numpy() for name, tensor in state_of(model).items()},
        statistics={where: layer.arrays() for where, layer in statistics.items()},
        units=inputs.units,
        task=task,
        train_answers=answers["train"],
        validation_answers=answers["validation"],
        target=config.search.target,
        key=key,
        batch=config.timing.batch,
        sequence=inputs.sequence,
        sensitivity_rows=PLACED_ROWS if task.kind.answers_each_token else SENSITIVITY_ROWS,
        seed=config.search.seed,
        taught_answers=None if taught is None else taught.answers,
        taught_validation=None if taught is None else taught.validation,
        storage=config.search.file_storage,
    )
    return Prepared(inputs, model, setting, recipe, model_hash, None if taught is None else taught.score)


def _teacher(config: Config, inputs: Inputs, progress: Progress) -> tuple[nn.Module, Task]:
    """The model with a head for the task, and the task with labels as that head numbers them."""
    loaded, task = inputs.loaded, inputs.task
    if loaded.has_head or not task.has_labels:
        return loaded.model, task
    asked = config.training
    recipe = teacher.FitRecipe(epochs=asked.teacher_epochs, learning_rate=asked.teacher_rate)
    model: Any = loaded.model

    def fitted() -> dict[str, Tensor]:
        with progress.bar("Fitting the teacher: the model has no trained head for this task", 1) as bar:
            looked = time.monotonic()

            def on_step(step: int, steps: int, loss: float) -> None:
                nonlocal looked
                bar(step, f"loss {loss:.3f}", steps)
                if time.monotonic() - looked > THREADS_SECONDS:
                    torch.set_num_threads(idle_processors())
                    looked = time.monotonic()

            teacher.fit(model, task, recipe, seed=config.search.seed, on_step=on_step)
        return state_of(model)

    def save(state: dict[str, Tensor], folder: Path) -> None:
        save_torch(state, folder / WEIGHTS)
        write_json(folder / "labels.json", {"label_names": task.label_names})

    parts = [
        weights_hash(model.state_dict()), loaded.architecture.identity(),
        inputs.encoded_hash, asdict(recipe), config.search.seed,
    ]  # fmt: skip
    state = _TEACHERS.get(parts, make=fitted, save=save, load=lambda folder: load_torch(folder / WEIGHTS))
    load_state_(model, state)
    if task.label_names:
        teacher.name_labels(model, task.label_names)
    return model, task


def _described(architecture: Architecture, model: nn.Module) -> Architecture:
    """The architecture with the config as it is once a head was fitted: its classes have names."""
    config: Any = getattr(model, "config", None)
    if config is None or architecture.builder:
        return architecture
    return replace(architecture, config=json.loads(config.to_json_string(use_diff=False)))


def _statistics(
    config: Config, model: nn.Module, task: Task, units: Sequence[Unit], key: str, progress: Progress
) -> dict[str, Statistics]:
    """Calibration statistics, cached."""
    weights = [weight for unit in units for weight in unit.weights]
    paths, tied = (
        [weight.path for weight in weights],
        {weight.path: weight.tied for weight in weights if weight.tied},
    )
    told: list[object] = ["fisher"] if any(unit.is_looked_up for unit in units) else []
    by_row = {w.path for unit in units if BY_GRADIENT.intersection(unit.importance) for w in unit.cols}
    told += [["contributions", *sorted(by_row)]] if by_row else []
    gated = [unit for unit in units if BY_GATES.intersection(unit.importance) and unit.cols]
    told += [["gates", STEPS, *sorted(unit.name for unit in gated)]] if gated else []
    rows = (
        min(config.training.calibration_rows, PLACED_CALIBRATION)
        if task.kind.answers_each_token
        else config.training.calibration_rows
    )

    _, learned = guarded(task, task.train)  # or the untrained would be judged on rows that made them

    def arrays() -> dict[str, NDArray[np.float32]]:
        with progress.bar(f"Calibrating on {min(rows, len(learned))} rows", 1):
            statistics = calibrate(
                model, paths, task, learned, rows=rows, seed=config.search.seed, tied=tied,
                contributions=by_row,
            )  # fmt: skip
        if gated:
            with progress.bar(f"Learning gates of {len(gated)} units", STEPS) as bar:
                learned_of = learn_gates(
                    model, gated, task, learned, {path: seen.mean for path, seen in statistics.items()},
                    seed=config.search.seed, on_step=lambda step: bar(step, ""),
                )  # fmt: skip
            for unit in gated:
                path = unit.cols[0].path
                statistics[path] = replace(statistics[path], gates=learned_of[unit.name])
        return {f"{where}:{k}": x for where, layer in statistics.items() for k, x in layer.arrays().items()}

    return _STATISTICS.get([key, paths, tied, *told], make=arrays, save=save_file, load=_read_statistics)


def _read_statistics(path: Path) -> dict[str, Statistics]:
    by_path: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name, array in load_file(path).items():
        where, _, part = name.rpartition(":")
        by_path.setdefault(where, {})[part] = array
    return {where: Statistics.from_arrays(arrays) for where, arrays in by_path.items()}


def _always_used(loaded: loading.Loaded) -> list[int]:
    """How many tokens a tokenizer has, and its special ones, which are never removed; [] of other inputs."""
    tokenizer = loaded.tokenizer
    return [] if tokenizer is None else [len(tokenizer), *sorted(tokenizer.all_special_ids)]


def _uses(whole: Data, task: Task, loaded: loading.Loaded, seed: int) -> NDArray[np.float32] | None:
    """How often each token occurs in the training text that damage is not measured on; special ones inf.

    A token that stays because one of those rows has it would do no harm there and some elsewhere.
    """
    train = task.train
    if not isinstance(whole, Encoded) or not isinstance(train, Encoded) or loaded.tokenizer is None:
        return None
    held = np.bincount(train.pick(measured_rows(len(train), SENSITIVITY_ROWS, seed)).ids)
    size = max(int(whole.ids.max()) + 1, len(loaded.tokenizer))
    counts = np.bincount(whole.ids, minlength=size).astype(np.float32)
    counts[: len(held)] -= held
    counts[loaded.tokenizer.all_special_ids] = np.inf
    return counts


def _with_counts(
    statistics: dict[str, Statistics],
    model: nn.Module,
    units: Sequence[Unit],
    counts: NDArray[np.float32] | None,
) -> dict[str, Statistics]:
    """The statistics of embeddings whose tokens can be removed with those counts."""
    if counts is None:
        return statistics
    for path in (unit.rows[0].path for unit in units if unit.by_token):
        moment = torch.zeros_like(statistics[path].moment)
        both = parted(model).get(path.removesuffix(f".{RARE}"))
        size = len(moment) if both is None else len(both.ranks)
        known = nn.functional.pad(torch.from_numpy(counts), (0, max(0, size - len(counts))))[:size]
        moment[:] = known if both is None else known[both.order()[-len(moment) :]]
        statistics[path] = replace(statistics[path], moment=moment)
    return statistics
