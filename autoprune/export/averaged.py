"""Several models as one: the average of what each answers.

Source: Caruana et al., Ensemble selection from libraries of models, ICML 2004: the mean of the members'
probabilities. Its logarithm is given as logits, of which softmax makes that mean again; numbers are averaged
as they are, and vectors, which are unit vectors in the original's space, are averaged and scaled to length 1.

Shapes: n members; b rows, k outputs of an answer [b ... k].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError
from autoprune.targets import Runner, Target
from autoprune.targets.target import Defaults
from autoprune.tasks.kinds import TaskKind
from autoprune.tasks.task import Batch


class Loadable(Protocol):
    """What opens the models in a folder: a target, or several models as one."""

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """The model in `folder`, ready to run."""

    def defaults(self) -> Defaults | None:
        """The runtime's own settings on this machine, if they differ from those of `load`."""

    def files(self, folder: Path) -> Sequence[Path]:
        """The files the runtime opens."""


@dataclass(frozen=True)
class Average:
    """Models that are opened together and answer with their average.

    target: opens each of them. folders: of the members, inside the folder that is loaded. weights: of the
    members, which add up to 1. kind: what the answers are.
    """

    target: Target
    folders: tuple[str, ...]
    weights: tuple[float, ...]
    kind: TaskKind

    def load(self, folder: Path, *, threads: int = 1) -> Runner:
        """All members, one run after another."""
        runs = [self.target.load(folder / name, threads=threads) for name in self.folders]
        return averaged_runner(runs, self.weights, self.kind)

    def defaults(self) -> Defaults | None:
        """Those of the target, for every member."""
        own = self.target.defaults()
        if own is None:
            return None
        load = own.load

        def loaded(folder: Path) -> Runner:
            runs = [load(folder / name) for name in self.folders]
            return averaged_runner(runs, self.weights, self.kind)

        return Defaults(own.words, loaded)

    def files(self, folder: Path) -> Sequence[Path]:
        """Those of all members."""
        return [file for name in self.folders for file in self.target.files(folder / name)]


def averaged_runner(runs: Sequence[Runner], weights: Sequence[float], kind: TaskKind) -> Runner:
    """Runners as one that answers with their average."""

    def run(batch: Batch) -> NDArray[np.float32]:
        return averaged([model(batch) for model in runs], weights, kind)

    return run


def averaged(
    answers: Sequence[NDArray[np.float32]], weights: Sequence[float], kind: TaskKind
) -> NDArray[np.float32]:
    """The average [b ... k] of members' answers, each [b ... k].

    Of classes the logarithm of the mean probabilities; else see the module.

    >>> from autoprune.tasks.kinds import TEXT_CLASSIFICATION
    >>> one, other = np.log(np.float32([[0.9, 0.1]])), np.log(np.float32([[0.5, 0.5]]))
    >>> np.exp(averaged([one, other], (0.5, 0.5), TEXT_CLASSIFICATION)).round(4).tolist()
    [[0.699999988079071, 0.30000001192092896]]
    """
    values = [np.asarray(answer, np.float64) for answer in answers]
    if kind.predicts_classes:
        logs = [_log_softmax(logits) + np.log(w) for logits, w in zip(values, weights, strict=True)]
        return np.asarray(np.logaddexp.reduce(logs, axis=0), np.float32)
    mean = sum(w * answer for answer, w in zip(values, weights, strict=True))
    if kind.gives_vectors:
        mean = mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)
    return np.asarray(mean, np.float32)


def check_can_be_averaged(kind: TaskKind) -> None:
    """Raise `AutopruneError` for a kind of task whose models' answers are not averaged, and say why."""
    if kind.predicts_next_token:
        raise AutopruneError(
            "--ensemble is not for a language model: each member would keep keys and values of its own for "
            "every token, and the search records no answers of several that write together. Export one "
            "trial with --trial"
        )
    if kind.is_own:
        raise AutopruneError(
            "--ensemble is not for a task of your own: only its function knows what the mean of two answers "
            "is. Export the trials one by one with --trial, and average them as they should be"
        )


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    normalized: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return normalized
