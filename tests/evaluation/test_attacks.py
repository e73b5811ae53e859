"""Attacks: within their bounds, against the model that they are made for, and leaving what they came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.evaluation.attacks import (
    NEIGHBOURS,
    STEP,
    SWAPPED_SHARE,
    WordSwaps,
    fast_gradient_sign,
    nearest_words,
)
from autoprune.evaluation.measure import logits_of
from autoprune.targets.packed import torch_runner
from autoprune.tasks import kinds
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.task import Arrays, Encoded, Task
from autoprune.tasks.word_tokens import WordTokens
from tests.support.tiny import Tiny


class Linear(nn.Module):
    """Logits that are linear in the pixels: the attack's closed form is known."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1) @ self.weight.T


def pictures(numbers: NDArray[np.float32]) -> Task:
    random = np.random.default_rng(0)
    images = ByteImages(random.integers(0, 256, (40, 1, 4, 4)).astype(np.uint8), numbers)
    data = Arrays({"pixel_values": images}, random.integers(0, 2, 40))
    return Task(data, data, data, ("a", "b"), ("pixel_values",), 0, kind=kinds.IMAGE_CLASSIFICATION)


@pytest.mark.parametrize("falls", [False, True])
def test_of_a_linear_model_each_byte_moves_a_step_against_the_label(falls: bool) -> None:
    numbers = np.linspace(*((1, -1) if falls else (-1, 1)), 256, dtype=np.float32)[None]
    task = pictures(numbers)
    assert isinstance(task.test, Arrays)
    weight = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    model = Linear(weight).eval()
    before = task.test.inputs["pixel_values"]
    assert isinstance(before, ByteImages)
    kept = before.bytes.copy()
    attacked = fast_gradient_sign(model, task, task.test)
    after = attacked.inputs["pixel_values"]
    assert isinstance(after, ByteImages)
    np.testing.assert_array_equal(before.bytes, kept)
    toward = np.sign((weight[1] - weight[0]).numpy()).reshape(1, 1, 4, 4) * (-1 if falls else 1)
    label = task.test.labels.reshape(-1, 1, 1, 1)
    wanted = np.clip(kept + STEP * toward * np.where(label == 0, 1, -1), 0, 255)
    np.testing.assert_array_equal(after.bytes, wanted)
    run = torch_runner(model, task.kind)
    assert task.score(attacked, logits_of(run, task, attacked)) <= task.score(
        task.test, logits_of(run, task, task.test)
    )


def all_words(size: int) -> WordTokens:
    return WordTokens(np.arange(size) > 2, np.ones(size, bool), np.arange(size))


def test_swapped_words_are_few_and_near_and_turn_answers(tiny_bert: Tiny) -> None:
    task, model = tiny_bert.task, tiny_bert.model
    looked_up: Any = model.get_input_embeddings()  # type: ignore[operator]
    embedding = looked_up.weight
    data = task.test
    assert isinstance(data, Encoded)
    run, words = torch_runner(model, task.kind), all_words(len(embedding))
    own = logits_of(run, task, data).argmax(1)  # so that all are right
    data = Encoded(data.ids, data.types, data.starts, own)
    swaps = WordSwaps.of(model, embedding, task, words, data)
    found = swaps.swapped(data)
    score = float((logits_of(run, task, found).argmax(1) == own).mean())
    assert score < 1.0
    for row in range(len(data)):
        place = slice(int(data.starts[row]), int(data.starts[row + 1]))
        ours, theirs = found.ids[place], data.ids[place]
        changed = np.flatnonzero(ours != theirs)
        assert len(changed) <= max(1, int(SWAPPED_SHARE * len(ours)))
        assert all(int(ours[k]) in swaps.near[int(theirs[k])] for k in changed)
    wrong = Encoded(data.ids, data.types, data.starts, (own + 1) % 3)
    np.testing.assert_array_equal(swaps.swapped(wrong).ids, data.ids)  # nothing to turn


def test_the_nearest_words_are_the_brute_force_ones_without_the_same_in_another_case() -> None:
    table = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    words = WordTokens(np.arange(50) >= 5, np.ones(50, bool), np.arange(50) // 2)
    near = nearest_words(table, words, np.array([1, 10, 20]))
    assert set(near) == {10, 20}
    unit = table / table.norm(dim=1, keepdim=True)
    for token, found in near.items():
        others = [k for k in range(5, 50) if k // 2 != token // 2]
        others.sort(key=lambda k, token=token: -float(unit[k] @ unit[token]))  # type: ignore[misc]
        assert found.tolist() == others[:NEIGHBOURS]


def test_words_of_byte_level_tokens_are_told_by_what_begins_them() -> None:
    found = WordTokens.of(["<s>", "Ġfilm", "ing", "Ġof", "Ġgreat", ","], [0])
    assert found.words.tolist() == [False, True, False, False, True, False]
    assert found.places(np.array([1, 2, 4, 5, 1, 0], np.int32)).tolist() == [2, 4]
