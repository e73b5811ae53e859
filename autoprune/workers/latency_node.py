"""One process on the node that a model is for, where latency is timed while trials train elsewhere.

The node is told by a label of Ray's: `ray start --address HOST:PORT --labels latency-node=edge`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from autoprune.core.errors import AutopruneError
from autoprune.workers.carried_errors import CarriedError, received, sent
from autoprune.workers.pool import Factory, Job, Report, Result, attempt, describe

LABEL = "latency-node"
"""The label's name where only its value is given."""


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
    """The process that times; one that dies is started again by Ray, and its job done again.

    Raises:
        AutopruneError: when it finds no room within `patience` seconds, or its process dies; what the
            factory raised, as it is.
    """
    timer = (
        ray.remote(_Timer).options(**options, max_restarts=-1, max_task_retries=2).remote(factory, context)
    )
    asked = timer.hello.remote()
    try:
        begun = received(ray.get(asked, timeout=patience))
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
    """Does a job in the process that times, and gives its result."""

    def __init__(self, timer: Any) -> None:
        self._timer = timer

    def __call__(self, job: Job[Result]) -> Result:
        import ray

        report = received(ray.get(self._timer.run.remote(job)))
        if report.error is not None:
            raise noted(report.error)
        return cast(Result, report.result)


class _Timer:
    """The actor. All it needs is given to its constructor, so that Ray can start it anew."""

    def __init__(self, factory: Factory, context: Mapping[str, object]) -> None:
        # A constructor that raises would lose the error's class on its way through Ray.
        self._begun = attempt(lambda _: factory(context), None)

    def hello(self) -> tuple[Report, CarriedError | None]:
        """It is there, with all loaded, or why not."""
        return sent(self._begun._replace(result=None))

    def run(self, job: Job[Any]) -> tuple[Report, CarriedError | None]:
        if self._begun.error is not None:
            return sent(self._begun)
        return sent(attempt(cast(Callable[[object], object], self._begun.result), job))
