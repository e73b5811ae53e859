"""The validation rows of an exported model, without the run it came from: read again, or made up.

Reading and cutting a data set takes longer than measuring a small model on its validation rows, so those
are cached under what they are made of: the data's fingerprint, every file that may say how inputs are read,
length and labels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from autoprune.core.cache import DiskCache
from autoprune.core.errors import AutopruneError
from autoprune.export.export_record import DataRecord, ExportRecord
from autoprune.models.image_processor import Pixels, earlier_pixels
from autoprune.targets import versions_of
from autoprune.tasks.custom import own_task, task_hash
from autoprune.tasks.data.rows import Rows
from autoprune.tasks.data.splits import Splits, demo_splits, read_splits
from autoprune.tasks.encoding import encode, pictures
from autoprune.tasks.kinds import TEXT_CLASSIFICATION, TaskKind, task_kind
from autoprune.tasks.metrics import Metric
from autoprune.tasks.task import Arrays, Data, Encoded, Task, with_label_order

_ROWS = DiskCache("rows", 3, ".safetensors")

NEEDED = {
    "dataset", "text_columns", "label_column", "group_by", "seed", "max_length", "labels", "fingerprint"
}  # fmt: skip
"""What a record always says of the data; `task`, `metric`, `own`, `image_column` and `limit_rows` since
there is more than classes of text."""

MADE_UP_ROWS = 64
MADE_UP_TOKENS = 64


def recorded_rows(folder: Path, about: ExportRecord, lies_at: str | None = None) -> Task:
    """The rows that the search validated on; all three splits of the task are these.

    Args:
        folder: of the exported model; its tokenizer is used.
        about: what its `autoprune.json` says.
        lies_at: path of the data, where the one recorded is relative to another folder.

    Raises:
        AutopruneError: when the data are not there, or are no longer those that were recorded.
    """
    data = _described(about)
    if data.own:
        task = own_task(data.own)
        if task_hash(task) != data.fingerprint:
            raise AutopruneError(f"{data.own} is not what it was when the search read it")
        return replace(task, train=task.validation, test=task.validation)

    def encoded() -> Task:
        splits = _read(data, lies_at or data.dataset, folder)
        if splits.fingerprint != data.fingerprint:
            raise AutopruneError(f"{splits.name} is not what it was when the search read it")
        return _encoded(splits, folder, data)

    return _ROWS.get(_parts(about), make=encoded, save=_save, load=_load)


def other_rows(folder: Path, about: ExportRecord, dataset: str) -> tuple[Task, bool]:
    """The validation rows of a data set that is named, and whether it is the one recorded.

    Raises:
        AutopruneError: when it cannot be read, or has other classes than the model.
    """
    data = _described(about)
    splits = _read(data, dataset, folder)
    return _encoded(splits, folder, data), splits.fingerprint == data.fingerprint


def validation_and_test(folder: Path, about: ExportRecord, lies_at: str | None = None) -> Task:
    """The rows that the search validated and tested on; the training split is a row of no meaning.

    Args, errors: as of `recorded_rows`.
    """
    data = _described(about)
    splits = _read(data, lies_at or data.dataset, folder)
    if splits.fingerprint != data.fingerprint:
        raise AutopruneError(f"{splits.name} is not what it was when the search read it")
    return _encoded(splits, folder, data, with_test=True)


def made_up_rows(
    inputs: Sequence[str], vocabulary: int, longest: int, *, kind: TaskKind = TEXT_CLASSIFICATION
) -> Task:
    """Rows of real tokens in no sensible order; labels are all 0 and mean nothing.

    Args:
        inputs: names of the model's inputs.
        vocabulary: how many tokens there are.
        longest: most tokens of a row.
    """
    rng = np.random.default_rng(0)
    lengths = rng.integers(min(2, longest), longest + 1, MADE_UP_ROWS)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(0, vocabulary, starts[-1]).astype(np.int32)
    labels = np.zeros(len(ids) if kind.reads_words else MADE_UP_ROWS, np.int64)
    rows = Encoded(ids, np.zeros(len(ids), np.uint8), starts, labels)
    return Task(rows, rows, rows, (), tuple(inputs), pad_id=0, kind=kind, metric=kind.usual_metric)


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer of an exported model.

    Raises:
        AutopruneError: when there is none that can be read.
    """
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(  # nosec B615 # a folder here: nothing is downloaded
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises many kinds
        raise AutopruneError(f"{folder} holds no tokenizer that can be read: {error}") from error


def _described(about: ExportRecord) -> DataRecord:
    if not about.data.model_fields_set >= NEEDED:
        raise AutopruneError("it is not noted where the data came from")
    return about.data


def _read(data: DataRecord, dataset: str | None, folder: Path) -> Splits:
    if dataset is None:
        return demo_splits()
    by_pixels = data.kind.reads_images and earlier_pixels(folder) is not None
    return read_splits(replace(data.source(dataset), by_pixels=by_pixels), data.kind, seed=data.seed)


def _encoded(splits: Splits, folder: Path, data: DataRecord, *, with_test: bool = False) -> Task:
    """The validation rows as the model takes them, with labels as it numbers them; test rows if asked for."""
    kind = data.kind
    metric = Metric.from_json(data.metric) if data.metric else kind.usual_metric
    one = _one_row(splits.validation)
    few = replace(splits, train=one, test=splits.test if with_test else one)
    if kind.reads_images:
        task = pictures(few, Pixels.read(folder), kind=kind, metric=metric)
    else:
        task = encode(few, tokenizer_of(folder), max_length=data.max_length, kind=kind, metric=metric)
    rows, test, names = task.validation, task.test, data.labels
    if names:
        order = _order(splits.label_names, names, splits.name)
        rows, test = with_label_order(rows, order), with_label_order(test, order)
    test = test if with_test else rows
    return replace(task, train=rows, validation=rows, test=test, label_names=names)


def _one_row(rows: Rows) -> Rows:
    return Rows(tuple(column[:1] for column in rows.texts), rows.labels[:1], rows.images[:1])


def _order(names: Sequence[str], wanted: Sequence[str], source: str) -> list[int]:
    """For each class of the data its number in the model, of which the data may lack some."""
    if not {*names} <= {*wanted}:
        raise AutopruneError(
            f"{source} has the classes {', '.join(names)}; the model tells apart {', '.join(wanted)}"
        )
    return [list(wanted).index(name) for name in names]


# ---- the cache ----------------------------------------------------------------------------------


def _parts(about: ExportRecord) -> list[object]:
    """What rows depend on: the data, and every file of an export that may say how inputs are read."""
    weights = (".safetensors", ".bin", ".xml", ".onnx", ".gguf", ".md")
    reader = {name: digest for name, digest in about.sha256.items() if not name.endswith(weights)}
    data = about.data
    task = [data.kind.name, data.metric]
    read = [data.fingerprint, data.max_length, data.labels]
    return [versions_of("packed"), read, reader, task]


def _save(task: Task, path: Path) -> None:
    described = {
        "inputs": task.inputs,
        "pad_id": task.pad_id,
        "label_names": task.label_names,
        "kind": task.kind.name,
        "metric": task.metric.as_json(),
    }
    save_file(task.validation.arrays(), path, metadata={"task": json.dumps(described)})


def _load(path: Path) -> Task:
    with safe_open(path, "np") as file:
        described = json.loads(file.metadata()["task"])
        parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    is_tokens = "ids" in parts
    rows: Data = Encoded(**parts) if is_tokens else Arrays.from_arrays(parts)
    return Task(
        rows,
        rows,
        rows,
        label_names=tuple(described["label_names"]),
        inputs=tuple(described["inputs"]),
        pad_id=described["pad_id"],
        kind=task_kind(described["kind"]),
        metric=Metric.from_json(described["metric"]),
    )
