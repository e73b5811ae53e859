"""Altered test rows as a worker makes them of a task, and how flips are counted."""

from __future__ import annotations

import numpy as np

from autoprune.evaluation.robustness import AlteredRows, altered_data, flipped
from autoprune.models.image_processor import Pixels
from autoprune.tasks.alterations import PICTURE_ALTERATIONS, altered_pictures
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.data.images import Images, StoredImage
from autoprune.tasks.data.rows import Rows
from autoprune.tasks.data.splits import Splits
from autoprune.tasks.encoding import pictures
from autoprune.tasks.task import Arrays, Task
from tests.support.made_pictures import photograph


def picture_task() -> Task:
    stored = [StoredImage(photograph(seed, 40, 50), "made") for seed in range(12)]
    rows = Rows((), tuple(k % 2 for k in range(12)), Images(stored))
    splits = Splits(rows, rows, rows, label_names=("a", "b"), name="made", fingerprint="made")
    return pictures(splits, Pixels((32, 32)))


def test_pictures_are_altered_as_the_task_has_them_and_keep_their_labels() -> None:
    task, chosen = picture_task(), np.array([1, 4, 9])
    plain = altered_data(AlteredRows("", chosen, 0), task)
    assert isinstance(plain, Arrays)
    before = plain.inputs["pixel_values"]
    assert isinstance(before, ByteImages)
    kept = before.bytes.copy()
    for alteration in PICTURE_ALTERATIONS:
        data = altered_data(AlteredRows(alteration.name, chosen, 0), task)
        assert isinstance(data, Arrays)
        images = data.inputs["pixel_values"]
        assert isinstance(images, ByteImages)
        expected = altered_pictures(before, alteration.name, seed=0, rows=chosen)
        assert (images.bytes == expected.bytes).all()
        assert (images.bytes != before.bytes).any()
        assert (data.labels == plain.labels).all()
    assert (before.bytes == kept).all()


def test_flips_are_symmetric_and_none_of_a_model_against_itself() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(50, 4)).astype(np.float32) for _ in range(2))
    assert flipped(a, a) == 0.0
    assert flipped(a, b) == flipped(b, a) == 100.0 * float((a.argmax(1) != b.argmax(1)).mean())
