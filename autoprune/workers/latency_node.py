"""One process on the node that a model is for, where latency is timed while trials train elsewhere.

The node is told by a label of Ray's: `ray start --address HOST:PORT --labels latency-node=edge`. While it is
away, workers keep what they have trained and wait; the pool tells, and stops the search after a while.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from autoprune.core.errors import AutopruneError, StoppedError
from autoprune.workers.carried_errors import CarriedError, received, sent
from autoprune.workers.pool import Factory, Job, Report, Result, attempt, describe
from autoprune.workers.work_clock import CLOCK

log = logging.getLogger(__name__)

LABEL = "latency-node"
"""The label's name where only its value is given."""

AWAY_SECONDS = 600.0
"""How long a search waits for a latency node that is away."""

DEATHS = 3
"""Times that a model may end the process that times it."""

_ASK_SECONDS = 5.0  # between two questions whether the node's process is there
_PAUSE_SECONDS = 1.0  # of a worker, until it tries the node again
_WORD_SECONDS = 30.0  # between two words on a node that is away
_SILENT = 6  # times the patience: a process that is there may time many models before it answers


def parse_label(text: str) -> tuple[str, str]:
    """A label's name and value.

    >>> parse_label("edge"), parse_label("device=pi-5")
    (('latency-node', 'edge'), ('device', 'pi-5'))

    Raises:
        AutopruneError: where either is empty.
    """
    name, _, value = text.rpartition("=")
    if not value or text.startswith("="):
        raise AutopruneError(f"--latency-node {text!r}: give VALUE (of the label {LABEL}) or NAME=VALUE")
    return name or LABEL, value


def check_label(ray: Any, label: tuple[str, str]) -> None:
    """Raise `AutopruneError` where no node that is alive has the label: Ray would wait for ever."""
    name, value = label
    alive = [node["Labels"] for node in ray.nodes() if node["Alive"]]
    if any(labels.get(name) == value for labels in alive):
        return
    have = sorted({f"{name}={labels[name]}" for labels in alive if name in labels})
    raise AutopruneError(
        f"none of the cluster's {len(alive)} nodes has the label {name}={value}"
        + (f" (there is {', '.join(have)})" if have else "")
        + f"; start it with: ray start --address HOST:PORT --labels {name}={value}"
    )


def hire_timer(
    ray: Any, options: Mapping[str, Any], factory: Factory, context: object, patience: float
) -> Any:
    """The process that times; one that dies is started again by Ray, where the label is.

    Raises:
        AutopruneError: when it finds no room within `patience` seconds, or its process dies; what the
            factory raised, as it is.
    """
    timer = ray.remote(_Timer).options(**options, max_restarts=-1).remote(factory, context)
    asked = timer.hello.remote()
    try:
        _, message = ray.get(asked, timeout=patience)
        begun = received(message)
    except ray.exceptions.GetTimeoutError as error:
        ray.kill(timer)
        raise AutopruneError(
            f"the latency node found no room for one worker in {patience:.0f} s: "
            "it needs as many CPUs (and GPUs) as a trial's worker"
        ) from error
    except ray.exceptions.RayActorError as error:
        raise AutopruneError(f"the latency node's worker could not start: {describe(error)}") from error
    if begun.error is not None:
        ray.kill(timer)
        raise noted(begun.error)
    return timer


def noted(error: Exception) -> Exception:
    """An error that says where it was raised."""
    error.add_note("on the latency node")
    return error


