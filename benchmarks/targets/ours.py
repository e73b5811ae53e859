"""Our models for the comparison: from the library, briefly fine-tuned, or kept by a search; on any target."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoprune.compress.stitch import Stitched, stitch
from autoprune.core.errors import AutopruneError
from autoprune.evaluation.finetune import finetune
from autoprune.evaluation.lesson import Lesson
from autoprune.evaluation.seeds import candidate_seed
from autoprune.evaluation.workbench import Workbench
from autoprune.export.run_trials import find_trial
from autoprune.models.unit import Unit
from autoprune.models.units import search_space
from autoprune.pipeline.prepare import Prepared
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, read_record, run_config
from autoprune.space.levels import UNTOUCHED, Candidate, Level, SearchSpace
from autoprune.space.storage import FLOAT32, GroupedIntegers
from autoprune.targets import Runner, Target, get_target, size_on_disk
from autoprune.targets.packed import read_packed, torch_runner
from benchmarks.targets.side_by_side import TEST, VALIDATION, Load, Row, Score

ORIGINAL = "original"
HALF = 0.5


@dataclass(frozen=True)
class Wanted:
    """One of our models, whatever the target: a level for all units, or a trial that a run kept."""

    name: str
    level: Level = UNTOUCHED
    tuned: bool = False
    trial: Kept | None = None

    def recorded_on(self, target: Target) -> Score | None:
        """What a search measured of it on a target: on its own, or nothing."""
        own = self.trial is not None and self.trial.config.search.target == target.name
        return self.trial.recorded if own and self.trial else None


@dataclass(frozen=True)
class Kept:
    """A trial's model as its run folder keeps it, and what the run measured on its own target."""

    name: str
    folder: Path
    config: Config
    recorded: Score = field(hash=False)

    @classmethod
    def of(cls, text: str) -> Kept:
        """From RUN or RUN:TRIAL, the trial being best, knee or a number.

        Raises:
            AutopruneError: where the run, the trial or its model is not there.
        """
        path, _, which = text.rpartition(":")
        if not path or not (which in ("best", "knee") or which.isdecimal()):
            path, which = text, "best"
        record = read_record(Path(path) / FRONT)
        trial = find_trial(record, which)
        folder = Path(path) / "trials" / f"{trial['number']:04d}"
        if not folder.is_dir():
            raise AutopruneError(
                f"{path} keeps no model of trial {trial['number']}: only the front's are kept; "
                f"those are {', '.join(map(str, record['front']))}"
            )
        config = run_config(Path(path))
        right = {VALIDATION: trial["accuracy"]}
        right |= {TEST: trial["test_accuracy"]} if trial["test_accuracy"] is not None else {}
        limit = ", ".join(config.search.budget) or "no limit"
        kept = Score(right, trial["kl"])
        return cls(f"searched, {limit} ({which}, {trial['number']})", folder, config, kept)


def uniform(level: Level, *, tuned: bool = False) -> Wanted:
    """All units at the level nearest to one that they offer.

    >>> uniform(Level.of(0.5, "w8a8"), tuned=True).name, uniform(Level.of(0.0, 4)).name
    ('half pruned, w8a8, fine-tuned', 'uniform 4-bit')
    """
    storage = level.storage
    width = (
        "float" if storage == FLOAT32 else storage.name if storage.rounds_inputs else f"{storage.bits}-bit"
    )
    name = f"half pruned, {width}" if level.ratio else f"uniform {width}"
    return Wanted(f"{name}, fine-tuned" if tuned else name, level, tuned)


UNIFORM = (
    Wanted(ORIGINAL),
    uniform(Level.of(0.0, 8)),
    uniform(Level.of(0.0, "w8a8")),
    uniform(Level.of(0.0, 4)),
    uniform(Level.of(HALF, 8)),
    uniform(Level.of(HALF, "w8a8")),
    uniform(Level.of(HALF, 8), tuned=True),
    uniform(Level.of(HALF, "w8a8"), tuned=True),
)


def fast_levels(target: Target, units: Sequence[Unit]) -> Iterator[Wanted]:
    """All that a target offers as fast, whole and half pruned, with the floats they must be faster than."""
    space = search_space(units, target.offers)
    levels = dict.fromkeys(level for unit in space.units for level in unit.levels())
    for ratio in (0.0, HALF):
        fast = [level for level in levels if level.ratio == ratio and is_fast(target, level)]
        if fast:
            yield uniform(Level(ratio)) if ratio else Wanted(ORIGINAL)
            yield from map(uniform, fast)


def is_fast(target: Target, level: Level) -> bool:
    """Whether a level's storage is one that a target says it computes faster than floats."""
    return level.storage in target.fast - {FLOAT32}


def float_of(level: Level) -> str:
    """Name of the float model with as many rows as a level leaves."""
    return uniform(Level(level.ratio)).name if level.ratio else ORIGINAL


