"""A trial whose fine-tune does not fit into memory is tried with half a batch at a time, then fails of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoprune.compress.stitch import Stitched
from autoprune.core.progress import Progress
from autoprune.evaluation.finetune import Recipe, finetune
from autoprune.evaluation.jobs import Evaluate, Evaluated, FindRoom, Room
from autoprune.evaluation.lesson import Lesson
from autoprune.evaluation.worker import Worker, make_worker
from autoprune.pipeline.inputs import read_inputs
from autoprune.pipeline.prepare import prepare
from autoprune.run.config import Config
from autoprune.space.levels import Candidate, Level
from tests.support.made_run import write_model, write_rows

RECIPE = Recipe(steps=3, batch_size=16, learning_rate=1e-3)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Worker:
    folder = tmp_path_factory.mktemp("worker")
    (folder / "model").mkdir()
    write_model(folder / "model")
    write_rows(folder / "rows.csv", rows=200)
    config = Config.of(
        model=str(folder / "model"), dataset=str(folder / "rows.csv"), target="packed", max_length=16,
        sequence=16, calibration_rows=32,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOPRUNE_CACHE", str(folder / "cache"))
        return make_worker({"setting": prepare(config, read_inputs(config), Progress(quiet=True)).setting})


@pytest.fixture(autouse=True)
def _own_cache(worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path))


def small(worker: Worker) -> Candidate:
    """Each unit at the level next to 2 bits."""
    units = worker.workbench.setting.units
    chosen = {unit.name: min(unit.levels(0.0), key=lambda lv: abs(lv.storage.bits - 2)) for unit in units}
    assert any(level != Level.of(0.0, 32) for level in chosen.values())
    return Candidate(tuple(chosen.items()))


def memory_for(rows: int, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let no model be trained on more rows at once; the batches that were tried."""
    made, sizes = worker.workbench.stitched, list[int]()

    def stitched(candidate: Candidate) -> Stitched:
        fresh = made(candidate)

        def refuse(_: Any, args: Any, kwargs: Any) -> None:
            batch = next(iter(kwargs.values())) if kwargs else args[0]
            if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
                sizes.append(len(batch))
                if len(batch) > rows:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

        fresh.model.register_forward_pre_hook(refuse, with_kwargs=True)
        return fresh

    monkeypatch.setattr(worker.workbench, "stitched", stitched)
    return sizes


def test_half_a_batch_at_a_time_is_tried(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = memory_for(8, worker, monkeypatch)
    evaluated = worker(Evaluate(small(worker), RECIPE, 0, 1.0))
    assert isinstance(evaluated, Evaluated)
    assert sizes == [16] + [8] * 2 * RECIPE.steps


def test_what_does_not_fit_by_halves_fails_with_that_cause(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = memory_for(4, worker, monkeypatch)
    with pytest.raises(MemoryError, match=r"half a batch does not fit into memory.*CUDA out of memory"):
        worker(Evaluate(small(worker), RECIPE, 0, 1.0))
    assert sizes == [16, 8]


def test_another_error_is_not_tried_again(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoprune.evaluation.worker.finetune", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        worker(Evaluate(small(worker), RECIPE, 0, 1.0))


def test_halves_have_the_gradients_of_the_whole(worker: Worker) -> None:
    """Not the loss's mean over halves of unlike weight: the weights come out alike but for rounding."""
    bench, trained = worker.workbench, list[dict[str, Any]]()
    lesson = Lesson(bench.task, bench.task.train, bench.setting.train_answers)
    for parts in (1, 2, 3):
        stitched = bench.stitched(small(worker))
        again = finetune(stitched, lesson, RECIPE, seed=0, parts=parts)
        trained.append({name: tensor.numpy() for name, tensor in again.model.state_dict().items()})
    for other in trained[1:]:
        for name, values in trained[0].items():
            np.testing.assert_allclose(other[name], values, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_job_has_half_the_memory_once(worker: Worker) -> None:
    job = Evaluate(small(worker), RECIPE, 0, 1.0)
    lighter = job.lighter()
    assert lighter is not None
    assert (lighter.parts, lighter.recipe, lighter.candidate) == (2, job.recipe, job.candidate)
    assert lighter.lighter() is None


def test_what_fits_is_worked_out_before_a_trial_and_a_batch_is_taken_in_as_many_parts(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = worker(FindRoom(RECIPE.batch_size))
    assert isinstance(whole, Room)
    assert (whole.device, whole.parts) == ("cpu", 1)
    assert whole.free_bytes is not None
    assert 0 < whole.needed_bytes < whole.free_bytes
    # A model trained on 5 rows at a time at most fits into this; a batch of 16 is then taken in 4 parts.
    room = worker.workbench.training_memory.needed(5)
    monkeypatch.setattr("autoprune.evaluation.training_memory.available_bytes", lambda: room)
    told = worker(FindRoom(RECIPE.batch_size))
    assert isinstance(told, Room)
    assert told.parts == 4
    assert told.needed_bytes <= room
    sizes = memory_for(5, worker, monkeypatch)
    done = worker(Evaluate(small(worker), RECIPE, 0, 1.0))
    assert isinstance(done, Evaluated)
    assert max(sizes) <= 5  # and none had to be tried twice
