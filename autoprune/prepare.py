"""From what the user named to all that a search needs: task, teacher, units, costs, a setting."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import nn

from autoprune import data, demo, teacher
from autoprune.budget import Budget, megabytes
from autoprune.calibrate import Statistics, calibrate
from autoprune.errors import AutopruneError, BudgetError
from autoprune.evaluate import Setting, statistics_fields
from autoprune.files import cache_folder, content_key, read_json, write_json, written_whole
from autoprune.finetune import Recipe
from autoprune.measure import logits_of
from autoprune.progress import Progress
from autoprune.repair import Cost, Costs
from autoprune.run import Config
from autoprune.space import UNTOUCHED, Candidate, SearchSpace, SpaceFile, read_space
from autoprune.stitch import Stitched
from autoprune.targets import Target, get_target, size_on_disk
from autoprune.targets.packed import torch_runner
from autoprune.task import Encoded, Task, encode
from autoprune.units import Unit, find_units, search_space

log = logging.getLogger(__name__)

VERSION = 1
"""Raised when a cached teacher, its statistics or logits would come out differently."""


@dataclass(frozen=True)
class Inputs:
    """What was named, loaded and understood, before anything costly: the budget can be checked."""

    name: str
    task: Task
    loaded: teacher.Loaded
    file: SpaceFile
    space_name: str
    units: tuple[Unit, ...]
    space: SearchSpace
    sizes: Costs
    data_hash: str
    dataset: str

    @property
    def original_bytes(self) -> int:
        """Predicted (and for the original exact) bytes of the uncompressed model's files."""
        return self.sizes.size_bytes(self.space.untouched())


@dataclass(frozen=True)
class Prepared:
    """Inputs with a teacher that is fit for the task, and the setting for workers."""

    inputs: Inputs
    model: nn.Module
    setting: Setting
    recipe: Recipe
    model_hash: str


def read_inputs(config: Config, progress: Progress) -> Inputs:
    """Load model, data and space file, and settle what each unit weighs on the target.

    Raises:
        AutopruneError: for whatever the user named that is not there or does not fit.
    """
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    target = get_target(config.target)
    is_demo = config.model is None
    if config.dataset is None and not is_demo:
        raise AutopruneError("MODEL needs data: give --dataset (a file, folder or hub id)")
    if is_demo and config.dataset is None:
        splits = data.demo_splits()
    else:
        splits = data.read_splits(
            str(config.dataset),
            text_columns=config.text_columns,
            label_column=config.label_column,
            group_by=config.group_by,
            seed=config.seed,
        )
    source = str(demo.demo_model()) if config.model is None else config.model
    torch.manual_seed(config.seed)  # a head that is missing is drawn from the global generator
    loaded = teacher.load_pretrained(
        source,
        labels=len(splits.label_names),
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
    )
    task = encode(splits, loaded.tokenizer, max_length=config.max_length)
    file, space_name = find_space(config.space, loaded.model)
    units = find_units(loaded.model, file, source=space_name)
    space = search_space(units, bits=target.bits)
    sizes = _sizes(loaded.model, units, space, target, task)
    name = "demo-minilm" if is_demo else Path(source.rstrip("/")).name or "model"
    return Inputs(
        name, task, loaded, file, space_name, units, space, sizes, splits.fingerprint, splits.name
    )  # fmt: skip


def spaces_folder() -> Path:
    """Where the shipped search spaces lie: in the package, or beside it in a checkout."""
    inside = Path(__file__).parent / "search_spaces"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "search_spaces"


def find_space(name: str, model: nn.Module) -> tuple[SpaceFile, str]:
    """A space by file, by shipped name, or by the model's type for "auto"."""
    shipped = {path.stem: path for path in sorted(spaces_folder().glob("*.yaml"))}
    if name == "auto":
        kind = str(getattr(getattr(model, "config", None), "model_type", ""))
        if kind not in shipped:
            raise AutopruneError(
                f"no search space is shipped for models of type {kind!r}; there are "
                f"{', '.join(shipped)}. Write one and give it with --space FILE.yaml"
            )
        return read_space(shipped[kind]), shipped[kind].name
    if name in shipped:
        return read_space(shipped[name]), shipped[name].name
    path = Path(name)
    if not path.is_file():
        raise AutopruneError(
            f"search space {name!r} is neither a file nor shipped; shipped: {', '.join(shipped)}"
        )
    return read_space(path), path.name


def _sizes(
    model: nn.Module, units: Sequence[Unit], space: SearchSpace, target: Target, task: Task
) -> Costs:
    """Bytes of every unit at every level on the target; fixed bytes from really saving the model.

    The original is saved once for each config and target; its size does not depend on its weights.
    """
    config: Any = model.config
    key = content_key(VERSION, config.to_dict(), target.name, transformers.__version__)
    path = cache_folder() / "sizes" / f"{key}.json"
    if path.is_file():
        original = int(read_json(path)["size_bytes"])
    else:
        with TemporaryDirectory(prefix="autoprune-") as name:
            plain = Stitched(model, {}, frozenset(), {}, Candidate(()))
            target.save(plain, Path(name), task.batch(task.validation, [0, 1]))
            original = size_on_disk(target, Path(name))
        write_json(path, {"size_bytes": original})
    levels = {
        unit.name: {
            level: Cost(unit.size_bytes(level) + len(unit.weights) * target.overhead_bytes(level.bits))
            for level in choices.levels()
        }
        for unit, choices in zip(units, space.units, strict=True)
    }
    fixed = original - sum(table[UNTOUCHED].size_bytes for table in levels.values())
    return Costs(fixed, levels)


