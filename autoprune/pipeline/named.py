"""What the user named, loaded: the kind of task, the rows, the model, and the task of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from autoprune.core.errors import AutopruneError
from autoprune.models import loading
from autoprune.models.image_processor import Pixels
from autoprune.models.model_kind import kind_of
from autoprune.models.own_processor import pixels_beside
from autoprune.run.config import Config
from autoprune.tasks.data import demo, splits
from autoprune.tasks.encoding import encode, pictures
from autoprune.tasks.kinds import (
    IMAGE_CLASSIFICATION,
    KINDS,
    OWN,
    TEXT_CLASSIFICATION,
    TaskKind,
)
from autoprune.tasks.metrics import Metric
from autoprune.tasks.task import Task


class Named(NamedTuple):
    """Rows and model as they were named, and the task that is made of both."""

    rows: splits.Splits
    loaded: loading.Loaded
    task: Task


def read_named(
    config: Config,
    kind: TaskKind,
    metric: Metric,
    earlier: Pixels | None = None,
    *,
    was_fitted: bool = False,
) -> Named:
    """Read rows of a kind of task that is no user's own, load the model, and encode them for it.

    Raises:
        AutopruneError: as `read_inputs` raises.
    """
    if earlier is not None:
        config = replace(config, data=replace(config.data, by_pixels=True))
    rows = read_rows_of(config, kind)
    loaded = load_named(config, kind, len(rows.label_names), was_fitted=was_fitted)
    if earlier is not None:
        loaded = loaded.with_pixels(earlier)
    if loaded.processor is not None and loaded.pixels is not None:
        loaded.processor.check(rows.train.images, loaded.pixels)
    return Named(rows, loaded, encoded(rows, loaded, config.task.max_length, kind, metric))


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


def read_rows_of(config: Config, kind: TaskKind) -> splits.Splits:
    is_demo = config.model.name is None
    if config.data.dataset is None and not is_demo:
        raise AutopruneError(
            "MODEL needs data: give --dataset (a file, folder, hub id or package.module:function)"
        )
    if is_demo and config.data.dataset is None:
        return splits.demo_splits()
    return splits.read_splits(config.data, kind, seed=config.search.seed)


def load_named(
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
