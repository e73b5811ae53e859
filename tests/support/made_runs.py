"""Run folders of two versions, and damage to their files; and what every command makes of them."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as some
from click.testing import CliRunner

from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError
from autoprune.pipeline.places import check_taken_up, expected_study
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, RUN, STATUS, STUDY, UNITS, RunFolder
from autoprune.run.front_record import front_record
from autoprune.run.kept_models import kept_artifact
from autoprune.run.run_record import Identity
from autoprune.run.standing import standing
from autoprune.run.whereabouts import check_inputs, located
from autoprune.space.budget import Budget
from autoprune.space.costs import Cost, Costs
from autoprune.space.levels import Candidate, Choices, Level, SearchSpace
from autoprune.space.storage import storages_of
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.hypervolume import ByteRange
from autoprune.strategy.samplers import make_proposer
from autoprune.strategy.study import Study
from tests.support.damage import OTHER_VALUES, check_message, damaged_bytes, damaged_json

OLD = Path(__file__).parent / "old_run" / "run"
SMALL = SearchSpace(
    (Choices("a", (0.0, 0.5), storages_of((4, 8, 32))), Choices("b.c", (0.0,), storages_of((8, 32))))
)

TINY_BERT = {
    "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
    "intermediate_size": 8, "vocab_size": 20, "max_position_embeddings": 8,
}  # fmt: skip

COMMANDS = {
    "status RUN": {RUN, STATUS},
    "status RUN --json": {RUN, STATUS},
    "inspect RUN": {RUN, UNITS, FRONT},
    "report RUN": {RUN, FRONT, STATUS},
}
"""Commands that read a run, and the files that they read."""

KNOWN = {RUN, FRONT, STATUS, UNITS, STUDY}

CELLS = {
    "trial_params": "param_value", "trial_values": "value", "trial_user_attributes": "value_json",
    "study_user_attributes": "value_json", "trials": "state", "studies": "study_name",
    "study_directions": "direction", "version_info": "schema_version",
    "alembic_version": "version_num",
}  # fmt: skip
"""Columns of Optuna's tables that somebody may write to."""


@dataclass(frozen=True)
class MadeRun:
    """A run's files by path below its folder, its search space, and how many trials its study has."""

    files: dict[str, bytes]
    space: SearchSpace
    trials: int


@dataclass(frozen=True)
class RunDamage:
    """Other contents of files, None is one that is missing; and values written to tables of the study."""

    files: dict[str, bytes | None] = field(default_factory=dict)
    cells: tuple[tuple[str, Any], ...] = ()


def old_run() -> MadeRun:
    """The run of an older version, of two trials and its baselines."""
    files = {str(path.relative_to(OLD)): path.read_bytes() for path in OLD.rglob("*") if path.is_file()}
    with contextlib.closing(sqlite3.connect(OLD / STUDY)) as database:
        (text,) = database.execute(
            "SELECT value_json FROM study_user_attributes WHERE key = 'space'"
        ).fetchone()
        (trials,) = database.execute("SELECT count(*) FROM trials").fetchone()
    units = tuple(
        Choices(unit, tuple(ratios), storages_of(widths))
        for unit, ratios, widths in json.loads(json.loads(text))
    )
    return MadeRun(files, SearchSpace(units), trials)


def new_run(folder: Path) -> MadeRun:
    """A run as it is written now: the original, a baseline, three trials, one of which failed."""
    levels = [Level(), Level.of(0.0, 8), Level.of(0.5, 8), Level.of(0.5, 4), Level.of(0.0, 4)]
    costs = {
        unit.unit: {level: Cost(100 * level.storage.bits, 0.1, 1.0) for level in unit.levels()}
        for unit in SMALL.units
    }
    run = RunFolder.create(
        folder, Config.of(budget=("20MB",), model="absent/model", workers=0), "autoprune search"
    )
    identity = Identity(
        weights="0" * 64,
        head="1" * 64,
        data="2" * 64,
        paths={"model": "/absent/model"},
        folder="/absent",
        run=str(folder),
    )
    run.note(
        inputs=identity, original_ms=2.0, kinds={"a": "block"}, facts={"name": "made", "validation_rows": 50}
    )
    study = _study(folder, SMALL, run)
    for k, level in enumerate(levels):
        m = Measurement(4000 - 500 * k, 2.0 - 0.2 * k, 90.0 - k, kl=0.01 * k) if k != 3 else None
        name = {0: "original", 1: "uniform 8-bit"}.get(k)
        study.add(
            Trial(k, SMALL.uniform(level), m, failure=None if m else "NaN", name=name, rung=0, row_scores="")
        )
    now = standing(study.trials(), Budget(20_000_000), Measurement(4000, 2.0, 50.0), answers=50)
    record = front_record(
        run.about(),
        Costs(4000, costs),
        now,
        Budget(20_000_000),
        byte_range=ByteRange(1e3, 4e3),
        state="finished",
    )
    study.close()
    (folder / FRONT).write_text(json.dumps(record), encoding="utf-8")
    assert now.best is not None
    run.keep_artifact(now.best.number, b"weights", TINY_BERT)
    (folder / UNITS).write_text(json.dumps(Costs(4000, costs).as_json()), encoding="utf-8")
    run.status("finished", trials=3, planned=3, points={"best": 4, "knee": 2}, hypervolume=0.5, updated=1.7e9)
    run.close()
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return MadeRun(files, SMALL, len(levels))


