"""The commands for runs of a cluster and of this machine: jobs, status, logs, stop, fetch."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoprune.cli.completion import OF_FOLDERS
from autoprune.cli.options import PLACE_OPTIONS, with_options
from autoprune.cli.places import answered, opened_root, reached_cluster, remote_run, remote_status, say
from autoprune.cli.signals import reported
from autoprune.core.errors import AutopruneError
from autoprune.run.status import read_status, status_line

if TYPE_CHECKING:
    from autoprune.jobs.cluster import Cluster
    from autoprune.jobs.storage_root import StorageRoot

_STOP_SECONDS = 150.0


@click.command()
@with_options(PLACE_OPTIONS)
def jobs(cluster: str | None, storage_root: str | None) -> None:
    """List the runs of a cluster or a storage root, or those below runs/.

    \b
    autoprune jobs --cluster http://head:8265
    """
    with reported():
        if cluster is None and storage_root is None:
            paths = sorted(Path("runs").glob("*/status.json"))
            if not paths:
                say(f"no run below {Path('runs').absolute()}; of a cluster: --cluster or --storage-root")
            for path in paths:
                click.echo(status_line(path.parent, read_status(path.parent)))
            return
        root = opened_root(storage_root)
        joined = reached_cluster(cluster, root)
        runs = answered(lambda asked: _statuses(asked, root), joined, root)
        if not runs:
            say(f"no run at {' and '.join(place for place in (cluster, storage_root) if place)}")
        for name, now in runs.items():
            click.echo(status_line(Path(name), now))


def _statuses(cluster: Cluster | None, root: StorageRoot | None) -> dict[str, dict[str, Any]]:
    """How the runs of a cluster and of a root are, by their names."""
    from autoprune.jobs.mirror import RUNS
    from autoprune.jobs.remote_run import RemoteRun

    names = [job.run for job in (cluster.jobs() if cluster is not None else [])]
    names += root.folders(RUNS) if root is not None else []
    return {name: RemoteRun(name, cluster, root).status() for name in dict.fromkeys(names)}


@click.command()
@click.argument("run", shell_complete=OF_FOLDERS)
@with_options(PLACE_OPTIONS)
@click.option("--json", "as_json", is_flag=True, help="Print status.json, and whether its process is there.")
@click.pass_context
def status(
    context: click.Context, run: str, cluster: str | None, storage_root: str | None, as_json: bool
) -> None:
    """Say how far RUN is, or how it ended: a run folder, or the name of a cluster's run.

    \b
    autoprune status runs/demo-minilm-20MB
    autoprune status my-bert-20MB --cluster http://head:8265
    """
    with reported():
        remote = remote_run(context, run, cluster, storage_root)
        now = read_status(Path(run)) if remote is None else remote_status(remote)
        click.echo(json.dumps(now, indent=1) if as_json else status_line(Path(run), now))


@click.command()
@click.argument("run", shell_complete=OF_FOLDERS)
@with_options(PLACE_OPTIONS)
@click.option("-f", "--follow", is_flag=True, help="Until the run ends; the exit code is the run's then.")
@click.pass_context
def logs(
    context: click.Context, run: str, cluster: str | None, storage_root: str | None, follow: bool
) -> None:
    """Print what RUN's driver printed.

    \b
    autoprune logs my-bert-20MB -f --cluster http://head:8265
    """
    with reported():
        from autoprune.jobs.local_run import local_exit_code, local_log

        remote = remote_run(context, run, cluster, storage_root)
        texts = local_log(Path(run), follow=follow) if remote is None else remote.log(follow=follow)
        for text in texts:
            click.echo(text, nl=False)
        if follow:
            sys.exit(local_exit_code(Path(run)) if remote is None else remote.exit_code())


@click.command()
@click.argument("run", shell_complete=OF_FOLDERS)
@with_options(PLACE_OPTIONS)
@click.pass_context
def stop(context: click.Context, run: str, cluster: str | None, storage_root: str | None) -> None:
    """End RUN's driver; what is finished is saved, and the same submit (or resume) goes on with it.

    \b
    autoprune stop my-bert-20MB --cluster http://head:8265
    """
    with reported():
        remote = remote_run(context, run, cluster, storage_root)
        if remote is None:
            from autoprune.jobs.local_run import stop_local

            if not stop_local(Path(run), seconds=_STOP_SECONDS):
                say(f"run {run} was not under way")
            click.echo(status_line(Path(run), read_status(Path(run))))
            return
        job = remote.stop(seconds=_STOP_SECONDS)
        if job is None:
            say(f"run {run} was not under way")
        elif not job.is_over:
            raise AutopruneError(
                f"job {job.id} has not ended in {_STOP_SECONDS:.0f} s: see autoprune logs {run}"
            )
        click.echo(status_line(Path(run), remote_status(remote)))


@click.command()
@click.argument("run", shell_complete=OF_FOLDERS)
@with_options(PLACE_OPTIONS)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to write.  [default: runs/RUN]")
def fetch(run: str, cluster: str | None, storage_root: str | None, output: Path | None) -> None:
    """Copy RUN from its storage root, with its inputs: for report, export and resume on this machine.

    Works after the cluster is gone, where the root is not on it.

    \b
    autoprune fetch my-bert-20MB --storage-root s3://bucket/autoprune
    """
    with reported():
        if cluster is None and storage_root is None:
            raise AutopruneError(
                "name the cluster or what keeps the run: --cluster http://HOST:8265 or --storage-root ROOT; "
                "a run of this machine is here already"
            )
        from autoprune.jobs.remote_run import RemoteRun

        root = opened_root(storage_root)
        remote = RemoteRun(run, reached_cluster(cluster, root), root)
        target = output or Path("runs") / run
        begun = time.monotonic()
        count = remote.fetch(target)
        say(f"{count} files in {time.monotonic() - begun:.0f} s")
        click.echo(target)
