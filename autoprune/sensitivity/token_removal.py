"""Damage of removed tokens, measured on text in which no tokens were counted.

Tokens are removed that the training text has least often, and the harm is predicted from rows of the same
text, to second order. Other text has other rare words, above all where it is held out by the group: reviews
of another film name other people. And another row in a token's place is no small change. The prediction is
too low by far (docs/decisions/020-common-and-rare-tokens.md). Such levels are few, so each is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from autoprune.models.unit import Unit
from autoprune.sensitivity.fisher_scores import Sensitivity
from autoprune.space.levels import Level


def with_measured_removal(
    sensitivity: Sensitivity, units: Sequence[Unit], measured: Callable[[Unit, Level], float]
) -> Sensitivity:
    """The sensitivities, in which levels that remove tokens have the damage measured on held-out rows.

    What removal adds to a score, in nats^1/2, grows by the root of what it harms more than was foretold;
    where no row that scores were taken on has such a token, it is as large in each, of either sign.

    Args:
        measured: divergence, nats a row, of a model with one unit alone at a level, on text held out.
    """
    scores = {unit: dict(table) for unit, table in sensitivity.scores.items()}
    for unit in (unit for unit in units if unit.by_token):
        for ratio in (ratio for ratio in unit.ratios if ratio > 0):
            alone = Level(ratio)
            harm, removal = measured(unit, alone), sensitivity.scores[unit.name][alone]
            foretold = sensitivity.damage()[unit.name][alone]
            if foretold > 0:
                more = (math.sqrt(max(harm, 0.0) / foretold) - 1.0) * removal
            else:
                more = math.sqrt(2 * max(harm, 0.0)) * np.where(np.arange(len(removal)) % 2, 1.0, -1.0)
            for level in unit.levels(ratio):
                scores[unit.name][level] = scores[unit.name][level] + more.astype(np.float32)
    return replace(sensitivity, scores=scores)
