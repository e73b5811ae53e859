"""The settings of a search as keyword arguments: their types, and a check that says what is allowed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from autoprune.core.errors import AutopruneError
from autoprune.core.value_types import has_type
from autoprune.run.config import setting_names, setting_type
from autoprune.tasks.data.source import SPLITS


class SearchOptions(TypedDict, total=False):
    """The flags of `autoprune search` by their names in Python; `autoprune search --help` describes each.

    What is left out is as the command line has it.
    """

    task: str
    metric: str
    weights: str | Path
    image_size: int
    image_column: str
    limit_rows: tuple[int, int, int]
    text_columns: str | Sequence[str]
    label_column: str
    group_by: str
    space: str | Path
    target: str
    trials: int
    timeout_s: float
    trial_timeout_s: float
    patience: int
    sampler: str
    allocation: str | Sequence[str]
    track: str | Sequence[str]
    finetune_steps: int
    robustness: bool
    attacks: bool
    folds: int
    no_examples: bool
    clean_data: str
    augment: bool
    teacher: Any
    teacher_weights: str | Path
    teacher_revision: str
    teacher_epochs: float
    teacher_rate: float
    batch: int
    sequence: int
    max_length: int
    calibration_rows: int
    workers: int
    gpus_per_trial: float
    cpus_per_trial: float
    address: str
    latency_node: str
    wait_s: float
    storage: str
    file_storage: str
    revision: str
    new_head: bool
    trust_remote_code: bool
    seed: int


class ResumeOptions(TypedDict, total=False):
    """The flags of `autoprune resume` by their names in Python."""

    workers: int
    gpus_per_trial: float
    address: str
    timeout_s: float
    trial_timeout_s: float
    storage: str
    track: str | Sequence[str]


LEAST: Mapping[str, float] = {
    "image_size": 8, "trials": 1, "patience": 1, "finetune_steps": 0, "batch": 1, "sequence": 1,
    "max_length": 4, "calibration_rows": 8, "workers": 0, "gpus_per_trial": 0,
    "cpus_per_trial": 0, "wait_s": 1,
    "trial_timeout_s": 1, "seed": 0, "folds": 2,
}  # fmt: skip
"""The least that a setting may be."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "clean_data": ("repeats", "labels"),
    "file_storage": ("plain", "entropy"),
}
"""Settings that are one of a few words."""

ABOVE_ZERO = frozenset({"timeout_s", "teacher_epochs", "teacher_rate"})
"""Settings that are above 0."""


_TOO_LARGE = 1 << 63
"""A whole number of more bits is none that anything here takes."""


def checked_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their flat names as `Config.of` takes them; those that are None are left out.

    A `storage` of "plain" or "entropy" is `file_storage`; any other is the address of a database.

    Raises:
        AutopruneError: for a name that is no setting, a value of another type, and one that is no finite
            number or too small.
    """
    given = storages_apart(given)
    settings: dict[str, Any] = {}
    for name, value in given.items():
        if name not in setting_names():
            near = difflib.get_close_matches(name, setting_names(), n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise AutopruneError(
                f"a search has no setting {name!r}: {meant}there are {', '.join(sorted(setting_names()))}"
            )
        if value is None:
            continue
        value = _plain(name, value)
        declared = setting_type(name)
        if not has_type(value, declared):
            raise AutopruneError(
                f"{name}={value!r:.60}: it is {_type_text(type(value))}, and {_type_text(declared)} is needed"
            )
        if isinstance(value, int) and abs(value) >= _TOO_LARGE:
            raise AutopruneError(f"{name}: its number has more than 63 bits")
        if isinstance(value, float) and not math.isfinite(value):
            raise AutopruneError(f"{name}={value!r}: give a finite number")
        if name == "limit_rows" and len(value) not in (0, len(SPLITS)):
            raise AutopruneError(
                f"{name}={value!r}: give three numbers, the most rows of {', '.join(SPLITS)}"
            )
        if name in CHOICES and value not in CHOICES[name]:
            raise AutopruneError(f"{name}={value!r}: give {' or '.join(map(repr, CHOICES[name]))}")
        if name in ABOVE_ZERO and value <= 0:
            raise AutopruneError(f"{name}={value!r}: give a number above 0")
        if name in LEAST and value < LEAST[name]:
            raise AutopruneError(f"{name}={value!r}: the least is {LEAST[name]:g}")
        settings[name] = value
    return settings


def storages_apart(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose `storage`, where it says how files are stored, is called `file_storage`.

    >>> storages_apart({"storage": "entropy"}), storages_apart({"storage": "sqlite:///study.db"})
    ({'file_storage': 'entropy'}, {'storage': 'sqlite:///study.db'})

    Raises:
        AutopruneError: where both are given, and differ.
    """
    settings = dict(given)
    words = CHOICES["file_storage"]
    if isinstance(word := settings.get("storage"), str) and word in words:
        del settings["storage"]
        if (other := settings.get("file_storage") or word) != word:
            raise AutopruneError(f"storage {word} and file_storage {other}: give one of them")
        settings["file_storage"] = word
    return settings


def _plain(name: str, value: Any) -> Any:
    """A setting as files hold it: paths as text, one of several as a tuple."""
    if isinstance(value, Path):
        return str(value)
    if name in ("text_columns", "budget", "allocation", "track"):
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    if name == "limit_rows" and isinstance(value, list):
        return tuple(value)
    return value


def _type_text(declared: Any) -> str:
    return declared.__name__ if isinstance(declared, type) else str(declared)