class Elsewhere:
    """Does a job in the process that times, and gives its result; waits where that is away.

    A job that ends this process `DEATHS` times is to blame for it; one whose node is lost is not.
    """

    def __init__(self, timer: Any) -> None:
        self._timer = timer
        self._process: tuple[str, int] | None = None

    def __call__(self, job: Job[Result]) -> Result:
        with CLOCK.waiting():
            report = self._report(job)
        if report.error is not None:
            raise noted(report.error)
        return cast(Result, report.result)

    def _report(self, job: Job[Any]) -> Report:
        """What the process that times says of a job."""
        import ray

        deaths = 0
        while True:
            before = self._process = self._process or self._who()
            try:
                return received(ray.get(self._timer.run.remote(job)))
            except ray.exceptions.RayTaskError:
                raise  # what could not be pickled
            except ray.exceptions.RayError as error:
                self._process = self._who()
                same_node, again = self._process[0] == before[0], self._process != before
                deaths += same_node and again
                if deaths == DEATHS:
                    text = f"the process that times died {DEATHS} times of this model: {describe(error)}"
                    raise noted(RuntimeError(text)) from None

    def _who(self) -> tuple[str, int]:
        """The node and the process that time, once they are there: the pool sees to it that this ends."""
        import ray

        while True:
            try:
                who, _ = ray.get(self._timer.hello.remote())
                return cast(tuple[str, int], who)
            except ray.exceptions.RayError:
                time.sleep(_PAUSE_SECONDS)


class TimerWatch:
    """Whether the process that times is there: asked by the pool of the driver, which tells and gives up.

    limit: seconds that it may be away.
    """

    def __init__(
        self, ray: Any, timer: Any, label: tuple[str, str], limit: float, tell: Callable[[str], None]
    ) -> None:
        self._ray, self._timer, self._limit, self._tell = ray, timer, limit, tell
        self._name = f"the latency node ({label[0]}={label[1]})"
        self._start = f"ray start --address HOST:PORT --labels {label[0]}={label[1]}"
        self._asked: Any = None
        self._next = 0.0
        self._heard, self._told = time.monotonic(), -math.inf
        self.trouble = ""

    def look(self) -> None:
        """See whether it has answered, and ask again after a while.

        Raises:
            StoppedError: when it was away for too long, or came back unable to time.
        """
        now = time.monotonic()
        if self._asked is None and now >= self._next:
            self._asked = self._timer.hello.remote()
        if self._asked is not None and self._ray.wait([self._asked], timeout=0)[0]:
            self._hear(now)
        silent = now - self._heard
        if not self.trouble and silent < self._limit:
            return
        words = self.trouble or "it has answered nothing"
        if silent >= self._limit * (1 if self.trouble else _SILENT):
            raise StoppedError(
                f"{self._name} was away for {silent:.0f} s ({words}). What was trained and not timed is "
                f"tried again when the run goes on; start the node with: {self._start}"
            )
        if now - self._told >= _WORD_SECONDS:
            self._told = now
            self._tell(
                f"{self._name} is away since {silent:.0f} s ({words}): trials wait for it, "
                f"{self._limit:.0f} s at most. It comes back with: {self._start}"
            )

    def _hear(self, now: float) -> None:
        asked, self._asked, self._next = self._asked, None, now + _ASK_SECONDS
        try:
            _, message = self._ray.get(asked)
        except self._ray.exceptions.RayError as error:
            self.trouble = "its process does not answer"
            log.debug("%s: %s", self._name, describe(error))
            self._next = now + _PAUSE_SECONDS
            if getattr(error, "actor_init_failed", False) or "creation task" in str(error):
                last = str(error).strip().splitlines()[-1]
                raise StoppedError(f"{self._name} came back and cannot time: {last}") from error
            return
        begun = received(message)
        if begun.error is not None:
            raise StoppedError(f"{self._name} came back and cannot time: {describe(begun.error)}")
        if self.trouble:
            self._tell(f"{self._name} is back after {now - self._heard:.0f} s")
        self.trouble, self._heard, self._told = "", now, -math.inf


class _Timer:
    """The actor. All it needs is given to its constructor, so that Ray can start it anew."""

    def __init__(self, factory: Factory, context: Mapping[str, object]) -> None:
        # A constructor that raises would lose the error's class on its way through Ray.
        self._begun = attempt(lambda _: factory(context), None)

    def hello(self) -> tuple[tuple[str, int], tuple[Report, CarriedError | None]]:
        """Its node and process, and that it is there with all loaded, or why not."""
        import ray

        who = ray.get_runtime_context().get_node_id(), os.getpid()
        return who, sent(self._begun._replace(result=None))

    def run(self, job: Job[Any]) -> tuple[Report, CarriedError | None]:
        if self._begun.error is not None:
            return sent(self._begun)
        return sent(attempt(cast(Callable[[object], object], self._begun.result), job))
