"""The command `watch`: a run's page while it runs, and what happens in the terminal."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoprune.cli.completion import OF_FOLDERS
from autoprune.cli.options import PLACE_OPTIONS, with_options
from autoprune.cli.places import remote_run, say
from autoprune.cli.signals import reported

if TYPE_CHECKING:
    from autoprune.watch.source import Followed


@click.command()
@click.argument("run", shell_complete=OF_FOLDERS)
@with_options(PLACE_OPTIONS)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port of the page.  [default: any that is free]"
)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@click.option("--json", "as_json", is_flag=True, help="Print events, one a line, and serve no page.")
@click.pass_context
def watch(
    context: click.Context,
    run: str,
    cluster: str | None,
    storage_root: str | None,
    port: int,
    show: bool,
    as_json: bool,
) -> None:
    """Show RUN's report while it runs: a page of this machine, with a button that ends the search.

    Ctrl-C ends the watching, and the search goes on. From another machine: ssh -L PORT:127.0.0.1:PORT HOST.

    \b
    autoprune watch runs/demo-minilm-20MB --open
    autoprune watch my-bert-20MB --storage-root s3://bucket/autoprune --json
    """
    with reported():
        from autoprune.watch.events import events
        from autoprune.watch.source import Followed, LocalSource, RemoteSource

        remote = remote_run(context, run, cluster, storage_root)
        if remote is None:
            followed = Followed(LocalSource(Path(run)), seconds=0.5)
        else:
            followed = Followed(RemoteSource(remote), seconds=3.0)
        if as_json:
            for event in events(followed):
                click.echo(json.dumps(event))
            return
        from autoprune.watch.server import WatchServer

        server = WatchServer(followed, port=port)
        try:
            click.echo(server.address)
            if show:
                click.launch(server.address)
            _follow(followed)
        finally:
            server.close()


def _follow(run: Followed) -> None:
    """Tell of a run until Ctrl-C: one line in place on a terminal, elsewhere a line a change."""
    from autoprune.watch.events import events, short_line

    try:
        while sys.stderr.isatty():
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"\r\033[K{short_line(run.status())[:width]}", nl=False, err=True)
            time.sleep(1.0)
        for event in events(run):
            if event["event"] == "status":
                say(short_line(event))
        say("the run has ended; the page stays until Ctrl-C")
        threading.Event().wait()
    except KeyboardInterrupt as error:
        error.add_note("the search goes on, if it was under way")
        raise
