"""What is said of data without a search: rows, classes, repeats, leaks, outliers and doubted labels.

A record is plain data, the same that `--json` prints. Rows are named by the table and the number that they
have in the source, the first being 0.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.core.progress import Progress
from autoprune.run.config import Config
from autoprune.tasks.data.image_folders import has_class_folders
from autoprune.tasks.data.near_duplicates import LIKENESS
from autoprune.tasks.data.repeats import Repeats, Spot, class_counts, find_repeats
from autoprune.tasks.data.source import SPLITS
from autoprune.tasks.data.splits import Splits, demo_splits, read_splits
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION, KINDS, TEXT_CLASSIFICATION, TaskKind
from autoprune.tasks.label_doubts import Doubt, doubted_of, standardised, text_features
from autoprune.tasks.outliers import neighbour_distances, outliers


def data_record(config: Config, *, has_model: bool, progress: Progress | None = None) -> dict[str, Any]:
    """The record of the data that a config names.

    Args:
        has_model: whether the model is asked what it thinks of the rows.

    Raises:
        AutopruneError: where data or model cannot be read, or do not fit.
    """
    progress = progress or Progress()
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name] = round(time.perf_counter() - clock, 2)
        clock = time.perf_counter()

    vectors = None
    if has_model:
        rows, kind, vectors = _with_model(config, progress)
    else:
        kind = _kind(config)
        is_demo = config.data.dataset is None
        rows = demo_splits() if is_demo else read_splits(config.data, kind, seed=config.search.seed)
    lap("read and embed" if has_model else "read")
    repeats = find_repeats(rows)
    lap("repeats")
    record = _of_rows(rows, kind, config.search.seed) | _of_repeats(repeats, kind, rows.label_names)
    if vectors is not None:
        distances = neighbour_distances(vectors, seed=config.search.seed)
        record["outliers"] = [
            _row(repeats.spots[k]) | {"score": round(score, 2)} for k, score in outliers(distances)
        ]
        lap("outliers")
    doubts = _doubts(rows, kind, repeats.spots, vectors, seed=config.search.seed)
    if doubts is not None:
        record["doubted_labels"] = [_doubt(doubt, repeats.spots, rows.label_names) for doubt in doubts]
        record["judged_by"] = "the model's embedding" if has_model else "tf-idf of its words"
        lap("labels")
    return record | {"seconds": seconds}


def _kind(config: Config) -> TaskKind:
    """The kind of task that is asked for; pictures where the data are a folder of class folders."""
    known = {kind.name: kind for kind in KINDS}
    if config.task.name in known:
        return known[config.task.name]
    if config.task.name != "auto":
        raise AutopruneError(
            f"--task {config.task.name!r}: its rows cannot be looked at; allowed are auto, {', '.join(known)}"
        )
    path = Path(config.data.dataset or "")
    if config.data.image_column or (config.data.dataset and path.is_dir() and has_class_folders(path)):
        return IMAGE_CLASSIFICATION
    return TEXT_CLASSIFICATION


def _with_model(config: Config, progress: Progress) -> tuple[Splits, TaskKind, NDArray[np.float32] | None]:
    """Rows, the kind of task, and the model's vectors [n d] of all rows; None of text to be continued."""
    import transformers

    from autoprune.pipeline.data_doubts import embedding
    from autoprune.pipeline.held_together import held_together
    from autoprune.pipeline.hub_commits import with_commits
    from autoprune.pipeline.named import kind_asked_for, metric_of, read_named

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    config = with_commits(config)
    kind = kind_asked_for(config)
    if kind.is_own:
        _kind(config)  # raises
    rows, loaded, task = read_named(config, kind, metric_of(config, kind))
    held_together(config, loaded, task)
    if kind.predicts_next_token:
        return rows, kind, None
    return rows, kind, np.concatenate([embedding(loaded, task, split, progress) for split in SPLITS])


def _of_rows(rows: Splits, kind: TaskKind, seed: int) -> dict[str, Any]:
    counts = rows.counts
    classes = class_counts(rows)
    return {
        "what": "data",
        "dataset": rows.name,
        "task": kind.name,
        "input": kind.reading.what,
        "seed": seed,
        "rows": {split: len(getattr(rows, split)) for split in SPLITS},
        "read": counts.read,
        "left_out": dict(counts.left_out),
        "notes": list(rows.notes),
        "classes": classes,
        "commonest_class": _commonest(classes),
    }


def _commonest(classes: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The class that most rows are of, and what percent of all they are."""
    counts = {row["name"]: sum(row[split] for split in SPLITS) for row in classes}
    if not counts:
        return None
    name = max(counts, key=lambda key: counts[key])
    return {"name": name, "percent": round(100 * counts[name] / max(1, sum(counts.values())), 2)}


def _of_repeats(repeats: Repeats, kind: TaskKind, names: Sequence[str]) -> dict[str, Any]:
    spots = repeats.spots
    has_classes = bool(names)
    contradictions = repeats.contradictions() if has_classes else []

    def told(group: Sequence[int]) -> list[dict[str, Any]]:
        return [_row(spots[k], names) for k in group]

    leaks = {}
    for split in SPLITS[1:]:
        same, near = repeats.leaks(split)
        near = sorted(set(near) - set(same))
        leaks[split] = {"same": [_row(spots[k]) for k in same], "near": [_row(spots[k]) for k in near]}
    return {
        "repeated_rows": repeats.repeated,
        "same": [told(group) for group in repeats.same],
        "near": [told(group) for group in repeats.near],
        "near_rows": sum(repeats.near_keys(group) - 1 for group in repeats.near),
        "near_from": "perceptual hash" if kind.reads_images else LIKENESS,
        "contradictions": [told(group) for group in contradictions],
        "leaks": leaks,
    }


def _doubts(
    rows: Splits,
    kind: TaskKind,
    spots: Sequence[Spot],
    vectors: NDArray[np.float32] | None,
    *,
    seed: int,
) -> list[Doubt] | None:
    """Labels that are doubted, by the model's vectors or else by words; None where neither can tell."""
    if not kind.predicts_classes or kind.answers_each_token or (vectors is None and kind.reads_images):
        return None
    keys, labels = [spot.key for spot in spots], [spot.label for spot in spots]
    features = text_features(keys) if vectors is None else standardised(vectors)
    return doubted_of(features, labels, keys, len(rows.label_names), seed=seed)


def _doubt(doubt: Doubt, spots: Sequence[Spot], names: Sequence[str]) -> dict[str, Any]:
    return _row(spots[doubt.row], names) | {
        "likelier": names[doubt.likelier],
        "confidence": round(doubt.confidence, 3),
        "likelier_confidence": round(doubt.likelier_confidence, 3),
    }


def _row(spot: Spot, names: Sequence[str] = ()) -> dict[str, Any]:
    """A row as records have it."""
    row = {"split": spot.split, "table": spot.place.table, "row": spot.place.row, "shown": spot.shown}
    return row | {"label": names[spot.label]} if names and isinstance(spot.label, int) else row
