"""Errors and signals become one line and an exit code."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import click

from autoprune.core.errors import AutopruneError


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Errors a user can cause become one line and an exit code; so do Ctrl-C and SIGTERM.

    A signal raises KeyboardInterrupt wherever the driver is; where that is inside a compiled
    extension it may come out as another exception, so what counts is that a signal came.
    """
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:  # a second one must not cut the saving short
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        yield
    except AutopruneError as error:
        click.echo(f"autoprune: {error}", err=True)
        sys.exit(error.exit_code)
    except BaseException:
        if not came:
            raise
        click.echo("autoprune: stopped; finished trials are saved", err=True)
        sys.exit(128 + came[0])
