"""Light augmentation: a student is asked about changed rows, and taught what the teacher answers to the same.

A picture is mirrored or not, and shifted by up to an eighth of its side, what comes in being a mirror image
of its border (flip and crop, as in He et al., Deep residual learning, 2016, section 4.2). Of a text some
tokens are hidden from the model (word dropout: Iyyer et al., Deep unordered composition rivals syntactic
methods, 2015). The teacher sees what the student sees (Beyer et al., Knowledge distillation: a good teacher
is patient and consistent, 2022), so that no answer is taught that the change made wrong.

Shapes: b rows of a batch, s tokens, c channels, h height, w width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.core.errors import AutopruneError
from autoprune.evaluation.distillation import Targets
from autoprune.models.outputs import answered, outputs_of
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.task import Batch, Task

SHIFT = 1 / 8
"""Largest shift of a picture, as a share of its side: 4 of 32 pixels."""

HIDDEN = 0.1
"""Probability with which a token is hidden; the first and the last of a row never are."""

Places = tuple[NDArray[np.int64], NDArray[np.int64]] | None


def check_augmentable(kind: TaskKind) -> None:
    """Raise `AutopruneError` where rows of a kind of task are not augmented."""
    if not (kind.reads_images or (kind.is_tokenized and not kind.answers_each_token)):
        raise AutopruneError(
            f"--augment: rows of task {kind} are not augmented; it is for pictures and for texts that have "
            "one answer each. Leave it out"
        )


@dataclass(frozen=True)
class Augmenter:
    """Changes batches, drawn by `random`, and has the teacher answer them.

    teacher: on the device that the student is trained on.
    """

    teacher: nn.Module
    task: Task
    random: np.random.Generator

    def changed(self, batch: Batch) -> Batch:
        """A batch with its rows changed; the arrays that came are left as they are."""
        if "pixel_values" in batch:
            return {**batch, "pixel_values": moved(batch["pixel_values"], self.random)}
        return {**batch, "attention_mask": hidden(batch["attention_mask"], self.random)}

    def targets(self, inputs: Mapping[str, Tensor], places: Places, like: Targets) -> Targets:
        """What the teacher answers to a changed batch."""
        with torch.no_grad():
            values = answered(outputs_of(self.teacher, inputs, self.task.kind), places).float()
        return replace(like, values=values)


def moved(pictures: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Pictures [b c h w], each mirrored or not and shifted."""
    height, width = pictures.shape[2:]
    down, right = int(height * SHIFT), int(width * SHIFT)
    padded = np.pad(pictures, ((0, 0), (0, 0), (down, down), (right, right)), mode="reflect")
    out = np.empty_like(pictures)
    for k, picture in enumerate(padded):
        top, left = random.integers(0, 2 * down + 1), random.integers(0, 2 * right + 1)
        cut = picture[:, top : top + height, left : left + width]
        out[k] = cut[:, :, ::-1] if random.random() < 0.5 else cut  # nosec B311 # no secret
    return out


def hidden(mask: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """An attention mask [b s] in which some tokens are hidden, but for the first and last of each row.

    >>> hidden(np.ones((1, 2), np.int64), np.random.default_rng(0)).tolist()
    [[1, 1]]
    """
    ends = np.zeros(mask.shape, bool)
    ends[:, 0] = True
    ends[np.arange(len(mask)), mask.sum(1) - 1] = True
    is_hidden = (random.random(mask.shape) < HIDDEN) & ~ends  # nosec B311 # no secret
    return np.where(is_hidden, 0, mask)
