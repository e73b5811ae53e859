"""A file of settings: what a dry run prints is read as it was; all that is wrong in one is told at once."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import pytest
import yaml

from autoprune.api.config_file import read_settings
from autoprune.api.options import ABOVE_ZERO, CHOICES, LEAST
from autoprune.core.errors import AutopruneError
from autoprune.core.files import json_text
from autoprune.run.config import Config, setting_names, setting_type


def values_of(name: str) -> some.SearchStrategy[Any]:
    """Values that a setting may have."""
    if name == "limit_rows":
        return some.tuples(*[some.integers(1, 10**6)] * 3) | some.just(())
    if name in CHOICES:
        return some.sampled_from(CHOICES[name]) | some.none()
    if name in ("text_columns", "budget", "allocation", "track"):
        return some.lists(some.text(min_size=1), max_size=2).map(tuple)
    kinds = set(typing.get_args(setting_type(name)) or [setting_type(name)])
    least = LEAST.get(name, 0)
    floats = some.floats(1e-9 if name in ABOVE_ZERO else least, 1e9)
    known = {str: some.text(), int: some.integers(int(least), 10**9), float: floats, bool: some.booleans()}
    (kind,) = kinds - {type(None)}
    return known[kind] | some.none() if type(None) in kinds else known[kind]


CONFIGS = some.fixed_dictionaries({}, optional={name: values_of(name) for name in setting_names()}).map(
    lambda settings: Config.of(**settings)
)


class Writer(yaml.SafeDumper):
    """Writes YAML 1.2, in which `0E0` is a number: PyYAML, of 1.1, would write such a text without quotes."""


Writer.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(config=CONFIGS)
@hypothesis.example(config=Config.of(teacher_weights="0E0", revision="12e4567"))
def test_settings_as_a_dry_run_prints_them_are_read_as_they_were(
    config: Config, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whether as JSON, or as YAML in which they were kept; null is what is not given, as the defaults are."""
    path = tmp_path_factory.mktemp("settings") / "run.yaml"
    printed = json.loads(json.dumps(config.as_json()))
    unset = {name for name, value in printed.items() if value is None}
    expected = {name: value for name, value in config.as_json().items() if name not in unset}
    ways = (
        json.dumps(printed, indent=1),
        json.dumps(printed, ensure_ascii=False),
        yaml.dump(printed, Dumper=Writer),
    )
    for text in ways:
        path.write_text(text, encoding="utf-8")
        assert read_settings(path) == expected


def test_a_path_that_is_no_utf_8_and_small_numbers_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    config = Config.of(dataset="rows\udce9\U0001f600.csv", teacher_rate=1e-05, finetune_steps=0)
    path.write_text(json_text(config.as_json()))
    settings = read_settings(path)
    assert settings["dataset"] == "rows\udce9\U0001f600.csv"
    assert (settings["teacher_rate"], settings["finetune_steps"]) == (1e-05, 0)
    path.write_text("teacher_rate: 1e-5\nbudget: 20MB\n")
    assert read_settings(path) == {"teacher_rate": 1e-05, "budget": ("20MB",)}


def refused(path: Path) -> str:
    with pytest.raises(AutopruneError) as error:
        read_settings(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 20_000
    return str(error.value)


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "trails: 3\ntrials: 0\nseed: many\nlabel_column: yes\nworkers: 1\nworkers: 2\n1: 2\n"
        "timeout_s: .nan\nlimit_rows: [1, 2]\nrevision: 2024-01-01\noutput: runs/x\nteacher_rate: -1e-4\n"
    )
    told = refused(path)
    assert "has 11 errors" in told
    for line in (
        "did you mean 'trials'?", "trials=0: the least is 1", "seed='many': it is str", "label_column=True",
        "workers: is there twice, in line 5 and in line 6", "no setting 1: names are text", "finite",
        "three numbers", "it is date", "no setting 'output'", "teacher_rate=-0.0001: give a number above 0",
    ):  # fmt: skip
        assert line in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no settings"),
        ("- budget\n", "holds no settings"),
        ("budget: [20MB\n", "is neither YAML nor JSON"),
        ('{"budget": ["20MB"]', "is neither YAML nor JSON"),
        ('{"seed": 1, "seed": 2}', "seed: is there twice"),
        ("seed: 0x" + "f" * 20_000, "seed: its number has more than 63 bits"),
        ("budget: " + "[" * 5000 + "]" * 5000, "is neither YAML nor JSON"),
        ('{"budget": ' + "[" * 100_000 + "]" * 100_000 + "}", "is neither YAML nor JSON"),
        ('{"budget": ' + "[" * 600 + "]" * 600 + "}", "budget"),
        ("budget: !!python/object/apply:os.system [ls]\n", "is neither YAML nor JSON"),
        ("#" * 1_000_001, "at most 1000000 are read"),
    ],
)
def test_a_file_that_is_no_settings_is_one_error(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert told in refused(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(tmp_path / "absent.yaml")
    assert "cannot be read" in refused(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"label_column: caf\xe9\n")
    assert "cannot be read" in refused(tmp_path / "latin.yaml")
