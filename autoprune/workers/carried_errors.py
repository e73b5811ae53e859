"""How an error travels from a worker to the driver with its class, message and attributes."""

from __future__ import annotations

import pickle  # nosec B403 # between the processes of one search; no file is read so
from contextlib import suppress
from dataclasses import dataclass

from autoprune.core import errors
from autoprune.workers.pool import Report, traced


@dataclass(frozen=True)
class CarriedError:
    """An error as bytes; `plain` stands in where its class cannot be rebuilt."""

    pickled: bytes
    plain: Exception


def sent(report: Report) -> tuple[Report, CarriedError | None]:
    """A report that can be pickled, and its error apart."""
    if report.error is None:
        return report, None
    return report._replace(error=None), CarriedError(_pickled(report.error), stand_in(report.error))


def received(message: tuple[Report, CarriedError | None]) -> Report:
    """A report as the worker made it."""
    report, carried = message
    if carried is None:
        return report
    error: object = None
    with suppress(Exception):  # a class that is not on this machine, or cannot be made from its `args`
        error = pickle.loads(carried.pickled)  # nosec B301 # of a worker that this driver started
    kept = error if isinstance(error, Exception) else carried.plain
    return report._replace(error=traced(kept, report.trace))


def stand_in(error: Exception) -> Exception:
    """An error that names the class of another and keeps its message and, if it is of ours, its exit code."""
    text = f"{type(error).__name__}: {error}"
    for kind in type(error).__mro__:
        if kind.__module__ == errors.__name__ and issubclass(kind, errors.AutopruneError):
            return kind(text)
    return RuntimeError(text)


def _pickled(error: Exception) -> bytes:
    """The pickled error; empty where unpickling would not give the same error."""
    from ray import cloudpickle  # what pickle cannot name: classes of a script or a notebook

    with suppress(Exception):
        data: bytes = cloudpickle.dumps(error)
        again = pickle.loads(data)  # nosec B301 # what was written the line before
        if type(again).__qualname__ == type(error).__qualname__ and str(again) == str(error):
            return data
    return b""
