"""Settings in Python are those of the command line: the same names, types and least values."""

from __future__ import annotations

import typing

import click
import pytest

from autoprune.api.options import ABOVE_ZERO, CHOICES, LEAST, ResumeOptions, SearchOptions, checked_settings
from autoprune.cli.main import resume, search
from autoprune.core.errors import AutopruneError
from autoprune.run.config import Config, setting_names


def flags(command: click.Command) -> dict[str, click.Parameter]:
    return {parameter.name: parameter for parameter in command.params if parameter.name}


def test_every_setting_is_an_option() -> None:
    assert set(typing.get_type_hints(SearchOptions)) | {"model", "dataset", "budget"} == set(setting_names())


def test_every_option_is_a_flag_and_the_reverse() -> None:
    of_terminal = {"config_file", "output", "dry_run", "as_json", "quiet"}
    of_call = {"model", "dataset", "budget"}
    assert set(flags(search)) - of_terminal - of_call == set(typing.get_type_hints(SearchOptions))
    of_call = {"run", "trials", "budget"}
    assert set(flags(resume)) - of_terminal - of_call == set(typing.get_type_hints(ResumeOptions))


def test_what_values_may_be_is_as_the_flags_have_it() -> None:
    words = {name: flag.type for name, flag in flags(search).items() if isinstance(flag.type, click.Choice)}
    assert {name: tuple(kind.choices) for name, kind in words.items()} == CHOICES
    ranges = {name: flag.type for name, flag in flags(search).items() if hasattr(flag.type, "min")}
    closed = {name: kind.min for name, kind in ranges.items() if not kind.min_open}
    assert closed == LEAST
    assert {name for name, kind in ranges.items() if kind.min_open and kind.min == 0} == ABOVE_ZERO


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("trails", 3, "did you mean 'trials'?"),
        ("trials", "3", "trials='3': it is str, and int is needed"),
        ("trials", 0, "trials=0: the least is 1"),
        ("trials", True, "it is bool"),
        ("seed", -1, "seed=-1: the least is 0"),
        ("timeout_s", 0.0, "give a number above 0"),
        ("clean_data", "all", "clean_data='all': give 'repeats' or 'labels'"),
        ("limit_rows", 5, "limit_rows=5: it is int"),
        ("limit_rows", [5, 5], "give three numbers, the most rows of train, validation, test"),
        ("timeout_s", float("nan"), "timeout_s=nan: give a finite number"),
        ("teacher_rate", float("inf"), "give a finite number"),
        ("budget", 20, "budget=20: it is int"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: object, told: str) -> None:
    with pytest.raises(AutopruneError) as error:
        checked_settings({name: value})
    assert told in str(error.value)


def test_settings_are_as_the_configuration_has_them() -> None:
    settings = checked_settings({"budget": "20MB", "text_columns": ["a", "b"], "seed": None, "wait_s": 3})
    assert settings == {"budget": ("20MB",), "text_columns": ("a", "b"), "wait_s": 3}
    assert Config.from_json(Config.of(**settings).as_json()) == Config.of(**settings)
