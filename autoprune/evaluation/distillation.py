"""How far a student's answers are from the teacher's, to be trained on; `answers` has the same without torch.

Shapes: m answered places of a batch, k outputs, w watched outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.tasks.answers import SMALLEST, Answers
from autoprune.tasks.task import Task

LABEL_SHARE = 0.05
"""Weight of the labels' cross-entropy beside the teacher's KL, whose weight is one."""


@dataclass(frozen=True)
class Targets:
    """What the teacher answers at the places of a batch; see `Answers`."""

    values: Float[Tensor, "m k"]
    watched: Int[Tensor, "m w"] | None = None
    spread: float = 0.0

    @classmethod
    def of(cls, teacher: Answers, rows: NDArray[np.int64], where: torch.device | None = None) -> Targets:
        """Those of some rows, on a device."""
        at = teacher.places(rows)
        watched = None if teacher.watched is None else torch.from_numpy(teacher.watched[at]).long().to(where)
        return cls(torch.from_numpy(teacher.values[at]).to(where), watched, teacher.spread)


def distance(answers: Float[Tensor, "m k"], wanted: Targets) -> Float[Tensor, ""]:
    """Mean divergence from the teacher, nats a place; `answers.divergence` says of what."""
    if wanted.spread > 0:
        return (answers - wanted.values).square().sum(-1).mean() / (2 * wanted.spread)
    if wanted.watched is None:
        ours, theirs = answers.log_softmax(-1), wanted.values.log_softmax(-1)
    else:
        ours, theirs = (_with_rest(one) for one in (_watched(answers, wanted.watched), wanted.values))
    return nn.functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def _watched(answers: Float[Tensor, "m k"], watched: Int[Tensor, "m w"]) -> Float[Tensor, "m w"]:
    """Log-probabilities of some outputs of each place, without those of all others."""
    return answers.gather(1, watched) - answers.logsumexp(-1, keepdim=True)


def _with_rest(watched: Float[Tensor, "m w"]) -> Float[Tensor, "m w"]:
    """Log-probabilities of the likeliest, and of all the rest together."""
    likeliest = watched[:, 1:]
    rest = (1.0 - likeliest.exp().sum(1, keepdim=True)).clamp(min=SMALLEST, max=1.0)
    return torch.cat([likeliest, rest.log()], 1)


def distillation_loss(
    answers: Float[Tensor, "m k"], wanted: Targets, labels: Tensor, task: Task
) -> Float[Tensor, ""]:
    """Divergence from the teacher, plus a share of that from the labels where there are any.

    Hinton et al., arXiv 1503.02531, section 2, at temperature 1.
    """
    loss = distance(answers, wanted)
    if not task.has_labels:
        return loss
    if task.is_probable:
        said = _watched(answers, labels[:, None]) if wanted.watched is not None else None
        surprise = nn.functional.cross_entropy(answers, labels) if said is None else -said.mean()
        return loss + LABEL_SHARE * surprise
    gap = answers - labels.reshape(len(answers), -1).to(answers)
    return loss + LABEL_SHARE * gap.square().sum(-1).mean() / (2 * wanted.spread)
