"""The page of a search's settings, and of environment variables."""

from __future__ import annotations

import dataclasses

import click

from autoprune.cli.options import SEARCH_OPTIONS, with_options
from autoprune.run.config import DEMO_DEFAULTS, Config, setting_names, setting_type
from docs.generators.tables import default_text, described, option_text, table, type_text

VARIABLES = {
    "AUTOPRUNE_CACHE": "Folder of the cache: compressed variants, fitted teachers, statistics. "
    "Default: the user's cache folder.",
    "AUTOPRUNE_LIBRARY_LIMIT": "Room that compressed variants may take, as `500MB` or `50GB`. "
    "Default: 20 GB. What was used longest ago goes first and is made again when it is needed.",
    "AUTOPRUNE_STORAGE": "Address of the study's database, with its password; keeps it off the command line.",
    "AUTOPRUNE_CLUSTER": "Stands for `--cluster`.",
    "AUTOPRUNE_STORAGE_ROOT": "Stands for `--storage-root`.",
    "AUTOPRUNE_ROOM": "Folder that containers of one host share, so that they time one after another.",
    "AUTOPRUNE_JOBS": "Folder on the head of a cluster in which jobs work. Default: the user's data folder.",
    "AUTOPRUNE_GPU_SHARE": "Set by autoprune for its own workers: the share of a GPU that a worker has.",
    "AUTOPRUNE_IMPORTS": "Set by autoprune for its own jobs: where a user's functions are imported from.",
}
"""Every variable of autoprune's own that the code reads; a test compares."""

OTHERS = {
    "RAY_ADDRESS": "The Ray cluster that is joined where `--address` is not given.",
    "RAY_API_SERVER_ADDRESS": "As `AUTOPRUNE_CLUSTER`, where that is not set.",
    "RAY_AUTH_MODE": "`token` where a cluster asks for tokens; see the cluster guide.",
    "HF_TOKEN": "Token of the hub, for private models and data and for `--push-to-hub`. Written to no file.",
    "MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME": "Of `--track mlflow`: [Trackers](../trackers.md).",
    "WANDB_API_KEY, WANDB_MODE, WANDB_DIR, WANDB_PROJECT": "Of `--track wandb`, as others of W&B.",
    "PGPASSWORD": "Password of PostgreSQL, where the address has none; `~/.pgpass` works too.",
}

INTRODUCTION = """# Configuration

Every setting of a search. `run.json` keeps them under the names in Python. `autoprune search --dry-run`
checks all inputs and prints them. `autoprune.search(...)` takes the same names as keyword arguments.
"""


def configuration_page() -> str:
    """Settings by their parts, then environment variables."""
    options = {option.name: option for option in _command().params if isinstance(option, click.Option)}
    parts = [INTRODUCTION]
    for part in dataclasses.fields(Config):
        names = {name: attribute for name in setting_names() if (attribute := _attribute(name, part.name))}
        defaults = getattr(Config(), part.name)
        about, meanings = described(type(defaults), [field.name for field in dataclasses.fields(defaults)])
        rows = []
        for name, attribute in names.items():
            option = options.get(name)
            flag = f"`{option.opts[-1]}`" if option is not None else "the argument MODEL"
            told = (
                meanings.get(attribute, "")
                if option is None or option.help is None
                else option_text(option.help)
            )
            default = default_text(getattr(defaults, attribute))
            rows.append((f"`{name}`", flag, type_text(setting_type(name)), default, told))
        parts.append(f"## {part.name}\n\n{about}\n")
        parts.append(table(("in Python", "flag", "type", "default", "meaning"), rows))
    demo = ", ".join(f"`{name}` {value}" for name, value in DEMO_DEFAULTS.items())
    parts.append(f"The built-in demo (no MODEL) has other defaults: {demo}.\n")
    parts.append(
        "Where a user says nothing, `workers` is null: one a core, or as many as a cluster has room for.\n"
    )
    parts.append("## Environment variables\n")
    rows = [(f"`{name}`", told) for name, told in (VARIABLES | OTHERS).items()]
    parts.append(table(("variable", "meaning"), rows))
    return "\n".join(parts)


def _attribute(name: str, part: str) -> str | None:
    """The attribute that a setting is of a part of `Config`; None where it is of another part."""
    before, mark = Config(), object()
    after = getattr(before.with_settings(**{name: mark}), part)
    return next(
        (field.name for field in dataclasses.fields(after) if getattr(after, field.name) is mark), None
    )


def _command() -> click.Command:
    @click.command()
    @with_options(SEARCH_OPTIONS)
    def search(**given: object) -> None:
        """The options of a search."""

    return search
