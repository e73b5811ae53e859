"""The command line: parsing and printing. What it calls is imported when it is called."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoprune.api.searches import begin, check_asked, planned, take_up
from autoprune.api.terminal import summary_lines
from autoprune.cli.completion import OF_FOLDERS, completion
from autoprune.cli.data import data
from autoprune.cli.export import bench, export
from autoprune.cli.inspect import doctor, inspect, spaces
from autoprune.cli.jobs import fetch, jobs, logs, status, stop
from autoprune.cli.options import (
    CONFIG_OPTION,
    RESUME_OPTIONS,
    SEARCH_OPTIONS,
    asked_settings,
    with_options,
)
from autoprune.cli.places import say
from autoprune.cli.signals import reported
from autoprune.cli.submit import submit
from autoprune.cli.watch import watch
from autoprune.core.collection import held_collector
from autoprune.core.database_address import given_storage
from autoprune.core.errors import AutopruneError
from autoprune.core.files import why_unwritable
from autoprune.core.progress import Progress, add_line
from autoprune.core.redaction import RedactingFormatter, cleaned, redacted, show_traceback, shown_command
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, LOG
from autoprune.run.scrub import scrub_and_say
from autoprune.run.status import read_front_file
from autoprune.workers import cluster_asked_for

if TYPE_CHECKING:
    from autoprune.run.standing import Summary


class _Commands(click.Group):
    """The commands; what click says of a wrong word does not repeat a password in it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise click.UsageError(redacted(error.format_message()), error.ctx) from None


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="autoprune")
def main() -> None:
    """Search for a smaller, faster version of a model, under a limit of size or latency.

    \b
    autoprune search --budget 20MB                      the built-in demo
    autoprune search ./my-model --dataset reviews.csv --budget 20MB
    """
    # Before torch is imported anywhere: a thread that waits for work must not spin (see docs/latency.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(RedactingFormatter("%(name)s: %(message)s"))
    sys.excepthook = show_traceback


@main.command()
@click.argument("model", required=False, shell_complete=OF_FOLDERS)
@with_options(SEARCH_OPTIONS)
@CONFIG_OPTION
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME-LIMIT]"
)
@click.option(
    "--dry-run", is_flag=True, help="Check everything, print the plan and the settings, run nothing."
)
@click.option("--json", "as_json", is_flag=True, help="Print the front as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def search(
    model: str | None, config_file: Path | None, output: Path | None, dry_run: bool, as_json: bool,
    quiet: bool, **given: Any,
) -> None:  # fmt: skip
    """Search for the best MODEL under a budget.

    MODEL is a local folder or a hub id; without it, the built-in demo runs.

    \b
    autoprune search ./my-bert --dataset reviews.csv --budget 20MB
    autoprune search ./my-bert --dataset reviews.csv --budget 20MB --dry-run > run.yaml
    autoprune search --config run.yaml --budget 10MB
    """
    with reported():
        settings, _ = asked_settings(model, given, config_file)
        config = Config.of(**{"workers": None, **settings})
        config = config.with_settings(storage=given_storage(config.search.storage))
        if dry_run:
            _dry_run(config, output, quiet)
        else:
            _show(begin(config, output, command=_command(), say=say, quiet=quiet), as_json)


def _dry_run(config: Config, output: Path | None, quiet: bool) -> None:
    """Check everything, and print the plan and the settings."""
    check_asked(config, output)
    if config.workers.count != 0 and cluster_asked_for(config.workers.address) is not None:
        from autoprune.pipeline.start import open_workers

        with open_workers(config, Progress(quiet=quiet)) as pool:  # a cluster that cannot be used is said
            pool.wait_for_room()
    config, _ = planned(config, say, Progress(quiet=quiet))
    click.echo(json.dumps(cleaned(config.as_json()), indent=1))


def _command() -> str:
    """What was typed, without passwords."""
    return f"autoprune {shlex.join(shown_command(sys.argv[1:]))}"


