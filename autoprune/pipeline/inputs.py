"""What the user named, loaded and understood: model, data, space, and what each unit weighs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers

from autoprune.core.cache import content_key
from autoprune.core.errors import AutopruneError, BudgetError
from autoprune.models import loading
from autoprune.models.find_space import find_space
from autoprune.models.image_processor import Pixels
from autoprune.models.model_kind import kind_of
from autoprune.models.own_processor import pixels_beside
from autoprune.models.split_embedding import part_by_use_
from autoprune.models.unit import Unit
from autoprune.models.units import find_units, importance_line, search_space, to_part
from autoprune.pipeline.held_together import held_together
from autoprune.pipeline.hub_commits import commits_of, with_commits
from autoprune.run.config import Config, TimingSettings, name_of
from autoprune.run.identity import weights_hash
from autoprune.run.run_record import Identity
from autoprune.run.text import size_text
from autoprune.run.whereabouts import paths_of
from autoprune.space.budget import Budget, megabytes
from autoprune.space.costs import Costs
from autoprune.space.levels import SearchSpace
from autoprune.space.space_file import SpaceFile
from autoprune.targets import get_target
from autoprune.targets.sizes import sizes_of
from autoprune.tasks.class_balance import balance_notes
from autoprune.tasks.custom import own_task, task_hash
from autoprune.tasks.data import demo, splits
from autoprune.tasks.encoding import encode, encoded_hash, pictures
from autoprune.tasks.kinds import (
    IMAGE_CLASSIFICATION,
    KINDS,
    OWN,
    TEXT_CLASSIFICATION,
    TaskKind,
)
from autoprune.tasks.metrics import Metric
from autoprune.tasks.task import Encoded, Task


@dataclass(frozen=True)
class Inputs:
    """What was named, loaded and understood, before anything costly: the budget can be checked.

    data_hash: of the rows as they were read. encoded_hash: of what the model is fed, which depends on the
    tokenizer too, or on how pictures are made inputs (`encoding.encoded_hash`). identity: what a run is
    held to. texts: the rows as they were read, of a task whose rows are texts with an answer each. sequence:
    tokens that latency is timed at. notes: lines for the plan: what of the data was left out or may not be
    meant, and what is done otherwise than was asked.
    """

    name: str
    task: Task
    loaded: loading.Loaded
    file: SpaceFile
    space_name: str
    units: tuple[Unit, ...]
    space: SearchSpace
    sizes: Costs
    data_hash: str
    dataset: str
    encoded_hash: str
    identity: Identity
    texts: splits.Splits | None = None
    sequence: int = TimingSettings.sequence
    notes: tuple[str, ...] = ()

    @property
    def original_bytes(self) -> int:
        """Predicted (and for the original exact) bytes of the uncompressed model's files."""
        return self.sizes.size_bytes(self.space.untouched())


def read_inputs(config: Config, earlier: Pixels | None = None, *, was_fitted: bool = False) -> Inputs:
    """Load model, data and space file, and settle what each unit weighs on the target.

    Args:
        earlier: how a run of an earlier version makes pictures inputs, which it goes on with.
        was_fitted: whether the run that is taken up began with a head of its own fitting, whatever the model
            has.

    Raises:
        AutopruneError: for whatever the user named that is not there or does not fit.
    """
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    target = get_target(config.search.target)
    config = with_commits(config)
    kind = kind_asked_for(config)
    metric = metric_of(config, kind)
    texts: splits.Splits | None = None
    notes: tuple[str, ...] = ()
    if kind.is_own:
        task = own_task(str(config.task.name))
        loaded, name, data_hash = _loaded(config, kind, task=task), str(config.task.name), task_hash(task)
    else:
        if earlier is not None:
            config = replace(config, data=replace(config.data, by_pixels=True))
        rows = _splits(config, kind)
        loaded = _loaded(config, kind, len(rows.label_names), was_fitted=was_fitted)
        if earlier is not None:
            loaded = loaded.with_pixels(earlier)
        if loaded.processor is not None and loaded.pixels is not None:
            loaded.processor.check(rows.train.images, loaded.pixels)
        task = encoded(rows, loaded, config.task.max_length, kind, metric)
        name, data_hash = rows.name, rows.fingerprint
        notes = (*rows.notes, *balance_notes(task))
        texts = rows if kind.labels_texts else None
    fed = encoded_hash(task, data_hash=data_hash, pixels=loaded.pixels)
    identity = _identity(config, loaded, task, fed)  # before embeddings are parted by the data
    task, sequence, told = held_together(config, loaded, task)
    file, space_name = find_space(config.search.space, loaded.model)
    if target.parts:
        _part_(loaded, file, task)
    units = find_units(loaded.model, file, source=space_name)
    removed_by = importance_line(units)
    if removed_by:  # or `run.json` of other runs would have a field more
        identity = identity.model_copy(update={"importance": removed_by})
    space = search_space(units, target.offers)
    sizes = sizes_of(loaded, units, space, target, task)
    return Inputs(
        name_of(config), task, loaded, file, space_name, units, space, sizes, data_hash, name, fed,
        identity, texts, sequence, (*notes, *told, *([f"removed are {removed_by}"] if removed_by else [])),
    )  # fmt: skip


