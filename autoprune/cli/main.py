"""The command line: parsing and printing. What it calls is imported when it is called."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoprune.cli.export import bench, export
from autoprune.cli.options import DEMO_DEFAULTS, SEARCH_OPTIONS, with_options
from autoprune.cli.signals import reported
from autoprune.cli.terminal import plan_lines, summary_lines
from autoprune.core.errors import AutopruneError
from autoprune.core.progress import Progress
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, STATUS, RunFolder, read_record
from autoprune.space.budget import parse_budget

if TYPE_CHECKING:
    from autoprune.pipeline.inputs import Inputs
    from autoprune.workers.pool import Pool


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")


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
        given.setdefault("workers", len(os.sched_getaffinity(0)))
        config = replace(Config(model=model), **given)
        _search(config, output, dry_run, as_json, quiet)


def _search(config: Config, output: Path | None, dry_run: bool, as_json: bool, quiet: bool) -> None:
    config.limits()  # a budget or a sampler that is none is said before anything is loaded
    from autoprune.search.samplers import check_sampler

    check_sampler(config.sampler)
    if dry_run:
        _plan(config)
        click.echo(json.dumps(asdict(config), indent=1))
        return
    from autoprune.pipeline.driver import open_workers

    with open_workers(config) as pool:
        inputs = _plan(config)
        path = output or _free_folder(inputs.name, config.budget)
        run = RunFolder.create(path, config, f"autoprune {shlex.join(sys.argv[1:])}")
        _go(run, inputs, pool, config.trials, as_json, quiet)


def _plan(config: Config) -> Inputs:
    """Load what was named, check it, and print what will be done."""
    from autoprune.pipeline.driver import plan

    inputs, smallest = plan(config)
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
        summary = run_search(run, inputs, pool, Progress(quiet=quiet), trials=trials, new_budget=new_budget)
    finally:
        run.close()
    if as_json:
        click.echo((summary.run / FRONT).read_text(encoding="utf-8"))
    else:
        click.echo("\n".join(summary_lines(summary, metric=inputs.task.metric)))


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
    "--timeout", "timeout_s", type=float, metavar="SECONDS", help="Start no trial after this many seconds."
)
@click.option("--json", "as_json", is_flag=True, help="Print the front as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def resume(
    run: Path,
    trials: str | None,
    budget: tuple[str, ...],
    workers: int | None,
    timeout_s: float | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Go on with RUN after Ctrl-C, a kill, to run more trials, or under another budget.

    \b
    autoprune resume runs/demo-minilm-20MB --trials +50
    """
    with reported():
        folder = RunFolder.open(run)
        try:
            config = folder.config()
            wanted = _wanted(run, trials, config.trials)
            given: dict[str, Any] = {} if workers is None else {"workers": workers}
            new_budget = bool(budget) and budget != config.budget
            if new_budget:
                parse_budget(budget)
                given["budget"] = budget
            config = replace(config, trials=wanted, timeout_s=timeout_s, **given)
            from autoprune.pipeline.driver import open_workers

            with open_workers(config) as pool:
                inputs = _plan(config)  # a budget that cannot be met is refused before it is noted
                folder.note(config=asdict(config))
                _go(folder, inputs, pool, wanted, as_json, quiet, new_budget)
        finally:
            folder.close()


def _wanted(run: Path, trials: str | None, before: int) -> int:
    """Trials in all: as before, a number, or +N on top of those finished."""
    if trials is None:
        return before
    if not trials.removeprefix("+").isdecimal():
        raise AutopruneError(f"--trials {trials!r}: give a number, or +N for N more")
    have = 0
    if trials.startswith("+") and (run / FRONT).is_file():
        tried = read_record(run / FRONT)["trials"]
        have = sum(one["name"] is None and one["rung"] == 0 for one in tried)
    return int(trials) + have


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print status.json.")
def status(run: Path, as_json: bool) -> None:
    """Say how far RUN is.

    \b
    autoprune status runs/demo-minilm-20MB
    """
    with reported():
        now = read_record(run / STATUS)
        if as_json:
            click.echo(json.dumps(now, indent=1))
            return
        click.echo(
            f"{run}: {now['state']}; {now.get('trials', 0)} of {now.get('planned', '?')} trials, "
            f"{now.get('failed', 0)} failed, {now.get('in_flight', 0)} in flight; best "
            f"{now.get('best')}, knee {now.get('knee')}, hypervolume {now.get('hypervolume', 0):.3f}"
        )


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
        record = read_record(run / FRONT)
        write_csv(record, run / "front.csv")
        write_report(record, run / "report.html")
        click.echo(run / "report.html")
        if show:
            click.launch(str((run / "report.html").resolve()))


main.add_command(export)
main.add_command(bench)


@main.command()
def spaces() -> None:
    """List the search spaces that are shipped."""
    from autoprune.space.shipped import spaces_folder

    for path in sorted(spaces_folder().glob("*.yaml")):
        click.echo(f"{path.stem:12}{path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")


@main.command()
@click.argument("what", required=False)
@click.option("--space", help="Search space: auto, a shipped name, or a YAML file.  [default: auto]")
@click.option("--target", help="What the model will run on, as in `search`.  [default: openvino]")
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
