"""Edits of a search space as a user makes them in its file, each from one space to a new one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, reduce
from pathlib import Path
from typing import Any

import yaml

from autoprune.space.storage import FLOAT16

Space = dict[str, Any]
Edit = Callable[[Space], Space]
SHIPPED = Path(__file__).parents[2] / "search_spaces"


@cache
def shipped(name: str) -> Space:
    """A shipped space as data, which no edit changes."""
    space: Space = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"))
    return space


def offering(*names: str) -> Edit:
    """All units may also be stored in the named ways."""

    def edit(unit: dict[str, Any]) -> None:
        unit["quantize"]["also"] = [*unit["quantize"].get("also", ()), *names]

    return _each_unit(edit)


def offering_only(*names: str) -> Edit:
    """Nothing can be removed, and beside floats weights can be stored in the named ways alone."""

    def edit(unit: dict[str, Any]) -> None:
        unit.pop("prune", None)
        quantize = {key: value for key, value in unit["quantize"].items() if key == "group_size"}
        unit["quantize"] = quantize | {"bits": [FLOAT16.bits], "also": list(names)}

    return _each_unit(edit)


def removing_by(*scores: str) -> Edit:
    """Heads, neurons and channels go by these scores of importance."""

    def edit(unit: dict[str, Any]) -> None:
        if unit.get("prune", {"by": "token"})["by"] != "token":
            unit["prune"]["importance"] = list(scores)

    return _each_unit(edit)


def only_removing_by(*scores: str) -> Edit:
    """The same, and weights are floats, so that removing is what saves bytes."""

    def edit(unit: dict[str, Any]) -> None:
        unit["quantize"] = {"bits": [FLOAT16.bits]}

    return lambda space: removing_by(*scores)(_each_unit(edit)(space))


def with_centroids(space: Space) -> Space:
    """Rows of rarely used tokens are centroids of all of them."""

    def edit(unit: dict[str, Any]) -> None:
        if unit.get("prune", {"by": None})["by"] == "token":
            unit["prune"]["fallback"] = "centroid"

    return _each_unit(edit)(space)


def with_float_inputs(space: Space) -> Space:
    """No unit's inputs are rounded to 8 bits."""
    return _each_unit(lambda unit: unit["quantize"].pop("activations", None))(space)


def with_recipe(**settings: float) -> Edit:
    """Fine-tunes of another recipe."""
    return lambda space: {**space, "finetune": {**space.get("finetune", {}), **settings}}


def all_of(*edits: Edit) -> Edit:
    """Several edits, one after another."""
    return lambda space: reduce(lambda done, edit: edit(done), edits, space)


def unchanged(space: Space) -> Space:
    """The space as it is."""
    return space


def _each_unit(edit: Callable[[dict[str, Any]], object]) -> Edit:
    """The same edit of every rule, of a copy of the space."""

    def edited(space: Space) -> Space:
        new = copy.deepcopy(space)
        for unit in new["units"].values():
            edit(unit)
        return new

    return edited
