"""The commands of the command line that search nothing: `inspect`, `spaces` and `doctor`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from autoprune.cli.completion import OF_FOLDERS, OF_SPACES, OF_TARGETS
from autoprune.cli.signals import reported
from autoprune.core.errors import AutopruneError


@click.command()
def spaces() -> None:
    """List the search spaces that are shipped."""
    from autoprune.space.shipped import spaces_folder

    paths = sorted(spaces_folder().glob("*.yaml"))
    width = max((len(path.stem) for path in paths), default=0)
    for path in paths:
        click.echo(f"{path.stem:{width}}  {path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")


@click.command()
@click.argument("what", required=False, shell_complete=OF_FOLDERS)
@click.option(
    "--space",
    shell_complete=OF_SPACES,
    help="Search space: auto, a shipped name, or a YAML file.  [default: auto]",
)
@click.option(
    "--target",
    shell_complete=OF_TARGETS,
    help="What the model will run on, as in `search`.  [default: openvino]",
)
@click.option(
    "--write-space",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draft a space for a model, to be edited.",
)
@click.option(
    "--image-size",
    type=click.IntRange(min=8),
    help="Of pictures, for a model that a function builds.  [default: 224]",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def inspect(
    what: str | None,
    space: str | None,
    target: str | None,
    write_space: Path | None,
    image_size: int | None,
    as_json: bool,
) -> None:
    """Say what the library of variants holds, or what WHAT is made of. Nothing is searched.

    WHAT is a model folder or hub id (its units, their bytes at every level, the smallest it can get), `demo`
    for the built-in demo's model, or a run folder. --write-space drafts a search space for a model that none
    is shipped for, which may also be one that package.module:function builds.

    \b
    autoprune inspect ./my-bert --target packed
    autoprune inspect ./my-model --write-space my.yaml
    """
    with reported():
        if write_space is not None:
            from autoprune.inspection.draft_command import draft_lines, draft_record

            record = draft_record(what, write_space, image_size=image_size, space=space, target=target)
            lines = draft_lines(record)
        else:
            from autoprune.inspection.records import lines_of, record_of

            if image_size is not None:
                raise AutopruneError("--image-size goes with --write-space")
            record = record_of(what, space=space, target=target)
            lines = lines_of(record)
        click.echo(json.dumps(record, indent=1) if as_json else "\n".join(lines))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def doctor(as_json: bool) -> None:
    """Say what autoprune can do on this machine, and what is in its way, each with its cure.

    Nothing is fetched or started. Exit code 1 where something that a search needs is broken.

    \b
    autoprune doctor
    """
    with reported():
        from autoprune.inspection.doctor import doctor_lines, doctor_record

        record = doctor_record(os.environ)
        click.echo(json.dumps(record, indent=1) if as_json else "\n".join(doctor_lines(record)))
    sys.exit(0 if record["works"] else 1)
