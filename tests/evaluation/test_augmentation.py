"""Light augmentation: what is changed, that the teacher answers what the student sees, and who is refused."""

from __future__ import annotations

import hypothesis.strategies as some
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from autoprune.core.errors import AutopruneError
from autoprune.evaluation.augmentation import HIDDEN, SHIFT, Augmenter, check_augmentable, hidden, moved
from autoprune.evaluation.distillation import Targets, distance
from autoprune.evaluation.finetune import Recipe, finetune
from autoprune.evaluation.lesson import Lesson
from autoprune.models.outputs import outputs_of
from autoprune.space.levels import Level
from autoprune.tasks.kinds import CAUSAL_LM, IMAGE_CLASSIFICATION, SENTENCE_EMBEDDING, TEXT_CLASSIFICATION
from tests.evaluation.test_finetune import sure_teacher
from tests.support.tiny import Tiny


@given(some.integers(8, 33), some.integers(8, 33), some.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_moved_picture_is_one_of_the_pictures_that_it_may_be(height: int, width: int, seed: int) -> None:
    picture = np.random.default_rng(seed).normal(size=(1, 2, height, width)).astype(np.float32)
    down, right = int(height * SHIFT), int(width * SHIFT)
    padded = np.pad(picture[0], ((0, 0), (down, down), (right, right)), mode="reflect")
    allowed = [
        padded[:, top : top + height, left : left + width][:, :, ::step]
        for top in range(2 * down + 1)
        for left in range(2 * right + 1)
        for step in (1, -1)
    ]
    before = picture.copy()
    out = moved(picture, np.random.default_rng(seed))
    assert any(np.array_equal(out[0], one) for one in allowed)
    assert np.array_equal(picture, before)


def test_a_tenth_of_the_inner_tokens_are_hidden_and_never_the_ends() -> None:
    mask = np.zeros((400, 40), np.int64)
    lengths = np.random.default_rng(0).integers(2, 41, 400)
    for row, length in zip(mask, lengths, strict=True):
        row[:length] = 1
    out = hidden(mask, np.random.default_rng(1))
    assert (out <= mask).all()
    assert (out[:, 0] == 1).all()
    assert (out[np.arange(400), lengths - 1] == 1).all()
    inner = int((lengths - 2).sum())
    assert abs((mask.sum() - out.sum()) / inner - HIDDEN) < 0.015


def test_the_teacher_agrees_with_itself_on_whatever_is_changed(tiny_bert: Tiny) -> None:
    task = tiny_bert.task
    augmenter = Augmenter(tiny_bert.model, task, np.random.default_rng(0))
    batch = task.batch(task.train, np.arange(8))
    changed = augmenter.changed(batch)
    assert (changed["attention_mask"] != batch["attention_mask"]).any()
    inputs = {name: torch.from_numpy(values) for name, values in changed.items()}
    wanted = augmenter.targets(inputs, None, Targets(torch.zeros(8, 2)))
    with torch.no_grad():
        answers = outputs_of(tiny_bert.model, inputs, task.kind)
    assert float(distance(answers, wanted)) < 1e-9


def test_a_fine_tune_that_augments_is_another_and_is_the_same_twice(tiny_bert: Tiny) -> None:
    stitched = tiny_bert.stitched(Level.of(0.5, 4))
    lesson = Lesson(tiny_bert.task, tiny_bert.task.train, sure_teacher(tiny_bert))

    def weights(*, augment: bool) -> torch.Tensor:
        recipe = Recipe(6, 8, 1e-3, augment)
        trained = finetune(stitched, lesson, recipe, seed=0, teacher=tiny_bert.model)
        return torch.cat([tensor.flatten().float() for tensor in trained.model.state_dict().values()])

    assert torch.equal(weights(augment=True), weights(augment=True))
    with pytest.raises(ValueError, match="needs the teacher"):
        finetune(stitched, lesson, Recipe(6, 8, 1e-3, True), seed=0)


def test_rows_with_answers_at_many_places_are_refused() -> None:
    for kind in (IMAGE_CLASSIFICATION, TEXT_CLASSIFICATION, SENTENCE_EMBEDDING):
        check_augmentable(kind)
    with pytest.raises(AutopruneError, match="--augment: rows of task causal-lm"):
        check_augmentable(CAUSAL_LM)
