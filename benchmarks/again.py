"""Models of a finished run timed again, in turn with each other: what drifts over minutes cancels."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from autoprune.files import read_json
from autoprune.inputs import read_inputs
from autoprune.measure import time_interleaved
from autoprune.run import RUN, Config
from autoprune.targets import Runner, get_target
from autoprune.targets.packed import read_packed
from benchmarks.commands import Run

PAIRS = 40


def times_of(run: Run, trial: dict[str, Any], others: list[dict[str, Any]]) -> list[float]:
    """A trial's time in shares of each other trial's, the median of pairs that follow each other.

    The trials' models are those that the run has kept. Nothing else should run meanwhile.
    """
    config = Config.from_json(read_json(run.path / RUN)["config"])
    task, target = read_inputs(config).task, get_target(config.target)
    batch = task.timing_batch(config.batch, config.sequence)

    with TemporaryDirectory(prefix="autoprune-") as name:

        def loaded(one: dict[str, Any]) -> Runner:
            folder = Path(name) / str(one["number"])
            folder.mkdir()
            model = read_packed(run.path / "trials" / f"{one['number']:04d}")
            target.save(model, folder, task.batch(task.validation, task.example_rows))
            return target.load(folder)

        ours = loaded(trial)
        return [time_interleaved(ours, loaded(one), batch, pairs=PAIRS).ratio for one in others]
