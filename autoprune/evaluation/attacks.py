"""Test rows made hard for one model, within what a person would hardly see.

Pictures: the fast gradient sign method (Goodfellow et al., arXiv 1412.6572, section 4), in whole bytes.
Texts: words swapped greedily, the most important first, as TextFooler does (Jin et al., arXiv 1907.11932,
algorithm 1) but for its source of words: a word gives way to one of the nearest in the original's own
embedding, and no other model judges whether the sense stays. Such words may be opposites, so that a swap may
change what is right.

Shapes: n rows, b of a batch, c channels, h w height and width, v vocabulary, k outputs, t tokens of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.models.outputs import outputs_of
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.task import Arrays, Encoded, Task
from autoprune.tasks.word_tokens import WordTokens

STEP = 4
"""Bytes of 255 that a number of a picture is moved by: as ImageNet's attacks are usually measured at."""

NEIGHBOURS = 8
"""Words nearest to another that are tried in its place."""

SWAPPED_SHARE = 0.2
"""Share of the words of a row that are swapped at most; one at least."""


def fast_gradient_sign(model: nn.Module, task: Task, data: Arrays) -> Arrays:
    """Pictures moved by `STEP` bytes along the sign of the gradient of the loss of their labels.

    Args:
        model: in torch, on the CPU; a step where its inputs are rounded passes no gradient.
    """
    moved = {
        name: ByteImages(images.bytes.copy(), images.numbers)
        for name, images in data.inputs.items()
        if isinstance(images, ByteImages)
    }
    for rows in np.array_split(np.arange(len(data)), -(-len(data) // task.evaluation_batch)):
        inputs = {name: torch.from_numpy(x) for name, x in task.batch(data, rows).items()}
        for name in moved:
            inputs[name].requires_grad_(True)
        labels = torch.from_numpy(task.labels(data, rows))
        loss = nn.functional.cross_entropy(outputs_of(model, inputs, task.kind), labels, reduction="sum")
        gradients = torch.autograd.grad(loss, [inputs[name] for name in moved])
        for images, gradient in zip(moved.values(), gradients, strict=True):
            images.bytes[rows] = _stepped(images, rows, gradient)
    return replace(data, inputs={**data.inputs, **moved})


def _stepped(images: ByteImages, rows: NDArray[np.int64], gradient: Tensor) -> NDArray[np.uint8]:
    """Bytes [b c h w] a step along the sign of a gradient by the numbers that they stand for."""
    upwards = np.sign(images.numbers[:, -1] - images.numbers[:, 0])[:, None, None]
    step = STEP * np.sign(gradient.numpy()) * upwards
    stepped: NDArray[np.uint8] = np.clip(images.bytes[rows] + step, 0, 255).astype(np.uint8)
    return stepped


@dataclass(frozen=True)
class WordSwaps:
    """Swaps the words of rows; near: for each token that has any, the words that may stand for it."""

    model: nn.Module
    task: Task
    words: WordTokens
    near: dict[int, NDArray[np.int64]] = field(repr=False)

    @classmethod
    def of(
        cls, model: nn.Module, embedding: Tensor, task: Task, words: WordTokens, data: Encoded
    ) -> WordSwaps:
        """For the words of some rows.

        Args:
            model: that is attacked, in torch.
            embedding: the original's, of tokens [v d].
        """
        return cls(model, task, words, nearest_words(embedding, words, np.unique(data.ids)))

    def swapped(self, data: Encoded) -> Encoded:
        """The rows with some words swapped; rows that the model answers wrongly stay as they are."""
        ids = data.ids.copy()
        for row in range(len(data)):
            place = slice(int(data.starts[row]), int(data.starts[row + 1]))
            ids[place] = self._row(data.pick(np.array([row])))
        return replace(data, ids=ids)

    def _row(self, row: Encoded) -> NDArray[np.int32]:
        ids, label = row.ids.copy(), int(row.labels[0])
        places = [int(place) for place in self.words.places(ids) if int(ids[place]) in self.near]
        chances = self._chances(row, [ids])[0]
        if not places or int(chances.argmax()) != label:
            return ids
        shorter = [np.delete(ids, place) for place in places]
        types = [np.delete(row.types, place) for place in places]
        without = self._chances(row, shorter, types)[:, label]
        most = max(1, int(SWAPPED_SHARE * len(self.words.places(ids))))
        for place in [places[k] for k in np.argsort(without, kind="stable")[:most]]:
            tries = []
            for word in self.near[int(ids[place])]:
                tried = ids.copy()
                tried[place] = word
                tries.append(tried)
            found = self._chances(row, tries)
            best = int(found[:, label].argmin())
            if found[best, label] >= chances[label]:
                continue
            ids, chances = tries[best], found[best]
            if int(chances.argmax()) != label:
                break
        return ids

    def _chances(
        self,
        row: Encoded,
        variants: Sequence[NDArray[np.int32]],
        types: Sequence[NDArray[np.uint8]] | None = None,
    ) -> NDArray[np.float64]:
        """Probabilities [b k] of the classes of one row with other tokens; types: None are the row's."""
        types = types or [row.types] * len(variants)
        starts = np.concatenate([[0], np.cumsum([len(ids) for ids in variants])]).astype(np.int64)
        labels = np.repeat(row.labels, len(variants))
        data = Encoded(np.concatenate(variants), np.concatenate(types), starts, labels)
        batch = self.task.batch(data, np.arange(len(variants)))
        inputs = {name: torch.from_numpy(x) for name, x in batch.items()}
        with torch.inference_mode():
            answers = outputs_of(self.model, inputs, self.task.kind)
        chances: NDArray[np.float64] = answers.double().softmax(-1).numpy()
        return chances


def nearest_words(
    embedding: Tensor, words: WordTokens, ids: NDArray[np.int32]
) -> dict[int, NDArray[np.int64]]:
    """The `NEIGHBOURS` words nearest by cosine to each token of `ids` that is a word, but in another case."""
    known = np.flatnonzero(words.words[: len(embedding)])
    table = nn.functional.normalize(embedding.detach()[torch.from_numpy(known)].float(), dim=-1)
    near: dict[int, NDArray[np.int64]] = {}
    of_word = {int(token): k for k, token in enumerate(known)}
    for token in (int(token) for token in ids if int(token) in of_word):
        closeness = (table @ table[of_word[token]]).numpy()
        order = known[np.argsort(-closeness, kind="stable")[: 4 * NEIGHBOURS]]
        others = order[words.same[order] != words.same[token]]
        if len(others):
            near[token] = others[:NEIGHBOURS].astype(np.int64)
    return near
