"""The trackers by name: what must be installed for each, and what a job on a cluster is told of it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autoprune.core.errors import AutopruneError
from autoprune.core.redaction import holds_secret


@dataclass(frozen=True)
class Kind:
    """A tracker. package: what Python imports. module and attribute: of the class that writes to it.

    sent: environment variables that a job on a cluster gets from the machine that submits it.
    """

    package: str
    module: str
    attribute: str
    sent: tuple[str, ...] = ()


TRACKERS: Mapping[str, Kind] = {
    "mlflow": Kind(
        "mlflow",
        "autoprune.tracking.mlflow_tracker",
        "MlflowTracker",
        ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"),
    ),
    "tensorboard": Kind("tensorboard", "autoprune.tracking.tensorboard_tracker", "TensorBoardTracker"),
    "wandb": Kind(
        "wandb",
        "autoprune.tracking.wandb_tracker",
        "WandbTracker",
        ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_MODE", "WANDB_BASE_URL"),
    ),
}
"""Each by the name that `--track` takes, which is also that of its extra."""


def check_names(names: Iterable[str]) -> None:
    """Raise `AutopruneError` for a name that is no tracker."""
    for name in names:
        if name not in TRACKERS:
            raise AutopruneError(f"--track {name!r:.60}: give {', '.join(TRACKERS)}")


def check_trackers(names: Iterable[str]) -> None:
    """Raise `AutopruneError` for a name that is no tracker, and for one whose package is not installed."""
    names = tuple(names)
    check_names(names)
    for name in names:
        if not _is_installed(TRACKERS[name].package):
            raise AutopruneError(
                f"--track {name} needs the package {TRACKERS[name].package}, which is not installed: "
                f"pip install 'autoprune[{name}]'"
            )


def sent_variables(names: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """What a job on a cluster gets of this process's environment, and notes on what it does not get.

    Keys and passwords are not sent, since all who reach a cluster see a job's variables; and the address of
    a file on this machine would be another there.
    """
    variables, notes = {}, []
    for variable in (variable for name in names for variable in TRACKERS[name].sent):
        value = os.environ.get(variable)
        if not value:
            continue
        if holds_secret(value):
            notes.append(f"{variable} holds a password and is not sent: set it where Ray is started")
        elif variable != "MLFLOW_TRACKING_URI" or value.startswith(("http://", "https://", "databricks")):
            variables[variable] = value
    return variables, tuple(notes)


def _is_installed(package: str) -> bool:
    """Whether a package can be imported; a folder of that name, such as W&B writes, is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None
