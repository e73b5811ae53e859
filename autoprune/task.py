"""A text-classification task as arrays: tokens, batches and the metric. No model, no torch.

Shapes: n rows (examples), t tokens of all rows end to end, b rows of a batch, s its longest row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.data import Rows, Splits

Batch = dict[str, NDArray[np.int64]]
"""Model inputs by name, each [b s]."""

PAD_TO = 8
"""Sequences are padded to a multiple of this, so that a runtime meets few shapes."""


@dataclass(frozen=True)
class Encoded:
    """Rows as tokens: ids and segment types end to end [t], where each row starts [n + 1]."""

    ids: NDArray[np.int32]
    types: NDArray[np.uint8]
    starts: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row [n]."""
        return np.diff(self.starts)

    def first(self, count: int) -> Encoded:
        """The first `count` rows."""
        end = self.starts[count]
        return Encoded(self.ids[:end], self.types[:end], self.starts[: count + 1], self.labels[:count])


@dataclass(frozen=True)
class Task:
    """Three splits of encoded rows, the label names, and how a batch of them is made."""

    train: Encoded
    validation: Encoded
    test: Encoded
    label_names: tuple[str, ...]
    inputs: tuple[str, ...]
    pad_id: int

    def batch(self, data: Encoded, rows: Sequence[int] | NDArray[np.int64]) -> Batch:
        """The given rows, padded on the right to their longest."""
        width = -(-int(data.lengths[rows].max()) // PAD_TO) * PAD_TO
        ids = np.full((len(rows), width), self.pad_id, np.int64)
        types, mask = np.zeros_like(ids), np.zeros_like(ids)
        for k, row in enumerate(rows):
            start, end = data.starts[row], data.starts[row + 1]
            ids[k, : end - start] = data.ids[start:end]
            types[k, : end - start] = data.types[start:end]
            mask[k, : end - start] = 1
        known = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        return {name: known[name] for name in self.inputs}

    def sorted_batches(self, data: Encoded, size: int) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """All rows once, rows of like length together; yields their numbers and the batch."""
        order = np.argsort(data.lengths, kind="stable")
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield rows, self.batch(data, rows)

    def random_batches(
        self, data: Encoded, size: int, steps: int, rng: np.random.Generator
    ) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """`steps` batches of shuffled rows, each row once an epoch.

        Eight batches at a time are shuffled rows sorted by length, which saves about a third of
        the padding and leaves the batches of an epoch in random order.
        """
        made = 0
        while made < steps:
            order = rng.permutation(len(data))
            pool = size * 8
            chunks = [self._by_length(data, order[k : k + pool]) for k in range(0, len(order), pool)]
            batches = [c[k : k + size] for c in chunks for k in range(0, len(c), size)]
            for k in rng.permutation(len(batches))[: steps - made]:
                yield batches[k], self.batch(data, batches[k])
                made += 1

    @staticmethod
    def _by_length(data: Encoded, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows in order of length, equal ones in order of number."""
        ordered = np.sort(rows)
        return ordered[np.argsort(data.lengths[ordered], kind="stable")]

    def timing_batch(self, batch: int, sequence: int) -> Batch:
        """A full batch of real tokens for timing, [batch sequence], no padding."""
        ids = np.resize(self.validation.ids.astype(np.int64), (batch, sequence))
        known = {
            "input_ids": ids,
            "token_type_ids": np.zeros_like(ids),
            "attention_mask": np.ones_like(ids),
        }
        return {name: known[name] for name in self.inputs}


def encode(splits: Splits, tokenizer: Any, *, max_length: int) -> Task:
    """Tokenise all splits; rows are cut at `max_length` tokens."""
    names = [n for n in tokenizer.model_input_names if n in _KNOWN_INPUTS]
    limit = min(max_length, int(tokenizer.model_max_length))
    return Task(
        train=_encode(splits.train, tokenizer, limit),
        validation=_encode(splits.validation, tokenizer, limit),
        test=_encode(splits.test, tokenizer, limit),
        label_names=splits.label_names,
        inputs=tuple(names),
        pad_id=int(tokenizer.pad_token_id or 0),
    )


_KNOWN_INPUTS = ("input_ids", "token_type_ids", "attention_mask")


def _encode(rows: Rows, tokenizer: Any, max_length: int) -> Encoded:
    columns = [list(column) for column in rows.texts]
    out = tokenizer(*columns, truncation=True, max_length=max_length, return_token_type_ids=True)
    ids = out["input_ids"]
    starts = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    return Encoded(
        np.concatenate([np.asarray(one, np.int32) for one in ids]),
        np.concatenate([np.asarray(one, np.uint8) for one in out["token_type_ids"]]),
        starts,
        np.asarray(rows.labels, np.int64),
    )


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Percent of rows whose largest logit [n k] is the label's [n]."""
    return 100.0 * float(np.mean(logits.argmax(-1) == labels))


def divergence(logits: NDArray[np.float32], teacher: NDArray[np.float32]) -> float:
    """Mean over rows of KL(teacher || model) of the classes' probabilities, nats."""
    p, q = _log_softmax(teacher), _log_softmax(logits)
    return float(np.mean(np.sum(np.exp(p) * (p - q), axis=-1)))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
