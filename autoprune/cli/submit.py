"""The command `submit`: a search as a job of a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoprune.cli.completion import OF_FOLDERS, OF_RENDERS
from autoprune.cli.options import CONFIG_OPTION, PLACE_OPTIONS, SEARCH_OPTIONS, asked_settings, with_options
from autoprune.cli.places import opened_root, say
from autoprune.cli.signals import reported
from autoprune.core.errors import AutopruneError
from autoprune.core.redaction import holds_secret, redacted
from autoprune.run.config import Config
from autoprune.tracking.names import check_names

if TYPE_CHECKING:
    from autoprune.jobs.cluster import Cluster
    from autoprune.jobs.request import Given
    from autoprune.jobs.submission import Submission


@click.group()
@click.option(
    "--render", metavar="KIND", shell_complete=OF_RENDERS,
    help="Print the file that starts the search on a cluster of its own, and send nothing: rayjob (KubeRay), "
         "slurm, skypilot or cluster (ray up).",
)  # fmt: skip
def submit(render: str | None) -> None:
    """Run a search as a job of a Ray cluster; this machine may be switched off meanwhile.

    \b
    autoprune submit search ./my-bert --dataset reviews.csv --budget 20MB \\
        --cluster http://head:8265 --storage-root s3://bucket/autoprune
    autoprune submit --render slurm search ./my-bert --dataset reviews.csv --budget 20MB > job.sh
    """


@submit.command("search")
@click.argument("model", required=False, shell_complete=OF_FOLDERS)
@with_options(SEARCH_OPTIONS)
@CONFIG_OPTION
@with_options(PLACE_OPTIONS)
@click.option("--name", help="Name of the run and of its job.  [default: NAME-LIMIT]")
@click.option("--no-preflight", "preflight", is_flag=True, flag_value=False, default=True,
              help="Do not ask the cluster first whether it has what the search needs.")  # fmt: skip
@click.option(
    "--dry-run", is_flag=True, help="Check everything, print the plan and Ray's command; send nothing."
)
@click.pass_context
def submit_search(
    context: click.Context, /, model: str | None, config_file: Path | None, cluster: str | None,
    storage_root: str | None, name: str | None, preflight: bool, dry_run: bool, **given: Any,
) -> None:  # fmt: skip
    """Search for the best MODEL under a budget, on a cluster; prints the run's name and returns.

    The same command again goes on with the run, whatever ended it.

    \b
    autoprune submit search ./my-bert --dataset reviews.csv --budget 20MB \\
        --cluster http://head:8265 --storage-root s3://bucket/autoprune
    """
    with reported():
        settings, said = asked_settings(model, given, config_file)
        config = Config.of(**settings)
        config.limits()
        if (kind := _render_asked(context)) is not None:
            from autoprune.jobs.renders import render

            words = [word for option in _given(context, said) for word in option.words()]
            click.echo(render(kind, ["search", *words], name=name or "autoprune"), nl=False)
            return
        _check_search(config)
        if cluster is None:
            raise AutopruneError("name the cluster: --cluster http://HOST:8265, or AUTOPRUNE_CLUSTER")
        from autoprune.jobs.cluster import Cluster, job_id, running
        from autoprune.jobs.submission import make_submission

        root = opened_root(storage_root)
        if root is None:
            raise AutopruneError(
                "name what keeps the run: --storage-root s3://BUCKET/PATH, gs://BUCKET/PATH, or a folder "
                "that this machine and the cluster's head share (AUTOPRUNE_STORAGE_ROOT)"
            )
        submission = make_submission(config, _given(context, said), root, name)
        joined = Cluster(cluster)
        if (job := running(joined.jobs(submission.name))) is not None:
            say(f"run {submission.name} is under way as job {job.id}; nothing was sent. Follow it with: "
                 f"autoprune logs {submission.name} -f")  # fmt: skip
            click.echo(submission.name)
            return
        id = job_id(submission.name, joined.ids())
        say("\n".join(_plan(submission, joined, id)))
        if preflight:
            _preflight(submission, joined, config, asked="workers" in said)
        if dry_run:
            click.echo(submission.ray_command(joined.address, id))
            return
        sent = submission.send(id)
        joined.submit(id, submission.entrypoint, submission.metadata, submission.variables)
        say(f"Sent      {sent / 1e6:.1f} MB; follow it with: autoprune logs {submission.name} -f")
        click.echo(submission.name)


def _render_asked(context: click.Context) -> str | None:
    """The kind of file that is to be printed; None where the search is to be sent."""
    asked: str | None = context.parent.params.get("render") if context.parent is not None else None
    return asked


def _check_search(config: Config) -> None:
    config.check_secrets()
    config.limits()
    from autoprune.strategy.allocation import check_allocations
    from autoprune.strategy.samplers import check_sampler
    from autoprune.targets import check_storage

    check_storage(config.search.target, config.search.file_storage)
    check_sampler(config.search.sampler)
    check_allocations(config.search.allocation)
    check_names(config.search.track)
    storage = config.search.storage
    if storage is not None and holds_secret(storage):
        raise AutopruneError(
            f"--storage {redacted(storage)}: a job's command and metadata are seen by all who reach the "
            "cluster. Give the address without its password, and set AUTOPRUNE_STORAGE to the whole one "
            "where Ray is started"
        )


def _given(context: click.Context, said: Mapping[str, Any]) -> list[Given]:
    """What was said, by flag or in a file, as options of the command line in their order."""
    from autoprune.jobs.request import Given

    given = []
    for parameter in context.command.params:
        if parameter.name not in said:
            continue
        value = said[parameter.name]
        option = "" if isinstance(parameter, click.Argument) else parameter.opts[0]
        if isinstance(parameter, click.Option) and parameter.is_flag:
            given += [Given(option)] if value else []
        elif parameter.multiple if isinstance(parameter, click.Option) else False:
            given += [Given(option, (str(item),)) for item in value]
        else:
            values = value if isinstance(value, tuple) else (value,)
            given += [Given(option, tuple(str(item) for item in values))] if values else []
    return given


def _plan(submission: Submission, cluster: Cluster, id: str) -> list[str]:
    """What will be done, before it is."""
    verb = "begins" if submission.is_new else "goes on with"
    lines = [f"Run       {submission.name}: job {id} of {cluster.address} {verb} it"]
    for content in submission.sent():
        there = submission.root.has(content)
        size = f"{content.size_bytes / 1e6:.1f} MB in {len(content.files)} files"
        lines.append(f"Send      {content.shown}  {size}" + (", there already" if there else ""))
        if content.left_out:
            shown = ", ".join(content.left_out[:3]) + (", ..." if len(content.left_out) > 3 else "")
            lines.append(f"          {len(content.left_out)} left out: {shown}")
    if submission.code.installed:
        lines.append(f"Modules   {', '.join(submission.code.installed)}: not sent, as they are installed "
                     "here; the cluster needs them too")  # fmt: skip
    lines += [f"Note      {note}" for note in submission.notes]
    if not cluster.has_token:
        lines.append(
            f"Warning   {cluster.address} is used without a token: who reaches it can run code on it"
        )
    return lines


def _preflight(submission: Submission, cluster: Cluster, config: Config, *, asked: bool) -> None:
    from autoprune.jobs.preflight import preflight
    from autoprune.workers.latency_node import parse_label

    node = config.workers.latency_node
    label = None if node is None else parse_label(node)
    checks = preflight(cluster, submission.root, config.workers, label, asked=asked)
    say("\n".join(check.line() for check in checks))
    failed = [check.line() for check in checks if check.cure]
    if failed:
        raise AutopruneError(f"nothing was sent to {cluster.address}: {'; '.join(failed)}")
