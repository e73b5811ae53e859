"""Where the inputs of a run lie now: it may have been moved with them, or be taken up from another folder.

Whether they are what the run began with is told by their contents (`identity.hold_to`), so each place may be
tried.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from autoprune.core.errors import AutopruneError
from autoprune.core.files import is_inside
from autoprune.core.references import import_from
from autoprune.run.config import Config
from autoprune.run.folder import read_run
from autoprune.run.run_record import RunRecord
from autoprune.space.shipped import spaces_folder

PATHS = ("model", "dataset", "weights", "space", "teacher", "teacher_weights")
"""Settings that may name a file or folder."""

SENT_INPUTS = "inputs"
"""Folder of a fetched run with what was sent to the cluster, each in a folder named by its hash."""


def located(config: Config, path: Path) -> Config:
    """The settings of the run at `path` with the absolute paths, and the hub's commits, of its inputs.

    An input that has gone from where it was is looked for as it was given, and where it would be if it had
    been moved with the run; one that is nowhere keeps its old path. Functions can be imported from the folder
    that the run was started in.
    """
    about = read_run(path)
    if about.inputs is None:
        return config
    named = (config.model.name, config.data.dataset, config.task.name, config.training.teacher)
    functions = [str(name) for name in named if ":" in str(name)]
    if functions and _is_elsewhere(about.inputs.folder, path):
        _import_code(about.inputs.folder, path, functions)
    given = config.as_json()
    places = {
        name: _place(_candidates(str(given[name]), noted, about, path))
        for name, noted in about.inputs.paths.items()
        if given.get(name) is not None
    }
    config = _at_commits(config, about.inputs.commits)
    return config.with_settings(**{name: place or about.inputs.paths[name] for name, place in places.items()})


def paths_of(config: Config) -> dict[str, str]:
    """Absolute paths of the settings that name a file or folder; hub ids and functions are none."""
    given = config.as_json()
    named = {name: given.get(name) for name in PATHS}
    if named["space"] in ("auto", *(path.stem for path in spaces_folder().glob("*.yaml"))):
        del named["space"]  # a shipped one, whatever lies here under its name
    paths = {name: Path(text).expanduser() for name, text in named.items() if text and text.strip()}
    return {name: str(path.absolute()) for name, path in paths.items() if path.exists()}


def _at_commits(config: Config, commits: Mapping[str, str]) -> Config:
    """The settings with the commits of the hub that a run began with."""
    if "model" in commits and not os.path.exists(str(config.model.name)):
        config = replace(config, model=replace(config.model, revision=commits["model"]))
    if "dataset" in commits and not os.path.exists(str(config.data.dataset)):
        config = replace(config, data=replace(config.data, revision=commits["dataset"]))
    if "teacher" in commits and not os.path.exists(str(config.training.teacher)):
        config = config.with_settings(teacher_revision=commits["teacher"])
    return config


def _is_elsewhere(folder: str, path: Path) -> bool:
    """Whether the folder that functions are imported from is none of the run's own.

    A search begins its run in a folder that is empty, so no code of the user's lies there; whoever gives a
    run away could have put some.
    """
    return os.path.isabs(folder) and not is_inside(Path(folder), path)


def check_inputs(config: Config, path: Path) -> None:
    """See that every file and folder that the run at `path` began with is there.

    Raises:
        AutopruneError: naming all that are not, and where they were looked for.
    """
    about = read_run(path)
    if about.inputs is None:
        return
    given, absent = config.as_json(), []
    for name, noted in about.inputs.paths.items():
        if given.get(name) is None:
            continue
        candidates = list(_candidates(str(given[name]), noted, about, path))
        if _place(candidates) is None:
            places = ", ".join(dict.fromkeys(candidates))
            absent.append(f"{name} {str(given[name])!r} (looked for at {places})")
    if absent:
        raise AutopruneError(
            f"run {path} began with {' and '.join(absent)}, and nothing is there. Put it back at one of "
            "these places: what it holds is compared with what the run began with"
        )


def _candidates(given: str, noted: str, about: RunRecord, run: Path) -> Iterator[str]:
    """Where an input may lie, the likeliest first."""
    yield noted
    yield str(Path(given).expanduser().absolute())
    if (before := place_at_start(about)) is not None:
        yield os.path.normpath(run.absolute() / os.path.relpath(noted, before))
    yield _place_sent(noted, run)


def _import_code(folder: str, path: Path, functions: Iterable[str]) -> None:
    """Have the user's functions imported from where they were when a run began, if that is here.

    Raises:
        AutopruneError: where they are in the run itself, fetched with it, and nowhere else that is looked at.
    """
    sent = _place_sent(folder, path)
    if os.path.isdir(folder) or not os.path.isdir(sent):
        import_from(folder)
    elif not all(map(_is_importable, functions)):
        raise AutopruneError(
            f"run {path} was fetched with the code of its functions, in {sent}. Nothing is imported from a "
            f"run unasked: look it over, then run this again with PYTHONPATH={sent}, or where the code is"
        )


def _is_importable(function: str) -> bool:
    """Whether the package of `package.module:function` is in this folder or among the installed ones."""
    package = function.partition(":")[0].partition(".")[0]
    return importlib.machinery.PathFinder.find_spec(package, [os.getcwd(), *sys.path]) is not None


def _place_sent(noted: str, run: Path) -> str:
    """Where an input of a job lies in its run, once that was fetched."""
    place = Path(noted)
    return str(run.absolute() / SENT_INPUTS / place.parent.name / place.name)


def place_at_start(about: RunRecord) -> Path | None:
    """The absolute path that a run's folder had when it began; older versions noted it in two parts."""
    inputs = about.inputs
    if inputs is None:
        return None
    if inputs.run:
        return Path(inputs.run)
    if not inputs.folder or not about.facts.folder:
        return None
    return Path(inputs.folder) / about.facts.folder


def _place(candidates: Iterable[str]) -> str | None:
    return next((place for place in candidates if os.path.exists(place)), None)
