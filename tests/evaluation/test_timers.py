"""Where latency is taken: in the worker's own process, or by the worker on the latency node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from autoprune.evaluation.jobs import (
    ModelRef,
    Original,
    PackedModel,
    TimeModel,
    TimeTogether,
    Whereabouts,
)
from autoprune.evaluation.measure import TIMING_PAIRS, Timing
from autoprune.evaluation.timers import LocalTimer, NodeTimer
from autoprune.evaluation.worker import Worker
from autoprune.space.levels import UNTOUCHED, Candidate

CANDIDATE = Candidate((("layer", UNTOUCHED),))
PACKED, OTHER = PackedModel(b"weights"), PackedModel(b"others")
TIMING = Timing(2.0, 1.0, 3.0, 4.0, 0.5, 0.5)
PLACE = ["a machine"]


class Bench:
    """A workbench whose models do nothing, and which says when one ran, and whether it ran alone."""

    def __init__(self) -> None:
        self.opened: list[ModelRef] = []
        self.calls: list[tuple[object, bool]] = []
        self.is_alone = False
        self.timing_batch: dict[str, Any] = {}
        self.room = SimpleNamespace(alone=self._alone)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.is_alone = True
        yield
        self.is_alone = False

    def _run(self, model: object) -> Any:
        def run(batch: object) -> Any:
            self.calls.append((model, self.is_alone))
            return np.zeros((1, 2), np.float32)

        return run

    def original(self) -> Any:
        return self._run("original")

    @contextlib.contextmanager
    def runners(self, *models: ModelRef) -> Iterator[list[Any]]:
        self.opened += models
        yield [self._run(model) for model in models]

    def packed(self, model: ModelRef) -> ModelRef:
        return PACKED if isinstance(model, Candidate) else model


class Node:
    """The worker on the latency node."""

    def __init__(self) -> None:
        self.jobs: list[object] = []

    def __call__(self, job: object) -> object:
        self.jobs.append(job)
        match job:
            case TimeModel():
                return TIMING
            case TimeTogether(models):
                return [TIMING] * len(models)
            case Whereabouts():
                return PLACE
        raise AssertionError(job)


def local() -> tuple[LocalTimer, Bench]:
    bench = Bench()
    return LocalTimer(cast(Any, bench)), bench


def on_node() -> tuple[NodeTimer, Bench, Node]:
    bench, node = Bench(), Node()
    return NodeTimer(cast(Any, bench), cast(Any, node)), bench, node


@pytest.mark.parametrize("model", [Original(), CANDIDATE, PACKED])
def test_here_a_model_is_loaded_and_timed_alone_beside_the_original(model: ModelRef) -> None:
    timer, bench = local()
    timer.time(model)
    assert bench.opened == [model]
    assert all(alone for _, alone in bench.calls)
    names = [name for name, _ in bench.calls]
    assert names.count(model) == names.count("original") >= TIMING_PAIRS


def test_here_a_model_that_is_loaded_is_not_loaded_again() -> None:
    timer, bench = local()
    timer.time_loaded(bench._run("mine"), PACKED)
    assert bench.opened == []
    assert {name for name, _ in bench.calls} == {"mine", "original"}
    assert all(alone for _, alone in bench.calls)


def test_here_several_are_timed_in_turn() -> None:
    timer, bench = local()
    assert len(timer.time_together((PACKED, OTHER))) == 2
    last = [name for name, _ in bench.calls[-3:]]
    assert sorted(map(str, last)) == sorted(map(str, ("original", PACKED, OTHER)))
    assert all(alone for _, alone in bench.calls)


@pytest.mark.parametrize(("model", "sent"), [(Original(), Original()), (CANDIDATE, PACKED), (OTHER, OTHER)])
def test_the_node_gets_a_candidate_packed_as_it_has_no_library(model: ModelRef, sent: ModelRef) -> None:
    timer, bench, node = on_node()
    assert timer.time(model) == TIMING
    assert node.jobs == [TimeModel(cast(Any, sent))]
    assert bench.calls == []


def test_the_node_gets_a_loaded_model_packed() -> None:
    timer, bench, node = on_node()
    assert timer.time_loaded(bench._run("mine"), OTHER) == TIMING
    assert node.jobs == [TimeModel(OTHER)]
    assert bench.calls == []


def test_a_worker_has_all_that_is_timed_done_by_its_timer() -> None:
    timer, bench, node = on_node()
    worker = Worker(cast(Any, bench), timer)
    assert worker(TimeModel(CANDIDATE)) == TIMING
    assert worker(TimeTogether((OTHER, CANDIDATE))) == [TIMING, TIMING]
    assert worker(Whereabouts()) == PLACE
    assert node.jobs == [TimeModel(PACKED), TimeTogether((OTHER, PACKED)), Whereabouts()]
    assert bench.calls == []


def test_what_is_no_job_is_refused() -> None:
    timer, bench, _ = on_node()
    with pytest.raises(TypeError, match="no such job: 'time'"):
        Worker(cast(Any, bench), timer)("time")


def test_a_packed_model_is_told_without_its_bytes() -> None:
    assert repr(TimeModel(PACKED)) == "TimeModel(model=PackedModel())"
