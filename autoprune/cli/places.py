"""Where the runs of a cluster are: what the flags --cluster and --storage-root name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from autoprune.jobs.cluster import Cluster
    from autoprune.jobs.remote_run import RemoteRun
    from autoprune.jobs.storage_root import StorageRoot


S = TypeVar("S")
T = TypeVar("T")


def remote_run(
    context: click.Context, run: str, cluster: str | None, storage_root: str | None
) -> RemoteRun | None:
    """A run of a cluster; None for a folder of this machine, unless a flag says otherwise."""
    flags = [context.get_parameter_source(name) for name in ("cluster", "storage_root")]
    is_said = click.core.ParameterSource.COMMANDLINE in flags
    if (cluster is None and storage_root is None) or (Path(run).is_dir() and not is_said):
        return None
    from autoprune.jobs.remote_run import RemoteRun

    root = opened_root(storage_root)
    joined = reached_cluster(cluster, root)
    return answered(lambda asked: RemoteRun(run, asked, root), joined, root)


def answered(ask: Callable[[S | None], T], cluster: S | None, root: StorageRoot | None) -> T:
    """What a cluster says; where it fails, as while its head dies, that is said, and the root is asked."""
    from autoprune.jobs.cluster import ClusterError

    try:
        return ask(cluster)
    except ClusterError as error:
        if root is None:
            raise
        say(f"{error}; what follows is of the storage root {root.address} alone")
        return ask(None)


def remote_status(run: RemoteRun) -> dict[str, Any]:
    """How a run is, from its cluster, or from its storage root where the cluster fails."""

    def ask(cluster: Cluster | None) -> dict[str, Any]:
        run.cluster = cluster
        return run.status()

    return answered(ask, run.cluster, run.root)


def opened_cluster(address: str | None) -> Cluster | None:
    """The cluster at an address, which is spoken to; None for none."""
    if address is None:
        return None
    from autoprune.jobs.cluster import Cluster

    return Cluster(address)


def reached_cluster(address: str | None, root: StorageRoot | None) -> Cluster | None:
    """As `opened_cluster`; where it does not answer and there is a root, that is said, and the root does."""
    return answered(opened_cluster, address, root)


def opened_root(address: str | None) -> StorageRoot | None:
    """The storage root at an address; None for none."""
    if address is None:
        return None
    from autoprune.jobs.storage_root import StorageRoot

    return StorageRoot(address)


def say(text: str) -> None:
    """A line on stderr: results alone go to stdout."""
    click.echo(text, err=True)
