"""A task of the user's own: what `--task package.module:function` gives. No torch.

The function gives a mapping: `train`, `validation` and `test`, each with `inputs` (arrays by the name that
the model takes them by, rows first) and `labels`; `metric`, a function of answers [n k] and labels [n ...]
that gives a score of 0 to 100, larger being better; and `classes`, their names, where the answers
are logits of such; without them answers are vectors, and squared distances are what training makes less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from autoprune.core.errors import AutopruneError
from autoprune.core.references import given
from autoprune.tasks.data.source import SPLITS
from autoprune.tasks.kinds import OWN
from autoprune.tasks.metrics import own_metric
from autoprune.tasks.task import Arrays, Task


def own_task(reference: str) -> Task:
    """The task that a function describes.

    Raises:
        AutopruneError: when there is no such function, or what it gives is no task.
    """
    mapping = _checked(reference)
    parts = {name: _arrays(mapping[name], f"{reference} ({name})") for name in SPLITS}
    names = {tuple(part.inputs) for part in parts.values()}
    if len(names) > 1:
        raise AutopruneError(f"task {reference!r}: its splits have inputs of different names")
    return Task(
        **parts,
        label_names=tuple(map(str, mapping.get("classes", ()))),
        inputs=names.pop(),
        pad_id=0,
        kind=OWN,
        metric=own_metric(str(mapping.get("name") or getattr(mapping["metric"], "__name__", "score"))),
        own=reference,
    )


def _checked(reference: str) -> Mapping[str, Any]:
    mapping = given(reference, what="task")
    needed = (*SPLITS, "metric")
    if not isinstance(mapping, Mapping) or any(name not in mapping for name in needed):
        came = sorted(map(str, mapping)) if isinstance(mapping, Mapping) else type(mapping).__name__
        raise AutopruneError(f"task {reference!r} gave {came}; a mapping with {', '.join(needed)} is needed")
    if not callable(mapping["metric"]):
        raise AutopruneError(f"task {reference!r}: metric is no function of answers and labels")
    return mapping


def _arrays(split: Any, where: str) -> Arrays:
    if not isinstance(split, Mapping) or not {"inputs", "labels"} <= split.keys():
        raise AutopruneError(f"task {where}: a mapping with inputs and labels is needed")
    inputs = {str(name): _plain(column) for name, column in dict(split["inputs"]).items()}
    labels = np.asarray(split["labels"])
    sizes = {name: len(column) for name, column in inputs.items()} | {"labels": len(labels)}
    if len(set(sizes.values())) != 1 or len(labels) == 0 or not inputs:
        raise AutopruneError(f"task {where}: inputs and labels must have as many rows, and some; has {sizes}")
    return Arrays(inputs, labels)


def _plain(values: Any) -> Any:
    array = np.asarray(values)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)


def task_hash(task: Task) -> str:
    """SHA-256 over a task's arrays."""
    digest = hashlib.sha256()
    for split in (task.train, task.validation, task.test):
        for array in split.arrays().values():
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