def check_budget(inputs: Inputs, budget: Budget) -> int:
    """Bytes of the smallest candidate.

    Raises:
        BudgetError: when even that is over the budget; says how small the model can get, and why.
    """
    smallest = inputs.sizes.smallest(inputs.space)
    size = inputs.sizes.size_bytes(smallest)
    if budget.size_bytes is not None and size > budget.size_bytes:
        parts = {u: inputs.sizes.levels[u][level].size_bytes for u, level in smallest.items}
        unit = max(parts, key=lambda name: parts[name])
        raise BudgetError(
            f"budget {megabytes(budget.size_bytes)} cannot be met: the smallest candidate of "
            f"{inputs.space_name} on this model is {size / 1e6:.2f} MB ({unit} {parts[unit] / 1e6:.2f} MB at "
            f"{smallest[unit].bits} bits, {inputs.sizes.fixed_bytes / 1e6:.2f} MB outside all units). "
            "Raise --budget, or allow fewer bits or higher ratios in the space file."
        )
    return size


def prepare(config: Config, inputs: Inputs, progress: Progress) -> Prepared:
    """Fit the teacher if its head is missing, calibrate, and gather what workers need."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model, task = _teacher(config, inputs, progress)
    key = content_key(VERSION, _state_hash(model), inputs.data_hash, config.max_length,
                      config.calibration_rows, config.seed)  # fmt: skip
    paths = [weight.path for unit in inputs.units for weight in unit.weights]
    steps = inputs.file.finetune.steps if config.finetune_steps is None else config.finetune_steps
    recipe = Recipe(steps, inputs.file.finetune.batch_size, inputs.file.finetune.learning_rate)
    rows = min(len(task.train), max(2048, recipe.steps * recipe.batch_size))
    task = Task(_head(task.train, rows, config.seed), task.validation, task.test,
                task.label_names, task.inputs, task.pad_id)  # fmt: skip
    statistics = _statistics(config, model, task, paths, key, progress)
    logits = _logits(model, task, f"{key}-{rows}", progress)
    model_config: Any = model.config
    setting = Setting(
        config=json.loads(model_config.to_json_string(use_diff=False)),
        state={name: tensor.numpy() for name, tensor in model.state_dict().items()},
        statistics=statistics_fields(statistics),
        units=inputs.units,
        task=task,
        train_logits=logits["train"],
        validation_logits=logits["validation"],
        target=config.target,
        key=key,
        batch=config.batch,
        sequence=config.sequence,
    )
    return Prepared(inputs, model, setting, recipe, _state_hash(model))


def _teacher(config: Config, inputs: Inputs, progress: Progress) -> tuple[nn.Module, Task]:
    """The model with a head for the task, and the task with labels as that head numbers them."""
    loaded, task = inputs.loaded, inputs.task
    if loaded.has_head:
        order = teacher.label_order(loaded.model, task.label_names)
        if order is None:
            log.info("the model's label names are not the data's; labels are taken by number")
            return loaded.model, task
        parts = [teacher.with_label_order(one, order) for one in (task.train, task.validation, task.test)]
        names = tuple(sorted(task.label_names, key=lambda name: order[task.label_names.index(name)]))
        return loaded.model, Task(*parts, names, task.inputs, task.pad_id)
    recipe = teacher.FitRecipe(epochs=config.teacher_epochs, learning_rate=config.teacher_rate)
    body = _state_hash(loaded.model.base_model)  # type: ignore[arg-type]
    key = content_key(VERSION, body, inputs.data_hash, config.max_length, asdict(recipe), config.seed)
    path = cache_folder() / "teachers" / key
    model = loaded.model
    if not path.is_dir():
        with progress.bar("Fitting the teacher: the model has no trained head for this task", 1) as bar:
            teacher.fit(model, task, recipe, seed=config.seed, on_step=lambda step, steps, loss: bar(step, f"loss {loss:.3f}", steps))
        teacher.name_labels(model, task.label_names)
        with written_whole(path) as temporary:
            model.save_pretrained(temporary)  # type: ignore[operator]
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
        arrays = {
            f"{where}:{k}": np.asarray(value)
            for where, values in statistics_fields(made).items()
            for k, value in enumerate(values)
        }
        with written_whole(path) as temporary:
            save_file(arrays, temporary)
    arrays = load_file(path)
    return {
        where: Statistics(
            *(torch.from_numpy(arrays[f"{where}:{k}"]) for k in range(3)), float(arrays[f"{where}:3"])
        )
        for where in paths
    }


def _logits(
    model: nn.Module, task: Task, name: str, progress: Progress
) -> dict[str, NDArray[np.float32]]:
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


