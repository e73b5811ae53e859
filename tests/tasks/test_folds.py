"""Folds: groups whole, classes in like shares, every row in one; and rows of two splits joined as one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from autoprune.core.errors import AutopruneError
from autoprune.tasks.answers import Answers
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.folds import deal_folds, joined_answers, joined_rows
from autoprune.tasks.task import Arrays, Encoded


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_classes_are_spread(seed: int) -> None:
    random = np.random.default_rng(seed)
    groups = random.integers(0, 120, 600)
    classes = (random.random(600) < 0.2).astype(np.int64)
    folds = deal_folds(groups.tolist(), classes, 5, seed=seed)
    assert sorted(set(folds.tolist())) == [0, 1, 2, 3, 4]
    for group in set(groups.tolist()):
        assert len(set(folds[groups == group].tolist())) == 1
    sizes = Counter(folds.tolist())
    assert max(sizes.values()) - min(sizes.values()) <= 30
    shares = [classes[folds == fold].mean() for fold in range(5)]
    assert max(shares) - min(shares) < 0.06
    again = deal_folds(groups.tolist(), classes, 5, seed=seed)
    np.testing.assert_array_equal(folds, again)


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(AutopruneError, match="--folds 5: there are 3 groups of rows"):
        deal_folds(["a", "a", "b", "c"], None, 5, seed=0)


def test_joined_rows_and_answers_are_those_of_both_in_order() -> None:
    one = Encoded(np.arange(5, dtype=np.int32), np.zeros(5, np.uint8), np.array([0, 2, 5]), np.array([1, 0]))
    other = Encoded(np.arange(9, 12, dtype=np.int32), np.zeros(3, np.uint8), np.array([0, 3]), np.array([1]))
    both = joined_rows(one, other)
    assert isinstance(both, Encoded)
    assert both.starts.tolist() == [0, 2, 5, 8]
    assert both.pick(np.array([2])).ids.tolist() == [9, 10, 11]
    assert both.labels.tolist() == [1, 0, 1]
    answers = joined_answers(
        Answers.plain(np.eye(2, dtype=np.float32)), Answers.plain(np.ones((1, 2), np.float32))
    )
    assert answers.starts.tolist() == [0, 1, 2, 3]
    assert answers.pick(np.array([2])).values.tolist() == [[1.0, 1.0]]
    pictures = ByteImages(np.zeros((2, 1, 2, 2), np.uint8), np.zeros((1, 256), np.float32))
    joined = joined_rows(Arrays({"x": pictures}, np.array([0, 1])), Arrays({"x": pictures}, np.array([1, 1])))
    assert len(joined) == 4
    assert joined.labels.tolist() == [0, 1, 1, 1]
