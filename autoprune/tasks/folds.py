"""Folds of training and validation rows together: groups whole, classes in like shares. No torch.

Shapes: n rows, m answered places of all rows, k outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.tasks.answers import Answers
from autoprune.tasks.byte_images import ByteImages
from autoprune.tasks.task import Arrays, Data, Encoded, Task


def deal_folds(
    groups: Sequence[object], classes: NDArray[Any] | None, count: int, *, seed: int
) -> NDArray[np.int64]:
    """The fold of each row [n], from 0: rows of one group are in one fold, and classes are spread evenly.

    By scikit-learn's `StratifiedGroupKFold`, or `GroupKFold` where rows have no class.

    Args:
        groups: of each row; rows of equal groups stay together.
        classes: of each row [n]; None where there are none.

    Raises:
        AutopruneError: where there are fewer groups than folds.

    >>> folds = deal_folds(["a", "a", "b", "c", "d"], None, 2, seed=0)
    >>> bool(folds[0] == folds[1]), sorted(set(folds.tolist()))
    (True, [0, 1])
    """
    import warnings

    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    _, numbers = np.unique(np.array([str(group) for group in groups]), return_inverse=True)
    if numbers.max(initial=-1) + 1 < count:
        raise AutopruneError(
            f"--folds {count}: there are {numbers.max(initial=-1) + 1} groups of rows, and each fold needs "
            "one. Give fewer folds, or leave it out"
        )
    kind = GroupKFold if classes is None else StratifiedGroupKFold
    parts = kind(n_splits=count, shuffle=True, random_state=seed)
    folds = np.empty(len(numbers), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer rows than folds is in some of them
        try:
            for fold, (_, held) in enumerate(parts.split(numbers, classes, numbers)):
                folds[held] = fold
        except ValueError as error:  # no class has as many rows as there are folds
            raise AutopruneError(f"--folds {count}: {error}. Give fewer folds, or leave it out") from error
    return folds


def joined_rows(one: Data, other: Data) -> Data:
    """The rows of two splits of one task, one after the other."""
    if isinstance(one, Encoded) and isinstance(other, Encoded):
        return Encoded(
            np.concatenate([one.ids, other.ids]),
            np.concatenate([one.types, other.types]),
            np.concatenate([one.starts, one.starts[-1] + other.starts[1:]]),
            np.concatenate([one.labels, other.labels]),
        )
    assert isinstance(one, Arrays)
    assert isinstance(other, Arrays)
    inputs = {name: _joined(values, other.inputs[name]) for name, values in one.inputs.items()}
    return Arrays(inputs, np.concatenate([one.labels, other.labels]))


def _joined(one: NDArray[Any] | ByteImages, other: NDArray[Any] | ByteImages) -> NDArray[Any] | ByteImages:
    if isinstance(one, ByteImages) and isinstance(other, ByteImages):
        return ByteImages(np.concatenate([one.bytes, other.bytes]), one.numbers)
    joined: NDArray[Any] = np.concatenate([one[:], other[:]])
    return joined


def joined_answers(one: Answers, other: Answers) -> Answers:
    """Answers to the rows of two splits, one after the other; the spread is the first's."""
    watched = None
    if one.watched is not None and other.watched is not None:
        watched = np.concatenate([one.watched, other.watched])
    starts = np.concatenate([one.starts, one.starts[-1] + other.starts[1:]])
    return replace(one, values=np.concatenate([one.values, other.values]), starts=starts, watched=watched)


def pooled(task: Task) -> Data:
    """Training rows that fine-tunes draw from, then validation rows."""
    return joined_rows(task.train, task.validation)
