"""A task as arrays: rows, batches of them, where a model's answers are, and what they should be. No torch.

Shapes: n rows (examples), t tokens of all rows end to end, b rows of a batch, s its longest row, m answered
places of a batch: one a row, or its labelled tokens, or of a language model every token but the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from autoprune.core.references import given
from autoprune.tasks.answers import Answers
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.kinds import TEXT_CLASSIFICATION, TaskKind
from autoprune.tasks.metrics import ACCURACY, Metric

Batch = dict[str, NDArray[Any]]
"""Model inputs by name: token ids and masks [b s], pixels [b c h w] float32."""

PAD_TO = 8
"""Sequences are padded to a multiple of this, so that a runtime meets few shapes."""

NO_LABEL = -100
"""Of a token that has no class of its own: a special one, or not the first of a word."""


@dataclass(frozen=True)
class Encoded:
    """Rows as tokens: ids and segment types end to end [t], where each row starts [n + 1].

    labels: a row's class or number [n], or a token's class [t]; of no meaning where there are none.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.uint8]
    starts: NDArray[np.int64]
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every array by its name, as files keep them."""
        return {"ids": self.ids, "types": self.types, "starts": self.starts, "labels": self.labels}

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row [n]."""
        return np.diff(self.starts)

    def first(self, count: int) -> Encoded:
        """The first `count` rows."""
        return self.pick(np.arange(count))

    def pick(self, rows: NDArray[np.int64]) -> Encoded:
        """Some rows, in the order given."""
        spans = [np.arange(self.starts[row], self.starts[row + 1]) for row in rows]
        tokens = np.concatenate(spans) if spans else np.arange(0)
        starts = np.concatenate([[0], np.cumsum(self.lengths[rows])]).astype(np.int64)
        labels = self.labels[tokens if len(self.labels) == len(self.ids) != len(self) else rows]
        return Encoded(self.ids[tokens], self.types[tokens], starts, labels)


@dataclass(frozen=True)
class Arrays:
    """Rows of fixed shape: a model's inputs by name [n ...] and labels [n]; pictures, or one's own."""

    inputs: Mapping[str, NDArray[Any] | ByteImages]
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every array by its name, as files keep them."""
        arrays = {"labels": self.labels}
        for name, values in self.inputs.items():
            if isinstance(values, ByteImages):
                arrays |= {f"input.{name}": values.bytes, f"numbers.{name}": values.numbers}
            else:
                arrays[f"input.{name}"] = values
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Inverse of `arrays`."""
        inputs: dict[str, NDArray[Any] | ByteImages] = {}
        for name in (key.removeprefix("input.") for key in arrays if key.startswith("input.")):
            values, numbers = arrays[f"input.{name}"], arrays.get(f"numbers.{name}")
            inputs[name] = values if numbers is None else ByteImages(values, numbers)
        return cls(inputs, arrays["labels"])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """1 for each row [n]: all are as long."""
        return np.ones(len(self), np.int64)

    def first(self, count: int) -> Arrays:
        """The first `count` rows."""
        return self.pick(np.arange(count))

    def pick(self, rows: NDArray[np.int64]) -> Arrays:
        """Some rows, in the order given."""
        inputs = {
            name: values.pick(rows) if isinstance(values, ByteImages) else values[rows]
            for name, values in self.inputs.items()
        }
        return Arrays(inputs, self.labels[rows])


def layout(batch: Batch) -> list[object]:
    """Names, types and shapes of a batch's inputs, but for its number of rows: what a graph is traced for."""
    return [[name, str(values.dtype), list(values.shape[1:])] for name, values in batch.items()]


Data = Encoded | Arrays
"""Rows of a split."""


def with_label_order(data: Data, order: Sequence[int]) -> Data:
    """The same rows with class k as `order[k]`; what has no class of its own stays so."""
    known = data.labels >= 0
    numbered = np.asarray(order, np.int64)[np.where(known, data.labels, 0)]
    return replace(data, labels=np.where(known, numbered, data.labels))


