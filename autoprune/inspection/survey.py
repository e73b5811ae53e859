"""What a model is made of, without data: its units, their bytes at every level, and what is left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import transformers
from torch import nn

from autoprune.core.errors import AutopruneError
from autoprune.models import find_space, loading
from autoprune.models.checkpoint import config_of
from autoprune.models.unit import Unit
from autoprune.models.units import find_units, importance_line, search_space
from autoprune.pipeline import inputs
from autoprune.pipeline.named import kind_asked_for
from autoprune.run.config import DEMO_DEFAULTS, Config
from autoprune.space.costs import Costs
from autoprune.space.levels import SearchSpace
from autoprune.targets import get_target
from autoprune.targets.sizes import sizes_of
from autoprune.tasks.data.images import Images, StoredImage
from autoprune.tasks.data.rows import Rows
from autoprune.tasks.data.splits import Splits
from autoprune.tasks.encoding import encode, pictures
from autoprune.tasks.task import Task


@dataclass(frozen=True)
class Survey:
    """A model's search space and sizes on a target.

    sizes: as a search predicts them; what no unit holds is the rest of the original as really saved.
    kinds: of the units, by name. left_alone: bytes of the modules that no unit compresses, by path.
    importance: as `importance_line` tells it.
    """

    space: SearchSpace
    space_name: str
    sizes: Costs
    kinds: Mapping[str, str]
    left_alone: Mapping[str, int]
    labels: int
    has_head: bool
    importance: str


def survey(source: str | None, *, space: str, target: str, task: str = "auto") -> Survey:
    """Take stock of a model folder or hub id, of the demo's model where None.

    A model gets as many labels as its config says; a search takes the data's, which can change a few bytes.
    The demo has its data, so its sizes are those of a search.

    Raises:
        AutopruneError: for whatever the user named that is not there or does not fit.
    """
    if source is None:
        config = Config.of(space=space, target=target, max_length=DEMO_DEFAULTS["max_length"])
        read = inputs.read_inputs(config)
        loaded, units, choices = read.loaded, read.units, read.space
        sizes, space_name, labels = read.sizes, read.space_name, len(read.task.label_names)
    else:
        transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        runtime, labels = get_target(target), _labels(source)
        kind = kind_asked_for(Config.of(model=source, task=task))
        loaded = loading.load_pretrained(source, labels=labels, kind=kind)
        file, space_name = find_space.find_space(space, loaded.model)
        units = find_units(loaded.model, file, source=space_name)
        choices = search_space(units, runtime.offers)
        sizes = sizes_of(loaded, units, choices, runtime, made_up_task(loaded))
    return Survey(
        choices,
        space_name,
        sizes,
        {unit.name: unit.kind for unit in units},
        _left_alone(loaded.model, units),
        labels,
        loaded.has_head,
        importance_line(units),
    )


def made_up_task(loaded: loading.Loaded) -> Task:
    """Two empty rows: a target traces a model on a batch to save it."""
    kind = loaded.architecture.kind
    if loaded.pixels is not None:
        blank = np.zeros((*loaded.pixels.size, 3), np.uint8)
        rows = Rows((), (0, 1), Images([StoredImage(blank, "a blank picture")] * 2))
        return pictures(Splits(rows, rows, rows, ("0", "1"), "", ""), loaded.pixels, kind=kind)
    text = ("one two three four five six seven eight nine ten",) * 2
    rows = Rows((text,), (0, 1) if kind.labels_texts else ())
    if kind.reads_words:
        rows = Rows((tuple(tuple(words.split()) for words in text),), ((0,) * 10,) * 2)
    return encode(Splits(rows, rows, rows, ("0", "1"), "", ""), loaded.tokenizer, max_length=8, kind=kind)


def _labels(source: str) -> int:
    """Labels of a model's own config."""
    try:
        return int(config_of(source).num_labels)
    except AutopruneError as error:
        if Path(source).exists():
            raise
        reason = str(error).partition("cannot be loaded: ")[2] or str(error)
        raise AutopruneError(
            f"model {source!r} is no folder here and could not be had from the hub: {reason}"
        ) from error


def _left_alone(model: nn.Module, units: Sequence[Unit]) -> dict[str, int]:
    """Bytes of each module that has parameters and is in no unit."""
    taken = {weight.path for unit in units for weight in unit.weights}
    own = {
        path: sum(
            parameter.numel() * parameter.element_size() for parameter in module.parameters(recurse=False)
        )
        for path, module in model.named_modules()
        if path not in taken
    }
    return {path: size for path, size in own.items() if size}
