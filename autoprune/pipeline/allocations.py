"""The models of rules of allocation that a run is asked for: what the rules read of the model at hand."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from autoprune.compress.importance import activation
from autoprune.compress.removal import pieces_of
from autoprune.compress.statistics import Statistics
from autoprune.models.unit import Unit
from autoprune.pipeline.opened import OpenedSearch
from autoprune.space.levels import Candidate
from autoprune.strategy.allocation import Removable, allocated
from autoprune.strategy.baselines import UNIFORM_PRUNING

log = logging.getLogger(__name__)

NAMES = {"global-threshold": "global threshold pruning", "erk": "ERK pruning"}
"""Of the baselines that rules make; that of `uniform` every run has."""


def asked_names(rules: Sequence[str]) -> set[str]:
    """Names of the baselines of the rules that a run is asked for."""
    return {NAMES.get(rule, UNIFORM_PRUNING) for rule in rules}


def allocated_baselines(search: OpenedSearch, have: AbstractSet[str | None]) -> dict[str, Candidate]:
    """A baseline for each rule that the run is asked for beside `uniform`, by name, but those it has.

    A rule that has no model within the budget is logged and left out.
    """
    asked = search.config.search.allocation
    rules = [rule for rule in asked if rule in NAMES and NAMES[rule] not in have]
    units = removable(search) if rules else {}
    out = {}
    for rule in rules:
        candidate = allocated(rule, units, search.prepared.inputs.space, search.costed.costs, search.budget)
        if candidate is None:
            log.warning(
                "--allocation %s: it has no model that loses rows and is predicted to fit %s",
                rule, search.budget,
            )  # fmt: skip
        else:
            out[NAMES[rule]] = candidate
    return out


def removable(search: OpenedSearch) -> dict[str, Removable]:
    """What the rules read of each unit that can lose heads, neurons or channels; scores are by activation."""
    setting, model = search.prepared.setting, search.prepared.model
    out = {}
    for unit in setting.units:
        if unit.cols:
            seen = {
                weight.path: Statistics.from_arrays(setting.statistics[weight.path]) for weight in unit.cols
            }
            out[unit.name] = Removable(activation(pieces_of(unit, model, seen)).numpy(), _shapes(unit))
    return out


def _shapes(unit: Unit) -> tuple[tuple[int, int, int], ...]:
    """Outputs, inputs and taps of each weight; of a depthwise convolution one input."""
    return tuple((w.rows, max(1, w.columns // max(w.kernel, 1)), w.kernel) for w in unit.weights)
