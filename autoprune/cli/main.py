"""The command line: parsing and printing. What it calls is imported when it is called."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoprune.api.terminal import plan_lines, summary_lines
from autoprune.cli.export import bench, export
from autoprune.cli.inspect import inspect, spaces
from autoprune.cli.jobs import fetch, jobs, logs, status, stop
from autoprune.cli.options import SEARCH_OPTIONS, with_options
from autoprune.cli.signals import ending_recorded, reported
from autoprune.cli.submit import submit
from autoprune.core.database_address import given_storage
from autoprune.core.errors import AutopruneError
from autoprune.core.files import fields_of
from autoprune.core.progress import Progress, add_line
from autoprune.core.redaction import RedactingFormatter, cleaned, redacted, show_traceback, shown_command
from autoprune.pipeline.places import check_places, check_taken_up
from autoprune.run.config import DEMO_DEFAULTS, Config
from autoprune.run.folder import FRONT, LOG, STATUS, RunFolder, read_record
from autoprune.run.scrub import scrub_and_say
from autoprune.run.status import read_front_file
from autoprune.space.budget import parse_budget
from autoprune.workers import cluster_asked_for

if TYPE_CHECKING:
    from autoprune.pipeline.inputs import Inputs
    from autoprune.workers.pool import Pool


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
    # Before torch is imported anywhere: a thread that waits for work must not spin (see README).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(RedactingFormatter("%(name)s: %(message)s"))
    sys.excepthook = show_traceback


@main.command()
@click.argument("model", required=False)
@with_options(SEARCH_OPTIONS)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Run folder.  [default: runs/NAME-LIMIT]"
)
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan, run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the front as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def search(
    model: str | None, output: Path | None, dry_run: bool, as_json: bool, quiet: bool, **given: Any
) -> None:
    """Search for the best MODEL under a budget.

    MODEL is a local folder or a hub id; without it, the built-in demo runs.

    \b
    autoprune search ./my-bert --dataset reviews.csv --budget 20MB
    """
    with reported():
        given = {name: value for name, value in given.items() if value not in (None, ())}
        if model is None:
            given = DEMO_DEFAULTS | given
        given.setdefault("workers", None)
        config = Config.of(model=model, **given)
        config = config.with_settings(storage=given_storage(config.search.storage))
        _search(config, output, dry_run, as_json, quiet)


def _search(config: Config, output: Path | None, dry_run: bool, as_json: bool, quiet: bool) -> None:
    config.check_secrets()
    config.limits()  # a budget or a sampler that is none is said before anything is loaded
    from autoprune.strategy.allocation import check_allocations
    from autoprune.strategy.samplers import check_sampler

    check_sampler(config.search.sampler)
    check_allocations(config.search.allocation)
    check_places(config, output)
    if dry_run:
        if config.workers.count != 0 and cluster_asked_for(config.workers.address) is not None:
            from autoprune.pipeline.start import open_workers

            with open_workers(config, Progress(quiet=quiet)) as pool:  # a cluster that cannot be used is said
                pool.wait_for_room()
        config = _settled(config, _plan(config))
        click.echo(json.dumps(cleaned(config.as_json()), indent=1))
        return
    from autoprune.pipeline.start import open_workers

    with open_workers(config, Progress(quiet=quiet)) as pool:
        inputs = _plan(config)
        config = _settled(config, inputs)
        path = output or _free_folder(inputs.name, config.search.budget)
        run = RunFolder.create(path, config, f"autoprune {shlex.join(shown_command(sys.argv[1:]))}")
        _go(run, inputs, pool, config.search.trials, as_json, quiet)


def _settled(config: Config, inputs: Inputs) -> Config:
    """The settings as the plan has them: what the model does not take is less than was asked."""
    return config.with_settings(sequence=inputs.sequence)


def _plan(config: Config, run: RunFolder | None = None, *, quiet: bool = False) -> Inputs:
    """Load what was named, check it, and print what will be done."""
    from autoprune.pipeline.start import plan

    inputs, smallest = plan(config, run, Progress(quiet=quiet))
    click.echo("\n".join(plan_lines(config, inputs, smallest, metric=inputs.task.metric)), err=True)
    return inputs


def _go(
    run: RunFolder,
    inputs: Inputs,
    pool: Pool,
    trials: int,
    as_json: bool,
    quiet: bool,
    new_budget: bool = False,
) -> None:
    """Search in a run folder, print how it ended, and let the folder go."""
    from autoprune.pipeline.driver import search as run_search

    try:
        with ending_recorded(run.path):
            add_line(run.path / LOG, f"$ autoprune {shlex.join(shown_command(sys.argv[1:]))}")
            progress = Progress(quiet=quiet, log=run.path / LOG)
            summary = run_search(run, inputs, pool, progress, trials=trials, new_budget=new_budget)
    finally:
        run.close()
    if as_json:
        click.echo((summary.run / FRONT).read_text(encoding="utf-8"))
    else:
        lines = "\n".join(summary_lines(summary, metric=inputs.task.metric))
        click.echo(lines)
        add_line(run.path / LOG, lines)


def _free_folder(name: str, budget: tuple[str, ...]) -> Path:
    """runs/NAME-LIMIT, with a number where that is taken."""
    stem = "-".join([name, *(text.replace(" ", "") for text in budget)])
    path, k = Path("runs") / stem, 1
    while path.exists():
        k += 1
        path = Path("runs") / f"{stem}-{k}"
    return path


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--trials", help="Candidates in all, or +N for N more.  [default: what the run was asked for]")
@click.option("--budget", multiple=True, metavar="LIMIT", help="Another limit; the solver answers it first.")
@click.option("--workers", type=click.IntRange(min=0), help="Ray workers.  [default: as before]")
@click.option(
    "--gpus-per-trial", type=click.FloatRange(min=0), help="GPUs of a worker.  [default: as before]"
)
@click.option(
    "--address", help="Another Ray cluster, or local for none, as for search.  [default: as before]"
)
@click.option(
    "--timeout", "timeout_s", type=float, metavar="SECONDS", help="Start no trial after this many seconds."
)
@click.option(
    "--storage",
    metavar="URL",
    help="The study's database, with the password that no file has.  [default: AUTOPRUNE_STORAGE]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the front as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def resume(
    run: Path,
    trials: str | None,
    budget: tuple[str, ...],
    workers: int | None,
    gpus_per_trial: float | None,
    address: str | None,
    timeout_s: float | None,
    storage: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Go on with RUN after Ctrl-C, a kill, to run more trials, or under another budget.

    \b
    autoprune resume runs/demo-minilm-20MB --trials +50
    """
    with reported():
        folder = RunFolder.open(run, storage)
        try:
            config = folder.config()
            wanted = _wanted(run, trials, config.search.trials)
            check_taken_up(folder)
            asked = {"workers": workers, "gpus_per_trial": gpus_per_trial, "address": address}
            given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
            new_budget = bool(budget) and budget != config.search.budget
            if new_budget:
                parse_budget(budget)
                given["budget"] = budget
            config = config.with_settings(trials=wanted, timeout_s=timeout_s, **given)
            from autoprune.pipeline.start import open_workers

            with open_workers(config, Progress(quiet=quiet)) as pool:
                inputs = _plan(
                    config, folder, quiet=quiet
                )  # a budget that cannot be met is refused before it is noted
                config = _settled(config, inputs)
                folder.note(config=config.as_json())
                _go(folder, inputs, pool, wanted, as_json, quiet, new_budget)
        finally:
            folder.close()