@dataclass(frozen=True)
class Task:
    """Three splits of encoded rows, and how a batch of them is made and its answers are read.

    label_names: of the classes; none where answers are no classes. own: for a task of the user's own the
    function that describes it (see `custom`).
    """

    train: Data
    validation: Data
    test: Data
    label_names: tuple[str, ...]
    inputs: tuple[str, ...]
    pad_id: int
    kind: TaskKind = TEXT_CLASSIFICATION
    metric: Metric = ACCURACY
    own: str | None = None

    @property
    def is_probable(self) -> bool:
        """Whether answers are logits of classes; else they are vectors or numbers."""
        if self.kind.is_own:
            return bool(self.label_names)
        return self.kind.predicts_classes or self.kind.predicts_next_token

    @property
    def has_labels(self) -> bool:
        """Whether there is something to learn beside the teacher's answers."""
        return self.kind.has_labels

    @property
    def evaluation_batch(self) -> int:
        """Rows of a batch where nothing is trained; few where each token has a vocabulary of answers."""
        return 4 if self.kind.predicts_next_token else 32

    @property
    def example_rows(self) -> list[int]:
        """Two rows to trace a model with; or the only one."""
        return [0, min(1, len(self.validation) - 1)]

    def digest(self) -> str:
        """SHA-256 over the task's data: kind, inputs, and each array of each split.

        The names of classes and the metric are left out: they change no answer and no gradient.
        """
        digest = hashlib.sha256(f"{self.kind} {self.inputs} {self.pad_id}".encode())
        for split in (self.train, self.validation, self.test):
            for name, array in split.arrays().items():
                digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
                raw: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                digest.update(raw)
        return digest.hexdigest()

    # ---- batches --------------------------------------------------------------------------------

    def batch(self, data: Data, rows: Sequence[int] | NDArray[np.int64]) -> Batch:
        """The given rows; tokens padded on the right to the longest."""
        if isinstance(data, Arrays):
            return {name: data.inputs[name][rows] for name in self.inputs}
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

    def sorted_batches(self, data: Data, size: int) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """All rows once, rows of like length together; yields their numbers and the batch."""
        order = np.argsort(data.lengths, kind="stable")
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield rows, self.batch(data, rows)

    def random_rows(
        self, data: Data, size: int, steps: int, rng: np.random.Generator
    ) -> Iterator[NDArray[np.int64]]:
        """The rows of `steps` batches, shuffled, each row once an epoch.

        Eight batches at a time are shuffled rows sorted by length, which saves about a third of
        the padding and leaves the batches of an epoch in random order.
        """
        yielded = 0
        while yielded < steps:
            order = rng.permutation(len(data))
            pool = size * 8
            chunks = [self._by_length(data, order[k : k + pool]) for k in range(0, len(order), pool)]
            batches = [c[k : k + size] for c in chunks for k in range(0, len(c), size)]
            for k in rng.permutation(len(batches))[: steps - yielded]:
                yield batches[k]
                yielded += 1

    @staticmethod
    def _by_length(data: Data, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows in order of length, equal ones in order of number."""
        ordered = np.sort(rows)
        return ordered[np.argsort(data.lengths[ordered], kind="stable")]

    def timing_batch(self, batch: int, sequence: int) -> Batch:
        """A full batch of real rows for timing: tokens [batch sequence] without padding, or pictures.

        Of a language model one token more after `sequence` others, as it writes: the caller's runner makes
        up what came before from `past_tokens`.
        """
        data = self.validation
        if isinstance(data, Arrays):
            return self.batch(data, np.resize(np.arange(len(data)), batch))
        if self.kind.predicts_next_token:
            ids = np.resize(data.ids.astype(np.int64), (batch, 1))
            return {"input_ids": ids, "past_tokens": np.array(sequence)}
        ids = np.resize(data.ids.astype(np.int64), (batch, sequence))
        known = {
            "input_ids": ids,
            "token_type_ids": np.zeros_like(ids),
            "attention_mask": np.ones_like(ids),
        }
        return {name: known[name] for name in self.inputs}

    # ---- answers --------------------------------------------------------------------------------

    def answered(
        self, data: Data, rows: Sequence[int] | NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Which row of a batch and which token of it each answer is at [m]; None: each row has one."""
        if not self.kind.answers_each_token or not isinstance(data, Encoded):
            return None
        spots = [self._spots(data, int(row)) for row in rows]
        counts = [len(spot) for spot in spots]
        return np.repeat(np.arange(len(spots)), counts), np.concatenate(spots)

    def _spots(self, data: Encoded, row: int) -> NDArray[np.int64]:
        """Tokens of a row at which the model answers."""
        start, end = data.starts[row], data.starts[row + 1]
        if self.kind.predicts_next_token:
            return np.arange(end - start - 1)
        return np.flatnonzero(data.labels[start:end] != NO_LABEL)

    def labels(self, data: Data, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """What should be answered at each place [m]."""
        if not self.kind.answers_each_token or not isinstance(data, Encoded):
            return np.asarray(data.labels[rows])
        wanted, shift = (data.ids, 1) if self.kind.predicts_next_token else (data.labels, 0)
        return np.concatenate(
            [wanted[data.starts[row] + self._spots(data, int(row)) + shift] for row in rows]
        ).astype(np.int64)

    def answer_starts(self, data: Data) -> NDArray[np.int64]:
        """Where each row's answers start among those of all rows in order [n + 1]."""
        if not self.kind.answers_each_token or not isinstance(data, Encoded):
            return np.arange(len(data) + 1)
        counts = [len(self._spots(data, row)) for row in range(len(data))]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def answer_count(self, data: Data) -> int:
        """Answers to all rows: what a metric of them is taken over, and its standard error of."""
        return int(self.answer_starts(data)[-1])

    def score(self, data: Data, values: NDArray[np.float32], teacher: Answers | None = None) -> float:
        """The metric of answers [m k] to all rows in order, 0 to 100, larger is better."""
        labels = self.labels(data, np.arange(len(data)))
        if self.own is not None:
            return float(given(self.own, what="task")["metric"](values, labels))
        return self.metric.score_answers(values, labels, teacher)