class Workshop:
    """Makes our models of one teacher, each once, and saves them for targets."""

    def __init__(self, prepared: Prepared, workbench: Workbench) -> None:
        self._setting, self._recipe = prepared.setting, prepared.recipe
        self._workbench = workbench
        self._made: dict[tuple[Candidate, bool, Path | None], Stitched] = {}
        self._originals: dict[str, int] = {}
        self._undone: set[Candidate] = set()

    @property
    def units(self) -> tuple[Unit, ...]:
        """Those of the teacher."""
        return self._setting.units

    def row(
        self, wanted: Wanted, target: Target, folder: Path, splits: Sequence[str]
    ) -> tuple[Row, Stitched]:
        """A model saved for a target, and what it was saved from; the original is to be the first.

        Equal models are the same object until `forget`.

        Raises:
            AutopruneError: saying what the target does not offer, or why it cannot run here.
        """
        stitched = self._stitched(wanted, target)
        folder.mkdir(parents=True)
        target.save(stitched, folder, self._workbench.example)
        size = size_on_disk(target, folder)
        if wanted.name == ORIGINAL:
            self._originals[target.name] = size
        elif target.name not in self._originals:
            raise AutopruneError("there is no original to predict its size from")
        load: Load = functools.partial(load_on, target.name, folder)
        load()
        predicted = predicted_bytes(target, self._originals[target.name], self.units, stitched.levels)
        row = Row(
            wanted.name, target.name, self._how(wanted, stitched.levels), load, size, splits,
            stitched.levels, predicted,
            level=None if wanted.trial else wanted.level,
            is_fast=self._offered_as_fast(wanted, target),
            recorded=wanted.recorded_on(target),
        )  # fmt: skip
        return row, stitched

    def _offered_as_fast(self, wanted: Wanted, target: Target) -> bool:
        level = wanted.level
        offered = any(target.offers(unit, level) for unit in self.units)
        return wanted.trial is None and offered and is_fast(target, level)

    def forget(self) -> None:
        """Let the models go that were made so far."""
        self._made.clear()

    def _how(self, wanted: Wanted, candidate: Candidate) -> str:
        if wanted.trial is not None:
            return f"autoprune search, {wanted.trial.config.search.trials} trials"
        if not wanted.tuned:
            return "library"
        undone = ", undone since they brought nothing" if candidate in self._undone else ""
        return f"library, {self._recipe.steps} steps of fine-tuning{undone}"

    def _stitched(self, wanted: Wanted, target: Target) -> Stitched:
        space = search_space(self.units, functools.partial(keeps, target))
        if wanted.trial is None:
            candidate = _uniform(space, wanted, target)
            return self._make(candidate, wanted.tuned)
        key = Candidate(()), False, wanted.trial.folder
        if key not in self._made:
            self._made[key] = read_packed(wanted.trial.folder)
        by_name = {unit.name: unit for unit in self.units}
        for name, level in self._made[key].levels.items:
            if not keeps(target, by_name[name], level):
                raise AutopruneError(f"{target.name} does not offer {level} of {name}")
        return self._made[key]

    def _make(self, candidate: Candidate, tuned: bool) -> Stitched:
        key = candidate, tuned, None
        if key not in self._made:
            workbench = self._workbench
            stitched = stitch(workbench.teacher, self.units, candidate, workbench.library)
            self._made[key] = self._tuned(stitched) if tuned else stitched
        return self._made[key]

    def _tuned(self, stitched: Stitched) -> Stitched:
        """After the brief fine-tune of a trial; as it was where that brought nothing."""
        setting = self._setting
        found = finetune(
            stitched, Lesson(setting.task, setting.task.train, setting.train_answers), self._recipe,
            seed=candidate_seed(setting.seed, stitched.levels), step_room=self._workbench.room.busy,
            teacher=self._workbench.teacher,
        )  # fmt: skip
        if found is stitched:
            self._undone.add(stitched.levels)
        return found


def _uniform(space: SearchSpace, wanted: Wanted, target: Target) -> Candidate:
    candidate = space.uniform(wanted.level)
    if not any(level == wanted.level for _, level in candidate.items):
        raise AutopruneError(f"{target.name} does not offer {wanted.level}")
    return candidate


def keeps(target: Target, unit: Unit, level: Level) -> bool:
    """Whether a target holds a unit at a level: one it offers, or one that only others compute fast.

    What keeps 8-bit activations without offering them has no more to ask than for 8-bit weights.
    """
    if target.offers(unit, level):
        return True
    storage = level.storage
    return (
        storage.rounds_inputs
        and storage in target.storages
        and target.offers(unit, Level(level.ratio, GroupedIntegers(storage.bits)))
    )


def predicted_bytes(target: Target, original_bytes: int, units: Sequence[Unit], candidate: Candidate) -> int:
    """Bytes of a candidate's files on a target, from the original's and each unit's level."""
    changes = (
        target.size_bytes(unit, candidate[unit.name]) - target.size_bytes(unit, UNTOUCHED) for unit in units
    )
    return original_bytes + sum(changes)


def load_on(target: str, folder: Path) -> Runner:
    """A saved model on a target, one thread."""
    return get_target(target).load(folder, threads=1)


def in_torch(stitched: Stitched) -> Runner:
    """The stitched module itself."""
    return torch_runner(stitched.model)
