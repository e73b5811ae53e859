"""Room for what files need beyond their predicted bytes: the one rule for proposals, starts and answers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from autoprune.space.budget import Budget
from autoprune.space.trial import ORIGINAL, Trial, finished


@dataclass(frozen=True)
class FileRoom:
    """Bytes by which files are larger than predicted, to be kept free below a limit."""

    excess_bytes: int

    @classmethod
    def of(cls, trials: Iterable[Trial]) -> FileRoom:
        """By the upper quartile of what files of these trials had beyond their predicted bytes.

        A search gives the baselines alone, which are measured before it begins: then what it asks for does
        not depend on which worker ends first. An answer to another budget gives all trials.
        """
        return cls(excess_bytes(trials))

    def predicted(self, budget: Budget, smallest_bytes: float) -> Budget:
        """The limits on predicted bytes and milliseconds for files to be within a budget.

        A limit that allows the smallest candidate as predicted goes on to allow it.
        """
        if budget.size_bytes is None:
            return budget
        least = min(math.ceil(smallest_bytes), budget.size_bytes)
        return replace(budget, size_bytes=max(budget.size_bytes - self.excess_bytes, least))


def excess_bytes(trials: Iterable[Trial]) -> int:
    """The upper quartile of measured less predicted bytes of compressed models; 0 without any, or below 0.

    A language model's files were larger by 12 kB of 58 MB: candidates that were to fill the limit broke it.
    """
    off = [
        m.size_bytes - trial.predicted_size_bytes for trial, m in finished(trials) if trial.name != ORIGINAL
    ]
    return max(0, math.ceil(np.quantile(off, 0.75, method="lower"))) if off else 0
