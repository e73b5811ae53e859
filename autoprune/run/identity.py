"""What a search began with: hashes of weights and data, so that no front mixes those of two. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from autoprune.core.errors import AutopruneError
from autoprune.core.progress import Progress
from autoprune.run.folder import RunFolder
from autoprune.run.run_record import Identity
from autoprune.run.whereabouts import place_at_start


def weights_hash(state: Mapping[str, Any]) -> str:
    """SHA-256 over a model's tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def hold_to(run: RunFolder, now: Identity, progress: Progress) -> None:
    """Note what a new run begins with; hold one that is taken up to what it began with.

    A run of an older version, which noted nothing, goes on and is held to what is read now.

    Raises:
        AutopruneError: where the weights or the data are not those that the run began with.
    """
    before = run.about().inputs
    if before is None:
        if not run.is_new:
            progress.line(
                f"Run {run.path} does not say which weights and data it began with, as it is of an older "
                "version; those read now are noted"
            )
        run.note(inputs=now.model_copy(update={"run": str(run.path.absolute())}))
        return
    config = run.config()
    model = _where(config.model.name or "the demo's model", now.paths.get("model"))
    if config.model.weights is not None:
        model = _where(config.model.weights, now.paths.get("weights"))
    dataset = config.data.dataset or (config.task.name if ":" in config.task.name else "the demo's data")
    taught_by = now.paths.get("teacher_weights", now.paths.get("teacher"))
    pairs = [
        ("weights", model, before.weights, now.weights),
        ("weights of the head", model, before.head, now.head),
        ("data", _where(dataset, now.paths.get("dataset")), before.data, now.data),
        ("teacher", _where(config.training.teacher or "none", taught_by), *_teachers(before, now)),
    ]
    changed = [
        f"the {what} ({where}: SHA-256 {old[:12]} then, {new[:12]} now)"
        for what, where, old, new in pairs
        if old is not None and new is not None and old != new
    ]
    if before.importance != now.importance:
        raise AutopruneError(
            f"run {run.path} began with importance {before.importance or 'obs'}, and its space file now says "
            f"{now.importance or 'obs'}. Trials of one run must lose rows by the same: put the space file "
            "back, or start a new run: autoprune search ... -o OTHER"
        )
    if changed:
        raise AutopruneError(
            f"run {run.path} began with other inputs than are there now; changed: {' and '.join(changed)}. "
            "Trials of one run must share weights and data. Put back what it began with, or start a new run: "
            "autoprune search ... -o OTHER"
        )
    more: dict[str, object] = {}
    if now.commits and not before.commits:  # the same weights and data, so these are theirs
        more["commits"] = now.commits
    if not before.run and (place := place_at_start(run.about())) is not None:  # before it is written over
        more["run"] = str(place)
    if more:
        run.note(inputs=before.model_copy(update=more))


def _teachers(before: Identity, now: Identity) -> tuple[str | None, str | None]:
    """The hashes of another teacher's weights; nothing to compare where neither has one."""
    if before.teacher == now.teacher:
        return None, None
    return before.teacher or "none", now.teacher or "none"


def _where(given: str, path: str | None) -> str:
    """What the user gave, and the path that it stands for."""
    return given if path is None or path == given else f"{given}, {path}"