def _study(folder: Path, space: SearchSpace, run: RunFolder) -> Study:
    proposer = make_proposer("random", space=space, seed=0, repair=_unchanged, aim=None)
    return Study(folder / STUDY, space, proposer=proposer, name=run.study_name(), expect=expected_study(run))


def _unchanged(candidate: Candidate, seen: object, seed: int) -> Candidate:
    return candidate


# ---- damage -------------------------------------------------------------------------------------


@some.composite
def run_damages(draw: some.DrawFn, run: MadeRun) -> RunDamage:
    """Damage to one or two files of a run, or to values in its database."""
    files: dict[str, bytes | None] = {}
    cells: list[tuple[str, Any]] = []
    for _ in range(draw(some.sampled_from([1, 1, 1, 2]))):
        name = draw(
            some.sampled_from(
                [RUN, RUN, FRONT, FRONT, STATUS, STATUS, STUDY, STUDY, "cells", *sorted(run.files)]
            )
        )
        if name == "cells":
            for _ in range(draw(some.integers(1, 2))):
                table = draw(some.sampled_from(sorted(CELLS)))
                other = draw(some.sampled_from(OTHER_VALUES))
                cells.append(
                    (
                        table,
                        other
                        if isinstance(other, int | float | None) and abs(other or 0) < 2**62
                        else json.dumps(other),
                    )
                )
        elif name in run.files:
            content = run.files[name]
            is_missing = draw(some.integers(0, 14)) == 0
            damage = damaged_json if name.endswith(".json") else damaged_bytes
            files[name] = None if is_missing else draw(damage(content))
    return RunDamage(files, tuple(cells))


def write_damaged(run: MadeRun, damage: RunDamage, folder: Path) -> None:
    """The run's folder with its damage."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in (run.files | damage.files).items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    for table, value in damage.cells:
        with contextlib.closing(sqlite3.connect(folder / STUDY)) as database:
            with contextlib.suppress(sqlite3.Error):  # a database that is damaged beside
                row = database.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0]
                database.execute(f"UPDATE {table} SET {CELLS[table]} = ? WHERE rowid = ?", (value, row))
                database.commit()


# ---- what must hold -----------------------------------------------------------------------------


def check_run(run: MadeRun, damage: RunDamage, folder: Path) -> str:
    """What the commands make of a damaged run: "accepted" by all of them, or "refused" by some.

    Raises:
        AssertionError: where trials vanish without a word, or an end is neither success nor one line.
        Exception: whatever a command raises that is no AutopruneError.
    """
    write_damaged(run, damage, folder)
    touched = {*damage.files} | ({STUDY} if damage.cells else set())
    is_all = not touched or bool(touched - KNOWN)
    ends = [
        check_command([folder if word == "RUN" else word for word in words.split()])
        for words, files in COMMANDS.items()
        if is_all or touched & files
    ]
    if is_all or touched & {RUN, FRONT, STUDY}:
        ends.append(_refused_or(lambda: take_up(run, damage, folder)))
    if is_all or touched & {RUN, FRONT}:  # gguf keeps no such levels: this ends once all was read
        check_command(["export", folder, "--trial", "best", "--target", "gguf", "-o", folder / "out"])
    return "accepted" if all(ends) else "refused"


def check_command(words: Sequence[object]) -> bool:
    """Whether a command does what it is told; else it ends with one line and an AutopruneError's code."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 0:
        result.stdout.encode()
        if words[0] == "report":
            _check_csv(Path(str(words[1])))
        return True
    told = [line for line in result.stderr.splitlines() if line.startswith("autoprune: ")]
    assert result.exit_code in (2, 3, 5), (words[0], result.exit_code, result.output)
    assert len(told) == 1, (words[0], result.output)
    return False


def _refused_or(work: Callable[[], None]) -> bool:
    try:
        work()
    except AutopruneError as error:
        check_message(error)
        return False
    return True


def take_up(made: MadeRun, damage: RunDamage, folder: Path) -> None:
    """What `resume` does before it loads anything, and the study that it goes on with."""
    run = RunFolder.open(folder)
    try:
        config = run.config()
        config.limits()
        check_taken_up(run)
        located(config, folder)
        study = _study(folder, made.space, run)
        try:
            count = len(study.trials())
        finally:
            study.close()
        is_same = RUN not in damage.files and not damage.cells
        assert not is_same or count == made.trials, f"{count} of {made.trials} trials are left"
        for trial in range(made.trials):
            kept_artifact(folder, trial)
        with contextlib.suppress(AutopruneError):  # the model that it began with is not there
            check_inputs(config, folder)
    finally:
        run.close()


def _check_csv(folder: Path) -> None:
    """Each trial of the record is a row of the table."""
    trials = json.loads((folder / FRONT).read_text(encoding="utf-8")).get("trials") or ()
    rows = (folder / "front.csv").read_bytes().count(b"\r\n") - 1
    assert rows == len(trials), f"{rows} rows of {len(trials)} trials"
