"""The end of a command: one line, an exit code and, for a run, its last status."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

import click

from autoprune.core.errors import AutopruneError, StoppedError
from autoprune.core.files import full_disk, read_only_disk
from autoprune.core.memory import is_out_of_memory
from autoprune.core.progress import add_line
from autoprune.core.redaction import redacted
from autoprune.run.folder import LOG
from autoprune.run.status import resume_command, worth_resuming, write_ending
from autoprune.workers.pool import describe

log = logging.getLogger(__name__)

_INSIST_SECONDS = 0.5
"""How often it is seen whether a signal was heard."""

_came: list[int] = []
"""Signals that came, in order. Handlers belong to the process, and so does this."""


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
        named = _named(error)
        lost = _cannot_be_emptied(sys.stdout)
        if lost and isinstance(error, BrokenPipeError):  # as in `autoprune status RUN --json | head -1`
            sys.exit(128 + signal.SIGPIPE)
        if _came:
            _say("; ".join(["stopped", *getattr(named, "__notes__", ())]))
            sys.exit(128 + _came[0])
        if isinstance(named, AutopruneError):
            _say("; ".join([str(named), *getattr(named, "__notes__", ())]))
            sys.exit(named.exit_code)
        raise


@contextlib.contextmanager
def ending_recorded(run: Path) -> Iterator[None]:
    """Work on a run inside: whatever ends it, the run's status says so, and how to go on."""
    try:
        yield
    except BaseException as error:
        named = _named(error)
        try:
            write_ending(run, reason=_reason(named), exit_code=exit_code(named))
        except Exception as later:  # must not hide what ended the run
            log.debug("the status could not be written: %s", describe(later))
        add_line(run / LOG, f"ended: {_reason(named)}")
        if _came:
            named.add_note("finished trials are saved")
        if not worth_resuming(run, exit_code(named)):
            named.add_note(f"{run} holds no trials and can be removed")
        elif "autoprune resume" not in str(named):
            named.add_note(f"go on with: {resume_command(run)}")
        if named is error:
            raise
        raise named from error
    write_ending(run, reason="", exit_code=0)


def exit_code(error: BaseException) -> int:
    """What a command ends with."""
    if _came:
        return 128 + _came[0]
    named = _named(error)
    return named.exit_code if isinstance(named, AutopruneError) else 1


def _named(error: BaseException) -> BaseException:
    """The error itself; one that tells what to do for a disk that takes nothing and memory at its end."""
    told = isinstance(error, AutopruneError) and error.exit_code != AutopruneError.exit_code
    if told or not isinstance(error, Exception):
        return error
    notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    if (cause := full_disk(error)) is not None:
        return StoppedError(f"the disk is full ({_line(cause)}{notes}): make room")
    if isinstance(error, AutopruneError):
        return error
    if (cause := read_only_disk(error)) is not None:
        return StoppedError(f"the disk can only be read ({_line(cause)}{notes}): mount it for writing")
    if is_out_of_memory(error):
        return StoppedError(
            f"memory is used up ({_line(error)}): close other programs, or ask for fewer --workers"
        )
    return error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def _reason(error: BaseException) -> str:
    """Why a run ended, in a line."""
    if _came:
        return f"signal {signal.Signals(_came[0]).name}"
    return _line(error) if isinstance(error, AutopruneError) else f"an error of ours: {describe(error)}"


# ---- signals and streams ------------------------------------------------------------------------


def _listen() -> None:
    _came.clear()

    def stop(number: int, frame: FrameType | None) -> None:
        _came.append(number)
        if len(_came) == 1:  # a second one must not cut the saving short
            signal.signal(signal.SIGALRM, insist)
            signal.setitimer(signal.ITIMER_REAL, _INSIST_SECONDS, _INSIST_SECONDS)
            raise KeyboardInterrupt

    def insist(number: int, frame: FrameType | None) -> None:
        # Python drops what is raised in a destructor or a callback of its garbage collector. While an error
        # is dealt with anywhere, the signal was heard, and what has finished is being saved.
        if sys.exc_info()[0] is None:
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
        signal.signal(signal.SIGHUP, stop)


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
