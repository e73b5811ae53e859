"""How often a search chose a tool: of the units of its best model, and of its trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autoprune.compress.library_folder import holdings, library_path
from autoprune.core.files import read_json
from benchmarks.harness.commands import Run


@dataclass(frozen=True)
class Chosen:
    """of_best: how many parts of the best model have the tool, of how many. trials: those that have it
    anywhere, of how many the search tried. Parts are its units, or those of them that lose anything."""

    of_best: tuple[int, int]
    trials: tuple[int, int]

    def __str__(self) -> str:
        (best, parts), (trials, tried) = self.of_best, self.trials
        return f"{best} of {parts}, in {trials} of {tried} trials"


Count = Callable[[Run], Chosen | None]
Levels = Mapping[str, Mapping[str, Any]]


def uncounted(run: Run) -> None:
    """What every trial has, or none."""


def by_storage(*names: str) -> Count:
    """Units that are stored in one of the named ways."""

    def count(run: Run) -> Chosen:
        return _counted(run, lambda levels: [level["bits"] in names for level in levels.values()])

    return count


def by_importance(*names: str, offered: tuple[str, ...]) -> Count:
    """Of units that lose heads, neurons or channels, those that lose them by one of these scores.

    offered: all that the space file names.
    """

    def count(run: Run) -> Chosen:
        orders = orders_of(str(read_json(run.path / "run.json")["library_key"]), offered)
        return _counted(
            run,
            lambda levels: [
                orders[unit, level["ratio"]] in names
                for unit, level in levels.items()
                if (unit, level["ratio"]) in orders
            ],
        )

    return count


def by_baseline(name: str) -> Count:
    """Whether the best model is the rule's own."""

    def count(run: Run) -> Chosen:
        return Chosen((int((run.best["name"] or "").startswith(name)), 1), (0, len(_searched(run))))

    return count


def by_training(run: Run) -> Chosen:
    """Trials that were fine-tuned, and whether the best is."""
    trials = _searched(run)
    return Chosen((int(bool(run.best["rung"])), 1), (sum(bool(t["rung"]) for t in trials), len(trials)))


def orders_of(library_key: str, offered: tuple[str, ...]) -> dict[tuple[str, float], str]:
    """By unit and ratio, the importance by which the variants of a library lost what they lost."""
    notes = [held.note for held in holdings(library_path()) if held.note is not None]
    return {
        (note.unit, note.ratio): note.importance
        for note in sorted(notes, key=lambda note: note.made)
        if note.key == library_key and note.importances == offered
    }


def _counted(run: Run, has: Callable[[Levels], list[bool]]) -> Chosen:
    best = has(run.best["levels"])
    tried = [any(has(trial["levels"])) for trial in _searched(run)]
    return Chosen((sum(best), len(best)), (sum(tried), len(tried)))


def _searched(run: Run) -> list[dict[str, Any]]:
    return [trial for trial in run.trials if trial["name"] is None and trial["state"] == "COMPLETE"]
