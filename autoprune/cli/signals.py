"""The end of a command: one line and an exit code, whatever ends it, signals too."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import TextIO

import click

from autoprune.api.ending import named_error, signals_came
from autoprune.api.signals import Listener
from autoprune.core.errors import AutopruneError
from autoprune.core.redaction import redacted


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Errors a user can cause become one line and an exit code; so do Ctrl-C, SIGTERM and SIGHUP.

    A signal raises KeyboardInterrupt wherever the driver is; where that is inside a compiled
    extension it may come out as another exception, so what counts is that a signal came.
    """
    _listen()
    try:
        yield
    except BaseException as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        named = named_error(error)
        lost = _cannot_be_emptied(sys.stdout)
        if lost and isinstance(error, BrokenPipeError):  # as in `autoprune status RUN --json | head -1`
            sys.exit(128 + signal.SIGPIPE)
        if signals_came:
            _say("; ".join(["stopped", *getattr(named, "__notes__", ())]))
            sys.exit(128 + signals_came[0])
        if isinstance(named, AutopruneError):
            _say("; ".join([str(named), *getattr(named, "__notes__", ())]))
            sys.exit(named.exit_code)
        raise


# ---- signals and streams ------------------------------------------------------------------------


def _listen() -> None:
    listener = Listener()
    listener.listen([signal.SIGINT, signal.SIGTERM])
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
        listener.listen([signal.SIGHUP])


def _say(text: str) -> None:
    """One line on stderr, which may be closed, or a file on a full disk: the exit code counts."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(f"autoprune: {redacted(text)}", err=True)


def _cannot_be_emptied(stream: TextIO) -> bool:
    """Whether what waits in a stream can go nowhere; it is dropped then, or Python fails again at its end."""
    with contextlib.suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        try:
            stream.flush()
            lost = any(event & select.POLLERR for _, event in poll.poll(0))  # a pipe that nobody reads
        except OSError:
            lost = True
        if lost:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return lost
    return False
