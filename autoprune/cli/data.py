"""The command that looks at data: what of it comes twice, leaks, or may be wrongly labelled."""

from __future__ import annotations

import json
from typing import Any

import click

from autoprune.cli.options import SEARCH_OPTIONS, named_options, with_options
from autoprune.cli.signals import reported
from autoprune.core.progress import Progress
from autoprune.run.config import Config

DEMO = "demo"

READ = (
    *("task", "image_column", "limit_rows", "text_columns", "label_column", "group_by"),
    *("max_length", "image_size", "weights", "revision", "seed"),
)
"""Flags of a search that say how data and model are read."""


@click.command()
@click.argument("data", required=False)
@click.option(
    "--model",
    help="A model folder, hub id, module:function, or demo: rows far from all others in its embedding are "
    "told, and labels are judged by it, else by words.",
)
@with_options(named_options(SEARCH_OPTIONS, READ))
@click.option(
    "--shown",
    type=click.IntRange(min=0),
    default=3,
    metavar="N",
    help="Rows told of each kind.  [default: 3]",
)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def data(data: str | None, model: str | None, shown: int, as_json: bool, quiet: bool, **given: Any) -> None:
    """Say what of DATA may not be meant: rows that come twice or nearly, leaks, outliers, doubted labels.

    DATA is what --dataset of `search` takes; without it, the built-in demo's reviews. Rows are told by their
    number in the source. Nothing is changed: `search --clean-data repeats` leaves rows out.

    \b
    autoprune data reviews.csv
    autoprune data reviews.csv --model ./my-bert --json
    """
    with reported():
        from autoprune.inspection.data_lines import data_lines
        from autoprune.inspection.data_record import data_record

        given = {name: value for name, value in given.items() if value not in (None, ())}
        config = Config.of(dataset=data, model=None if model == DEMO else model, **given)
        record = data_record(config, has_model=model is not None, progress=Progress(quiet=quiet))
        click.echo(json.dumps(record, indent=1) if as_json else "\n".join(data_lines(record, shown=shown)))
