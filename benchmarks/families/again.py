"""Models of a finished run once more: timed in turn, so that drift cancels; exports scored."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import autoprune
from autoprune.evaluation.measure import logits_of, teacher_answers, time_interleaved
from autoprune.pipeline.inputs import read_inputs
from autoprune.run.config import Config
from autoprune.run.folder import run_config
from autoprune.targets import Runner, get_target
from autoprune.targets.packed import read_packed, torch_runner
from benchmarks.harness.commands import Run

PAIRS = 40


def times_of(run: Run, trial: dict[str, Any], others: list[dict[str, Any]]) -> list[float]:
    """A trial's time in shares of each other trial's, the median of pairs that follow each other.

    The trials' models are those that the run has kept. Nothing else should run meanwhile.
    """
    config = _config(run)
    task, target = read_inputs(config).task, get_target(config.search.target)
    batch = task.timing_batch(config.timing.batch, config.timing.sequence)

    with TemporaryDirectory(prefix="autoprune-") as name:

        def loaded(one: dict[str, Any]) -> Runner:
            folder = Path(name) / str(one["number"])
            folder.mkdir()
            model = read_packed(run.path / "trials" / f"{one['number']:04d}")
            target.save(model, folder, task.batch(task.validation, task.example_rows))
            return target.load(folder)

        ours = loaded(trial)
        return [time_interleaved(ours, loaded(folder), batch, pairs=PAIRS).ratio for folder in others]


def agreement_of(run: Run, folder: Path) -> float:
    """An export's agreement with the run's original on its test rows, %, by torch."""
    inputs = read_inputs(_config(run))
    task = inputs.task
    ours, theirs = (torch_runner(model, task.kind) for model in (autoprune.load(folder), inputs.loaded.model))
    return task.score(task.test, logits_of(ours, task, task.test), teacher_answers(theirs, task, task.test))


def _config(run: Run) -> Config:
    return run_config(run.path)
