"""The validation rows of an exported model, without the run it came from: read again, or made up.

Reading and cutting a data set takes longer than measuring a small model on its validation rows, so those
are cached under what they are made of: the data's fingerprint, the tokenizer's files, length and labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from autoprune.data import Rows, Splits, demo_splits, read_splits
from autoprune.errors import AutopruneError
from autoprune.files import cache_folder, content_key, written_whole
from autoprune.task import Encoded, Task, encode

CACHE_VERSION = 1
"""Raised when cached rows would come out differently."""

NEEDED = {
    "dataset", "text_columns", "label_column", "group_by", "seed", "max_length", "labels", "fingerprint"
}  # fmt: skip

MADE_UP_ROWS = 64
MADE_UP_TOKENS = 64


def recorded_rows(folder: Path, about: Mapping[str, Any]) -> Task:
    """The rows that the search validated on; all three splits of the task are these.

    Args:
        folder: of the exported model; its tokenizer is used.
        about: what its `autoprune.json` says.

    Raises:
        AutopruneError: when the data are not there, or are no longer those that were recorded.
    """
    data = _described(about)
    path = cache_folder() / "rows" / f"{_key(data, about)}.safetensors"
    task = _cached(path)
    if task is None:
        splits = _read(data, data["dataset"])
        if splits.fingerprint != data["fingerprint"]:
            raise AutopruneError(f"{splits.name} is not what it was when the search read it")
        task = _encoded(splits, folder, data)
        _keep(path, task)
    return task


def other_rows(folder: Path, about: Mapping[str, Any], dataset: str) -> tuple[Task, bool]:
    """The validation rows of a data set that is named, and whether it is the one recorded.

    Raises:
        AutopruneError: when it cannot be read, or has other classes than the model.
    """
    data = _described(about)
    splits = _read(data, dataset)
    return _encoded(splits, folder, data), splits.fingerprint == data["fingerprint"]


def made_up_rows(inputs: Sequence[str], vocabulary: int, longest: int) -> Task:
    """Rows of real tokens in no sensible order; labels are all 0 and mean nothing.

    Args:
        inputs: names of the model's inputs.
        vocabulary: how many tokens there are.
        longest: most tokens of a row.
    """
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, longest + 1, MADE_UP_ROWS)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(0, vocabulary, starts[-1]).astype(np.int32)
    rows = Encoded(ids, np.zeros(len(ids), np.uint8), starts, np.zeros(MADE_UP_ROWS, np.int64))
    return Task(rows, rows, rows, (), tuple(inputs), pad_id=0)


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer of an exported model.

    Raises:
        AutopruneError: when there is none that can be read.
    """
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AutopruneError(f"{folder} holds no tokenizer that can be read: {error}") from error


def _described(about: Mapping[str, Any]) -> Mapping[str, Any]:
    data = about.get("data")
    if not isinstance(data, Mapping) or not data.keys() >= NEEDED:
        raise AutopruneError("it is not noted where the data came from")
    return data


def _read(data: Mapping[str, Any], dataset: str | None) -> Splits:
    if dataset is None:
        return demo_splits()
    return read_splits(
        dataset,
        text_columns=tuple(data["text_columns"]),
        label_column=data["label_column"],
        group_by=data["group_by"],
        seed=data["seed"],
    )


def _encoded(splits: Splits, folder: Path, data: Mapping[str, Any]) -> Task:
    """Tokens of the validation rows alone, with labels as the model numbers them."""
    order = _order(splits.label_names, data["labels"], splits.name)
    first = Rows(tuple(column[:1] for column in splits.validation.texts), splits.validation.labels[:1])
    few = replace(splits, train=first, test=first)
    task = encode(few, tokenizer_of(folder), max_length=data["max_length"])
    labels = np.asarray(order, np.int64)[task.validation.labels]
    rows = replace(task.validation, labels=labels)
    return replace(task, train=rows, validation=rows, test=rows, label_names=tuple(data["labels"]))


def _order(names: Sequence[str], wanted: Sequence[str], source: str) -> list[int]:
    """For each class of the data its number in the model."""
    if sorted(names) != sorted(wanted):
        raise AutopruneError(
            f"{source} has the classes {', '.join(names)}; the model tells apart {', '.join(wanted)}"
        )
    return [list(wanted).index(name) for name in names]


# ---- the cache ----------------------------------------------------------------------------------


def _key(data: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    tokenizer = {
        name: digest
        for name, digest in about["sha256"].items()
        if any(part in name for part in ("token", "vocab", "merges"))
    }
    return content_key(CACHE_VERSION, data["fingerprint"], data["max_length"], data["labels"], tokenizer)


def _keep(path: Path, task: Task) -> None:
    rows = task.validation
    arrays: dict[str, NDArray[Any]] = {
        "ids": rows.ids, "types": rows.types, "starts": rows.starts, "labels": rows.labels
    }  # fmt: skip
    told = {"inputs": task.inputs, "pad_id": task.pad_id, "label_names": task.label_names}
    with written_whole(path) as temporary:
        save_file(arrays, temporary, metadata={"task": json.dumps(told)})


def _cached(path: Path) -> Task | None:
    """The rows kept in a file; None where there is none, or it is damaged."""
    try:
        with safe_open(path, "np") as file:
            told = json.loads((file.metadata() or {})["task"])
            parts = {name: file.get_tensor(name) for name in ("ids", "types", "starts", "labels")}
        rows = Encoded(**parts)
        return Task(rows, rows, rows, tuple(told["label_names"]), tuple(told["inputs"]), told["pad_id"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
