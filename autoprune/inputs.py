"""What the user named, loaded and understood: model, data, space, and what each unit weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import nn

from autoprune import data, demo, teacher
from autoprune.budget import Budget, megabytes
from autoprune.costs import Cost, Costs
from autoprune.errors import AutopruneError, BudgetError
from autoprune.files import cache_folder, content_key, read_json, write_json
from autoprune.run import Config
from autoprune.space import UNTOUCHED, Candidate, SearchSpace, SpaceFile, read_space
from autoprune.stitch import Stitched
from autoprune.targets import Target, get_target, size_on_disk
from autoprune.task import Task, encode
from autoprune.units import Unit, find_units, search_space


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


def read_inputs(config: Config) -> Inputs:
    """Load model, data and space file, and settle what each unit weighs on the target.

    Raises:
        AutopruneError: for whatever the user named that is not there or does not fit.
    """
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
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
    space = search_space(units, target.offers)
    sizes = sizes_of(loaded.model, units, space, target, task)
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


def sizes_of(
    model: nn.Module, units: Sequence[Unit], space: SearchSpace, target: Target, task: Task
) -> Costs:
    """Bytes of every unit at every level on the target; fixed bytes from really saving the model.

    The original is saved once for each config and target; its size does not depend on its weights.
    """
    config: Any = model.config
    key = content_key(config.to_dict(), target.name, transformers.__version__)
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
        unit.name: {level: Cost(target.size_bytes(unit, level)) for level in choices.levels()}
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
            f"{smallest[unit].width} bits, {inputs.sizes.fixed_bytes / 1e6:.2f} MB outside all units). "
            "Raise --budget, or allow fewer bits or higher ratios in the space file."
        )
    return size