def _identity(config: Config, loaded: loading.Loaded, task: Task, fed: str) -> Identity:
    """Hashes of the weights and data that were read, and where they lie."""
    state, body = loaded.model.state_dict(), getattr(loaded.model, "base_model", loaded.model)
    inside = body.state_dict()
    prefix = "" if body is loaded.model else f"{loaded.model.base_model_prefix}."
    head = {name: tensor for name, tensor in state.items() if name.removeprefix(prefix) not in inside}
    return Identity(
        weights=weights_hash(inside),
        head=weights_hash(head) if head and loaded.has_head else None,
        data=content_key(fed, task.label_names),
        paths=paths_of(config),
        commits=commits_of(config),
        folder=str(Path.cwd()),
    )


def _part_(loaded: loading.Loaded, file: SpaceFile, task: Task) -> None:
    """Part the vocabularies that a space file has in two, by the training text, in place."""
    if not isinstance(task.train, Encoded) or loaded.tokenizer is None:
        return
    for path, share in to_part(loaded.model, file).items():
        uses = np.zeros(len(loaded.model.get_submodule(path).weight))  # type: ignore[arg-type]
        counts = np.bincount(task.train.ids)[: len(uses)]
        uses[: len(counts)] = counts
        uses[[token for token in loaded.tokenizer.all_special_ids if token < len(uses)]] = np.inf
        part_by_use_(loaded.model, path, uses, share)


def kind_asked_for(config: Config) -> TaskKind:
    """The kind of task that is asked for, or that a model's own config tells.

    Raises:
        AutopruneError: for a kind that does not exist.
    """
    if ":" in config.task.name:
        return OWN
    if config.task.name != "auto":
        known = {kind.name: kind for kind in KINDS}
        if config.task.name in known:
            return known[config.task.name]
        raise AutopruneError(
            f"--task {config.task.name!r} does not exist; there are auto, {', '.join(known)}, and "
            "module:function for one of your own"
        )
    if config.model.name is None:
        return TEXT_CLASSIFICATION
    if names_builder(config.model.name):
        return IMAGE_CLASSIFICATION
    return kind_of(config.model.name, config.model.revision)


def metric_of(config: Config, kind: TaskKind) -> Metric:
    """The metric that is asked for, or the usual one.

    Raises:
        AutopruneError: for one that the kind of task does not have.
    """
    if config.task.metric is None:
        return kind.usual_metric
    known = {metric.name: metric for metric in kind.metrics}
    if config.task.metric not in known:
        has = f"; there are {', '.join(known)}" if known else ", which brings its own"
        raise AutopruneError(f"--metric {config.task.metric!r} is not one of task {kind}{has}")
    return known[config.task.metric]


def _splits(config: Config, kind: TaskKind) -> splits.Splits:
    is_demo = config.model.name is None
    if config.data.dataset is None and not is_demo:
        raise AutopruneError(
            "MODEL needs data: give --dataset (a file, folder, hub id or package.module:function)"
        )
    if is_demo and config.data.dataset is None:
        return splits.demo_splits()
    return splits.read_splits(config.data, kind, seed=config.search.seed)


def _loaded(
    config: Config, kind: TaskKind, labels: int = 0, *, task: Task | None = None, was_fitted: bool = False
) -> loading.Loaded:
    """The model that was named, for the kind of task."""
    torch.manual_seed(config.search.seed)  # a head that is missing is drawn from the global generator
    model = config.model
    source = str(demo.demo_model()) if model.name is None else model.name
    if model.new_head and (names_builder(source) or kind.gives_vectors or kind.predicts_next_token):
        what = "a function" if names_builder(source) else f"task {kind}"
        raise AutopruneError(
            f"--new-head: the model of {what} has no head that would be fitted; leave it out"
        )
    if names_builder(source):
        pixels, processor = pixels_beside(model.weights, model.image_size)
        return loading.load_built(source, model.weights, pixels, kind=kind, task=task, processor=processor)
    if model.weights is not None:
        raise AutopruneError(
            "--weights goes with a MODEL that a function builds, module:function; a folder has its own"
        )
    return loading.load_pretrained(
        source,
        labels=labels,
        kind=kind,
        revision=model.revision,
        image_size=model.image_size,
        new_head=model.new_head or was_fitted,
    )


def names_builder(source: str) -> bool:
    """Whether a model is named by a function that builds it."""
    return ":" in source and not Path(source).exists()


def encoded(
    splits: splits.Splits, loaded: loading.Loaded, max_length: int, kind: TaskKind, metric: Metric
) -> Task:
    """The splits as a model takes them."""
    if loaded.pixels is not None:
        return pictures(splits, loaded.pixels, kind=kind, metric=metric)
    return encode(splits, loaded.tokenizer, max_length=max_length, kind=kind, metric=metric)


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
        bits = smallest[unit].storage.name
        raise BudgetError(
            f"budget {megabytes(budget.size_bytes)} cannot be met: the smallest candidate of "
            f"{inputs.space_name} on this model is {size_text(size)} ({unit} {size_text(parts[unit])} at "
            f"{bits} bits, {size_text(inputs.sizes.fixed_bytes)} outside all units). "
            "Raise --budget, or allow fewer bits or higher ratios in the space file."
        )
    return size
