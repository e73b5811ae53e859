"""What a search began with: hashes of weights and data, so that no front mixes those of two. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from autoprune.errors import AutopruneError
from autoprune.progress import Progress
from autoprune.run import INPUTS, RunFolder
from autoprune.task import Arrays, Data, Task


@dataclass(frozen=True)
class Identity:
    """SHA-256 of what was read, and where it was read from.

    weights: of the model as loaded, without its head. head: of the head, None where none was trained.
    data: of the splits as the model takes them. paths: absolute, of the settings that name a file or folder.
    folder: the working directory, which functions are imported from.
    """

    weights: str
    head: str | None
    data: str
    paths: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""


def weights_hash(state: Mapping[str, Any]) -> str:
    """SHA-256 over a model's tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def encoded_hash(task: Task) -> str:
    """SHA-256 over the rows of all splits as the model takes them, their labels, and the labels' names."""
    digest = hashlib.sha256(json.dumps([task.kind, task.label_names, task.inputs, task.pad_id]).encode())
    for name in ("train", "validation", "test"):
        for array_name, array in _arrays(getattr(task, name)).items():
            digest.update(f"{name} {array_name} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _arrays(data: Data) -> dict[str, Any]:
    if isinstance(data, Arrays):
        return {**data.inputs, "labels": data.labels}
    return {"ids": data.ids, "types": data.types, "starts": data.starts, "labels": data.labels}


def hold_to(run: RunFolder, now: Identity, progress: Progress) -> None:
    """Note what a new run begins with; hold one that is taken up to what it began with.

    A run of an older version, which noted nothing, goes on and is held to what is read now.

    Raises:
        AutopruneError: where the weights or the data are not those that the run began with.
    """
    before = run.about().get(INPUTS)
    if before is None:
        if not run.is_new:
            progress.line(
                f"Run {run.path} does not say which weights and data it began with, as it is of an older "
                "version; those read now are noted"
            )
        run.note(**{INPUTS: asdict(now)})
        return
    config = run.config()
    model = _where(config.model or "the demo's model", now.paths.get("model"))
    if config.weights is not None:
        model = _where(config.weights, now.paths.get("weights"))
    dataset = config.dataset or (config.task if ":" in config.task else "the demo's data")
    pairs = [
        ("weights", model, before["weights"], now.weights),
        ("weights of the head", model, before["head"], now.head),
        ("data", _where(dataset, now.paths.get("dataset")), before["data"], now.data),
    ]
    changed = [
        f"the {what} ({where}: SHA-256 {old[:12]} then, {new[:12]} now)"
        for what, where, old, new in pairs
        if old is not None and new is not None and old != new
    ]
    if changed:
        raise AutopruneError(
            f"run {run.path} began with other inputs than are there now; changed: {' and '.join(changed)}. "
            "Trials of one run must share weights and data. Put back what it began with, or start a new run: "
            "autoprune search ... -o OTHER"
        )


def _where(given: str, path: str | None) -> str:
    """What the user gave, and the path that it stands for."""
    return given if path is None or path == given else f"{given}, {path}"