def _wanted(run: Path, trials: str | None, before: int) -> int:
    """Trials in all: as before, a number, or +N on top of those finished."""
    if trials is None:
        return before
    if not trials.removeprefix("+").isdecimal():
        raise AutopruneError(f"--trials {trials!r}: give a number, or +N for N more")
    have = _tried(run)
    wanted = int(trials) + (have if trials.startswith("+") else 0)
    if wanted < max(have, 1):
        raise AutopruneError(
            f"--trials {trials}: run {run} has tried {have} candidates already. Give {max(have, 1)} or "
            "more in all, or +N for N more"
        )
    return wanted


def _tried(run: Path) -> int:
    """Candidates that a run has tried, baselines and longer training not counted."""
    if not (run / FRONT).is_file():
        return 0
    with fields_of(run / FRONT):
        rows = read_record(run / FRONT)["trials"]
        tried: int = sum(trial["name"] is None and trial["rung"] == 0 for trial in rows)
    # Of a search that was killed the front may be some minutes old, and the status is not.
    with contextlib.suppress(AutopruneError):
        told = read_record(run / STATUS).get("trials")
        tried = max(tried, told if isinstance(told, int) else 0)
    return tried


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
def report(run: Path, show: bool) -> None:
    """Write report.html and front.csv of RUN again; prints where.

    \b
    autoprune report runs/demo-minilm-20MB --open
    """
    from autoprune.report import write_csv, write_report

    with reported():
        scrub_and_say(run)
        record = read_front_file(run)
        write_csv(record, run / "front.csv")
        write_report(record, run / "report.html")
        click.echo(run / "report.html")
        if show:
            click.launch(str((run / "report.html").resolve()))


for command in (export, bench, spaces, inspect, submit, jobs, status, logs, stop, fetch):
    main.add_command(command)
