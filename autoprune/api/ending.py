"""How work on a run ends: a reason and an exit code in its status, and how to go on.

`signals_came` lists the signals that the process was sent; who listens to them adds them (`api/signals`).
"""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

from autoprune.core.errors import AutopruneError, BudgetError, StoppedError
from autoprune.core.files import full_disk, read_only_disk
from autoprune.core.memory import is_out_of_memory
from autoprune.core.progress import add_line
from autoprune.run.folder import LOG
from autoprune.run.status import resume_command, worth_resuming, write_ending
from autoprune.workers.pool import describe

log = logging.getLogger(__name__)

signals_came: list[int] = []
"""Signals that came, in order. Handlers belong to the process, and so does this."""


@contextlib.contextmanager
def ending_recorded(run: Path) -> Iterator[None]:
    """Work on a run inside: whatever ends it, the run's status says so, and how to go on."""
    try:
        yield
    except BaseException as error:
        told = named_error(error)
        limits = told.limits if isinstance(told, BudgetError) else ()
        try:
            write_ending(run, reason=_reason(told), exit_code=exit_code(told), limits=limits)
        except Exception as later:  # must not hide what ended the run
            log.debug("the status could not be written: %s", describe(later))
        add_line(run / LOG, f"ended: {_reason(told)}")
        if signals_came:
            told.add_note("finished trials are saved")
        if not worth_resuming(run, exit_code(told)):
            told.add_note(f"{run} holds no trials and can be removed")
        elif "autoprune resume" not in str(told):
            told.add_note(f"go on with: {resume_command(run, limits)}")
        if told is error:
            raise
        raise told from error
    write_ending(run, reason="", exit_code=0)


def exit_code(error: BaseException) -> int:
    """What a command ends with."""
    if signals_came:
        return 128 + signals_came[0]
    told = named_error(error)
    if isinstance(told, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return told.exit_code if isinstance(told, AutopruneError) else 1


def named_error(error: BaseException) -> BaseException:
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
    if signals_came:
        return f"signal {signal.Signals(signals_came[0]).name}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return _line(error) if isinstance(error, AutopruneError) else f"an error of ours: {describe(error)}"
