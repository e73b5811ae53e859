"""Texts and pictures -> the arrays of a task: tokens, windows of text, tags of words, pixels. No torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from autoprune.core.cache import content_key
from autoprune.core.errors import AutopruneError
from autoprune.core.memory import available_bytes
from autoprune.tasks.data.rows import Rows
from autoprune.tasks.data.splits import Splits
from autoprune.tasks.kinds import IMAGE_CLASSIFICATION, TEXT_CLASSIFICATION, TaskKind
from autoprune.tasks.metrics import Metric
from autoprune.tasks.task import NO_LABEL, Arrays, Encoded, Task

SAID_FROM = 250_000_000
"""Bytes of decoded pictures from which it is said what they take, before they are decoded."""

_log = logging.getLogger(__name__)


def encode(
    splits: Splits,
    tokenizer: Any,
    *,
    max_length: int,
    kind: TaskKind = TEXT_CLASSIFICATION,
    metric: Metric | None = None,
) -> Task:
    """Tokenise all splits; rows are cut at `max_length` tokens, and text to be continued into such pieces."""
    names = [n for n in tokenizer.model_input_names if n in _KNOWN_INPUTS]
    parts = (splits.train, splits.validation, splits.test)
    train, validation, test = (encode_rows(rows, tokenizer, max_length, kind) for rows in parts)
    return Task(
        train,
        validation,
        test,
        label_names=splits.label_names,
        inputs=kind.token_inputs(names),
        pad_id=int(tokenizer.pad_token_id or 0),
        kind=kind,
        metric=metric or kind.usual_metric,
    )


_KNOWN_INPUTS = ("input_ids", "token_type_ids", "attention_mask")


def encode_rows(rows: Rows, tokenizer: Any, max_length: int, kind: TaskKind) -> Encoded:
    """Rows of one split as tokens, cut at `max_length` or at what the tokenizer's model takes."""
    max_length = min(max_length, int(tokenizer.model_max_length))
    if kind.predicts_next_token:
        return _windows(rows, tokenizer, max_length)
    if kind.reads_words:
        return _by_word(rows, tokenizer, max_length)
    columns = [list(column) for column in rows.texts]
    out = tokenizer(*columns, truncation=True, max_length=max_length, return_token_type_ids=True)
    labels = rows.labels if kind.has_labels else [0] * len(columns[0])
    return _joined(out["input_ids"], out["token_type_ids"], _labels(labels, kind))


def _labels(labels: Sequence[Any], kind: TaskKind) -> NDArray[Any]:
    """A number or the number of a class for each row [n]."""
    return np.asarray(labels, np.float32 if kind.predicts_number else np.int64)


def _joined(ids: Sequence[Any], types: Sequence[Any], labels: NDArray[Any]) -> Encoded:
    starts = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    return Encoded(
        np.concatenate([np.asarray(row, np.int32) for row in ids]),
        np.concatenate([np.asarray(row, np.uint8) for row in types]),
        starts,
        labels,
    )


def _windows(rows: Rows, tokenizer: Any, size: int) -> Encoded:
    """Join documents, each with an end token, and cut windows of `size` tokens; the rest is dropped."""
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    every: list[int] = []
    for ids in tokenizer(list(rows.texts[0]), add_special_tokens=False)["input_ids"]:
        every += [*ids, *end]
    count = max(1, len(every) // size)
    pieces = [every[k * size : (k + 1) * size] for k in range(count)]
    return _joined(pieces, [[0] * len(piece) for piece in pieces], np.zeros(count, np.int64))


def _by_word(rows: Rows, tokenizer: Any, max_length: int) -> Encoded:
    """Words cut into tokens; the first token of each has its class, the others none."""
    words = [list(row) for row in rows.texts[0]]
    out = tokenizer(
        words, is_split_into_words=True, truncation=True, max_length=max_length, return_token_type_ids=True
    )
    labels = []
    for row, tags in enumerate(cast(Sequence[Sequence[int]], rows.labels)):
        before = None
        for word in out.word_ids(row):
            labels.append(NO_LABEL if word is None or word == before else tags[word])
            before = word
    return _joined(out["input_ids"], out["token_type_ids"], np.asarray(labels, np.int64))


def pictures(
    splits: Splits, prepare: Any, *, kind: TaskKind = IMAGE_CLASSIFICATION, metric: Metric | None = None
) -> Task:
    """Images of all splits.

    Args:
        prepare: gives what a model takes of images [h w 3], as many: float32 [n c h w], or the same as
            `ByteImages`. Its `shape` [c h w], where it has one, tells what they take.

    Raises:
        AutopruneError: when they do not fit into memory, or some cannot be read.
    """
    parts = (splits.train, splits.validation, splits.test)
    if shape := getattr(prepare, "shape", None):
        _check_memory(sum(map(len, parts)), shape)
    train, validation, test = (
        Arrays({"pixel_values": prepare(rows.images)}, _labels(rows.labels, kind)) for rows in parts
    )
    return Task(
        train,
        validation,
        test,
        label_names=splits.label_names,
        inputs=("pixel_values",),
        pad_id=0,
        kind=kind,
        metric=metric or kind.usual_metric,
    )


def _check_memory(count: int, shape: Sequence[int]) -> None:
    """Raise `AutopruneError` where so many pictures of a shape would fill the memory that is free."""
    needed, free = count * int(np.prod(shape)), available_bytes()
    size = " x ".join(map(str, shape))
    if needed > SAID_FROM:
        _log.warning("%d pictures of %s bytes are decoded; they take %.2f GB", count, size, needed / 1e9)
    if free is not None and needed > free:
        raise AutopruneError(
            f"{count} pictures of {size} bytes take {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB "
            "are free. Read fewer (--limit-rows), or smaller ones (--image-size)."
        )


def encoded_hash(task: Task, *, data_hash: str, pixels: Any = None) -> str:
    """A hash of a model's inputs and labels: equal on every machine for equal arrays, else different.

    Of texts and of a user's own task it is over the encoded arrays, so a tokenizer counts as what it does.
    Pictures' arrays are left out: a decoder's last digit may depend on the processor. So theirs is over the
    pictures as they were read (`data_hash` has each picture, label and the order) and every setting that
    makes the arrays of them.

    Args:
        data_hash: of the rows as they were read.
        pixels: how pictures are made inputs, a `Pixels`; None of other tasks.
    """
    if pixels is None:
        return task.digest()
    version, settings = pixels.key_parts
    return content_key(version, task.kind, task.inputs, data_hash, settings)
