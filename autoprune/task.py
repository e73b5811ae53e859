"""A task as arrays: rows, batches of them, where a model's answers are, and what they should be. No torch.

Shapes: n rows (examples), t tokens of all rows end to end, b rows of a batch, s its longest row, m answered
places of a batch: one a row, or its labelled tokens, or of a language model every token but the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from autoprune.answers import Answers
from autoprune.data import Rows, Splits
from autoprune.kinds import BY_PLACE, CAUSAL_LM, CLASSES, EMBEDDING, IMAGES, METRICS, OWN, REGRESSION, TOKENS
from autoprune.named import given
from autoprune.scores import score

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

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """1 for each row [n]: all are as long."""
        return np.ones(len(self), np.int64)

    def first(self, count: int) -> Arrays:
        """The first `count` rows."""
        return self.pick(np.arange(count))

    def pick(self, rows: NDArray[np.int64]) -> Arrays:
        """Some rows, in the order given."""
        return Arrays({name: one[rows] for name, one in self.inputs.items()}, self.labels[rows])


Data = Encoded | Arrays
"""Rows of a split."""


@dataclass(frozen=True)
class Task:
    """Three splits of encoded rows, and how a batch of them is made and its answers are read.

    label_names: of the classes; none where answers are no classes. metric: a name of `kinds.METRICS`.
    own: for a task of the user's own the function that describes it (see `own`).
    """

    train: Any
    validation: Any
    test: Any
    label_names: tuple[str, ...]
    inputs: tuple[str, ...]
    pad_id: int
    kind: str = CLASSES
    metric: str = "accuracy"
    own: str | None = None

    @property
    def is_probable(self) -> bool:
        """Whether answers are logits of classes; else they are vectors or numbers."""
        if self.kind == OWN:
            return bool(self.label_names)
        return self.kind not in (REGRESSION, EMBEDDING)

    @property
    def has_labels(self) -> bool:
        """Whether there is something to learn beside the teacher's answers."""
        return self.kind != EMBEDDING

    @property
    def evaluation_batch(self) -> int:
        """Rows of a batch where nothing is trained; few where each token has a vocabulary of answers."""
        return 4 if self.kind == CAUSAL_LM else 32

    @property
    def example_rows(self) -> list[int]:
        """Two rows to trace a model with; or the only one."""
        return [0, min(1, len(self.validation) - 1)]

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

    def random_batches(
        self, data: Data, size: int, steps: int, rng: np.random.Generator
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
        if self.kind == CAUSAL_LM:
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
        if self.kind not in BY_PLACE or not isinstance(data, Encoded):
            return None
        spots = [self._spots(data, int(row)) for row in rows]
        counts = [len(one) for one in spots]
        return np.repeat(np.arange(len(spots)), counts), np.concatenate(spots)

    def _spots(self, data: Encoded, row: int) -> NDArray[np.int64]:
        """Tokens of a row at which the model answers."""
        start, end = data.starts[row], data.starts[row + 1]
        if self.kind == CAUSAL_LM:
            return np.arange(end - start - 1)
        return np.flatnonzero(data.labels[start:end] != NO_LABEL)

    def labels(self, data: Data, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        """What should be answered at each place [m]."""
        if self.kind not in BY_PLACE or not isinstance(data, Encoded):
            return np.asarray(data.labels[rows])
        wanted, shift = (data.ids, 1) if self.kind == CAUSAL_LM else (data.labels, 0)
        return np.concatenate(
            [wanted[data.starts[row] + self._spots(data, int(row)) + shift] for row in rows]
        ).astype(np.int64)

    def answer_starts(self, data: Data) -> NDArray[np.int64]:
        """Where each row's answers start among those of all rows in order [n + 1]."""
        if self.kind not in BY_PLACE or not isinstance(data, Encoded):
            return np.arange(len(data) + 1)
        counts = [len(self._spots(data, row)) for row in range(len(data))]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def score(self, data: Data, values: NDArray[np.float32], teacher: Answers | None = None) -> float:
        """The metric of answers [m k] to all rows in order, 0 to 100, larger is better."""
        labels = self.labels(data, np.arange(len(data)))
        if self.own is not None:
            return score(given(self.own, what="task")["metric"], values, labels)
        return score(self.metric, values, labels, teacher)


def encode(splits: Splits, tokenizer: Any, *, max_length: int, kind: str = CLASSES, metric: str = "") -> Task:
    """Tokenise all splits; rows are cut at `max_length` tokens, and text to be continued into such pieces."""
    names = [n for n in tokenizer.model_input_names if n in _KNOWN_INPUTS]
    limit = min(max_length, int(tokenizer.model_max_length))
    parts: dict[str, Any] = {
        name: _encode(getattr(splits, name), tokenizer, limit, kind)
        for name in ("train", "validation", "test")
    }
    return Task(
        **parts,
        label_names=splits.label_names,
        # What is padded comes after what is answered, and a token sees none that comes after it.
        inputs=("input_ids",) if kind == CAUSAL_LM else tuple(names),
        pad_id=int(tokenizer.pad_token_id or 0),
        kind=kind,
        metric=metric or METRICS[kind][0],
    )


_KNOWN_INPUTS = ("input_ids", "token_type_ids", "attention_mask")


def _encode(rows: Rows, tokenizer: Any, max_length: int, kind: str) -> Encoded:
    if kind == CAUSAL_LM:
        return _windows(rows, tokenizer, max_length)
    if kind == TOKENS:
        return _by_word(rows, tokenizer, max_length)
    columns = [list(column) for column in rows.texts]
    out = tokenizer(*columns, truncation=True, max_length=max_length, return_token_type_ids=True)
    labels = rows.labels if kind != EMBEDDING else [0] * len(columns[0])
    number = np.float32 if kind == REGRESSION else np.int64
    return _joined(out["input_ids"], out["token_type_ids"], np.asarray(labels, number))


def _joined(ids: Sequence[Any], types: Sequence[Any], labels: NDArray[Any]) -> Encoded:
    starts = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    return Encoded(
        np.concatenate([np.asarray(one, np.int32) for one in ids]),
        np.concatenate([np.asarray(one, np.uint8) for one in types]),
        starts,
        labels,
    )


def _windows(rows: Rows, tokenizer: Any, size: int) -> Encoded:
    """Documents end to end in windows of `size` tokens, each document ended; what is left over is dropped."""
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    every: list[int] = []
    for ids in tokenizer(list(rows.texts[0]), add_special_tokens=False)["input_ids"]:
        every += [*ids, *end]
    count = max(1, len(every) // size)
    pieces = [every[k * size : (k + 1) * size] for k in range(count)]
    return _joined(pieces, [[0] * len(one) for one in pieces], np.zeros(count, np.int64))


def _by_word(rows: Rows, tokenizer: Any, max_length: int) -> Encoded:
    """Words cut into tokens; the first token of each has its class, the others none."""
    words = [list(one) for one in rows.texts[0]]
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


def pictures(splits: Splits, prepare: Any, *, metric: str = "") -> Task:
    """Image classification: `prepare` gives pixels [n c h w] float32 of pictures [h w 3]."""
    parts: dict[str, Any] = {}
    for name in ("train", "validation", "test"):
        rows: Any = getattr(splits, name)
        parts[name] = Arrays({"pixel_values": prepare(rows.images)}, np.asarray(rows.labels, np.int64))
    return Task(
        **parts,
        label_names=splits.label_names,
        inputs=("pixel_values",),
        pad_id=0,
        kind=IMAGES,
        metric=metric or METRICS[IMAGES][0],
    )