def _show(summary: Summary, as_json: bool) -> None:
    """Print how a search ended, and add it to the run's log."""
    if as_json:
        click.echo((summary.run / FRONT).read_text(encoding="utf-8"))
        return
    lines = "\n".join(summary_lines(summary, metric=summary.metric))
    click.echo(lines)
    add_line(summary.run / LOG, lines)


@main.command()
@click.argument("run", type=click.Path(path_type=Path), shell_complete=OF_FOLDERS)
@click.option("--trials", help="Candidates in all, or +N for N more.  [default: what the run was asked for]")
@click.option(
    "--budget", multiple=True, metavar="LIMIT",
    help="Another limit, in place of all that RUN has; repeat for both. The solver answers it first.",
)  # fmt: skip
@with_options(RESUME_OPTIONS)
@click.option("--json", "as_json", is_flag=True, help="Print the front as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def resume(
    run: Path,
    trials: str | None,
    budget: tuple[str, ...],
    timeout_s: float | None,
    storage: str | None,
    as_json: bool,
    quiet: bool,
    **again: Any,
) -> None:
    """Go on with RUN after Ctrl-C, a kill, to run more trials, or under another budget.

    \b
    autoprune resume runs/demo-minilm-20MB --trials +50
    """
    with reported():
        settings: dict[str, Any] = {name: value for name, value in again.items() if value not in (None, ())}
        settings["timeout_s"] = timeout_s
        if budget:
            settings["budget"] = budget
        summary = take_up(
            run, trials=trials, settings=settings, storage=storage, command=_command(), say=say, quiet=quiet
        )
        _show(summary, as_json)


@main.command()
@click.argument(
    "runs",
    nargs=-1,
    required=True,
    metavar="RUN...",
    type=click.Path(path_type=Path),
    shell_complete=OF_FOLDERS,
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="Folder to write to, or a page NAME.html, whose table is NAME.csv; of several runs the page.  "
         "[default: RUN; compare.html, or compare-2.html where that is there]",
)  # fmt: skip
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
def report(runs: tuple[Path, ...], output: Path | None, show: bool) -> None:
    """Write report.html and front.csv of RUN again; of several a page that compares them. Prints where.

    Of a RUN that can only be read it is the report that it has.

    \b
    autoprune report runs/demo-minilm-20MB --open
    autoprune report runs/first runs/second -o compare.html
    """
    with reported():
        with held_collector():
            page = _compared(runs, output) if len(runs) > 1 else _reported(runs[0], output)
        click.echo(page)
        if show:
            click.launch(str(page.resolve()))


def _reported(run: Path, output: Path | None) -> Path:
    """Write the report of a run, and its table; where."""
    from autoprune.report import REPORT_TITLE, check_own_page, write_csv, write_report
    from autoprune.run.answer_changes import with_rows
    from autoprune.run.safe_front import safe

    scrub_and_say(run)
    front = safe(with_rows(read_front_file(run), run))
    folder = run if output is None else output
    page, table = folder / "report.html", folder / "front.csv"
    if folder.suffix == ".html" and not folder.is_dir():
        page, table, folder = folder, folder.with_suffix(".csv"), folder.parent
        check_own_page(page, REPORT_TITLE, "report")
    why = why_unwritable(folder)
    if why and (output is not None or not page.is_file()):
        raise AutopruneError(f"{folder} cannot be written ({why}): give another folder with -o")
    if why:
        click.echo(f"{run} cannot be written ({why}): this is the report that it has", err=True)
    else:
        write_csv(front, table)
        write_report(front, page)
    return page


def _compared(runs: tuple[Path, ...], output: Path | None) -> Path:
    """Print what differs between runs, and write the page; where."""
    from autoprune.report.compared.lines import comparison_lines
    from autoprune.report.compared.page import compare, page_path, write_comparison

    comparison = compare(runs)
    page = page_path(output)
    for line in comparison_lines(comparison):
        click.echo(line)
    if page.exists():
        say(f"{page} is written again")
    write_comparison(comparison, page)
    click.echo()
    return page


for command in (
    export, bench, spaces, inspect, data, doctor, completion, submit, jobs, status, watch, logs, stop, fetch,
):  # fmt: skip
    main.add_command(command)
