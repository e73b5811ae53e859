"""Damage to a run folder that was once a traceback or lost trials: each is one line that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from autoprune.cli.main import main
from autoprune.core.errors import AutopruneError
from autoprune.run.folder import FRONT, RUN, STATUS, STUDY, UNITS
from tests.support.made_runs import MadeRun, RunDamage, new_run, take_up, write_damaged

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    return new_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))


def changed(made: MadeRun, name: str, change: Change) -> RunDamage:
    data = json.loads(made.files[name])
    change(data)
    return RunDamage({name: json.dumps(data).encode()})


@pytest.mark.parametrize(
    ("command", "name", "change", "words"),
    [
        ("status", STATUS, lambda now: now.pop("state"), "status.json cannot be read:\n  state: "),
        ("status", STATUS, lambda now: now.update(trials=[]), "status.json cannot be read:\n  trials: "),
        ("status", STATUS, lambda now: now.update(points=[1]), "status.json cannot be read:\n  points: "),
        ("report", FRONT, lambda now: now.update(units="x"), "front.json cannot be read:\n  units: "),
        ("inspect", UNITS, lambda now: now.update(fixed_bytes=1e999), "units.json or"),
        ("inspect", UNITS, lambda now: [*now.values()][2]["a"].pop(2), "units.json or"),
    ],
)
def test_a_wrong_field_is_one_line(
    made: MadeRun, tmp_path: Path, command: str, name: str, change: Change, words: str
) -> None:
    write_damaged(made, changed(made, name, change), tmp_path / "run")
    result = CliRunner().invoke(main, [command, str(tmp_path / "run")])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("autoprune: ")
    assert words in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda trials: trials[4].update(levels=3),
            "front.json is damaged: a field is missing or of another",
        ),
        (lambda trials: trials[4].pop("failure"), "front.json is damaged: a field is missing or of another"),
        (lambda trials: trials[4]["levels"].update(a={"ratio": 0.5, "bits": "x"}), "front.json is damaged"),
    ],
)
def test_a_trial_that_cannot_be_read_is_not_exported(
    made: MadeRun, tmp_path: Path, change: Callable[[list[Any]], None], words: str
) -> None:
    damage = changed(made, FRONT, lambda front: change(front["trials"]))
    write_damaged(made, damage, tmp_path / "run")
    words_given = ["export", str(tmp_path / "run"), "--trial", "4", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, words_given)
    assert result.exit_code == 2, result.output
    assert words in result.stderr


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("budget", {"a": 1}),
        ("budget", "20MB"),
        ("trials", "many"),
        ("storage", {}),
        ("storage", True),
        ("seed", True),
        ("task", None),
    ],
)
def test_a_setting_of_another_type_is_named(
    made: MadeRun, tmp_path: Path, setting: str, value: object
) -> None:
    damage = changed(made, RUN, lambda run: run["config"].update({setting: value}))
    write_damaged(made, damage, tmp_path)
    with pytest.raises(AutopruneError, match=f"run.json is damaged: .* {setting} "):
        take_up(made, damage, tmp_path)


@pytest.mark.parametrize("content", [b"", bytes(4096)])
def test_a_database_that_lost_its_trials_is_no_new_run(made: MadeRun, tmp_path: Path, content: bytes) -> None:
    """A file that a full disk or a crash emptied, and one that is gone."""
    damage = RunDamage({STUDY: content})
    write_damaged(made, damage, tmp_path)
    with pytest.raises(AutopruneError, match=r"study\.db .*(has no study|cannot be opened)"):
        take_up(made, damage, tmp_path)
    assert (tmp_path / STUDY).read_bytes() == content
    write_damaged(made, RunDamage({STUDY: None}), tmp_path)
    with pytest.raises(AutopruneError, match=r"its trials in study\.db, which is not there"):
        take_up(made, RunDamage({STUDY: None}), tmp_path)


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("trials", "SLEEPING"),
        ("trial_values", "nan"),
        ("trial_params", 99),
        ("trial_user_attributes", '{"a": 1}'),
        ("study_directions", "UP"),
        ("study_user_attributes", "3"),
    ],
)
def test_values_in_the_database_that_nobody_wrote_are_told(
    made: MadeRun, tmp_path: Path, table: str, value: object
) -> None:
    damage = RunDamage(cells=((table, value),))
    write_damaged(made, damage, tmp_path)
    with pytest.raises(AutopruneError, match=r"study\.db"):
        take_up(made, damage, tmp_path)
