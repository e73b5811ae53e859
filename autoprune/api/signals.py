"""Signals that end a search: who listens to them, and what the caller of the Python interface gets."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType

from autoprune.api.ending import signals_came
from autoprune.core.errors import StoppedError

_INSIST_SECONDS = 0.5
"""How often it is seen whether a signal was heard."""


class Listener:
    """Signals raise KeyboardInterrupt wherever the main thread is, and are noted in `signals_came`."""

    def __init__(self) -> None:
        self.ends_work = True
        """Whether a signal still raises; afterwards it is noted alone."""
        signals_came.clear()

    def listen(self, numbers: Iterable[int]) -> None:
        """Take the signals. Python allows it in the main thread alone."""
        for number in numbers:
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        signals_came.append(number)
        if self.ends_work and len(signals_came) == 1:  # a second one must not cut the saving short
            signal.signal(signal.SIGALRM, self._insist)
            signal.setitimer(signal.ITIMER_REAL, _INSIST_SECONDS, _INSIST_SECONDS)
            raise KeyboardInterrupt

    def _insist(self, number: int, frame: FrameType | None) -> None:
        # Python drops what is raised in a destructor or a callback of its garbage collector. While an error
        # is dealt with anywhere, the signal was heard, and what has finished is being saved.
        if self.ends_work and sys.exc_info()[0] is None:
            raise KeyboardInterrupt


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM, as `autoprune stop` sends it, ends the work inside as `StoppedError`; not the whole process.

    Outside of the main thread, where Python lets nobody take signals, it ends the process as before. The
    handlers that were there are put back; a signal that comes too late for the work goes to them.

    Raises:
        StoppedError: once SIGTERM came, with what the error that ended the work had as notes.
    """
    taken = (signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in taken}
    if threading.current_thread() is not threading.main_thread() or None in before.values():
        yield
        return
    alarm = signal.getitimer(signal.ITIMER_REAL)
    listener, stopped = Listener(), False
    try:
        listener.listen([signal.SIGTERM])
        yield
    except BaseException as error:
        listener.ends_work = False
        stopped = bool(signals_came)
        if not stopped:
            raise
        raise StoppedError("; ".join(["stopped by SIGTERM", *getattr(error, "__notes__", ())])) from error
    finally:
        listener.ends_work = False
        if signals_came:
            signal.setitimer(signal.ITIMER_REAL, *alarm)
        for number, handler in before.items():
            signal.signal(number, handler)
        late = bool(signals_came) and not stopped
        signals_came.clear()
        if late:
            signal.raise_signal(signal.SIGTERM)
