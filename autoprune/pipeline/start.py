"""Before a search: its workers opened, its inputs loaded and held to the run, its budget checked."""

from __future__ import annotations

from typing import Literal

from autoprune.compress.library_folder import limit_bytes
from autoprune.core.progress import Progress
from autoprune.evaluation.worker import device_count, make_worker
from autoprune.pipeline.inputs import Inputs, check_budget, read_inputs
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, RunFolder, located
from autoprune.run.identity import hold_to
from autoprune.space.budget import Budget
from autoprune.workers import Pool, open_pool
from autoprune.workers.latency_node import parse_label


def plan(
    config: Config,
    run: RunFolder | None = None,
    progress: Progress | None = None,
    *,
    budget: Budget | None = None,
) -> tuple[Inputs, int]:
    """Load what was named and check that the budget can be met; bytes of the smallest candidate.

    run: one that is taken up, and held to what it began with before anything else. budget: another than the
    config's.
    """
    limit_bytes()  # a limit of the library that is none is said now, not by every worker
    config = config if run is None else located(config, run.path)
    inputs = read_inputs(config, was_fitted=run is not None and _was_fitted(run))
    if run is not None:
        hold_to(run, inputs.identity, progress or Progress())
    return inputs, check_budget(inputs, config.limits() if budget is None else budget)


def _was_fitted(run: RunFolder) -> bool:
    """Whether a run began with a head that was not the model's own; earlier versions drew one unasked."""
    before = run.about().inputs
    return before is not None and before.head is None


def open_workers(config: Config) -> Pool:
    """The workers of a search; they import what they need while the driver reads its inputs.

    Where the user does not say, the GPUs of this machine are shared out among them.
    """
    asked = config.workers
    gpus = asked.gpus_per_trial
    if gpus is None:
        have = device_count() if asked.address is None else 0
        gpus = min(1.0, have / max(1, asked.count))
    return open_pool(
        make_worker,
        workers=asked.count,
        gpus_per_worker=gpus,
        cpus_per_worker=asked.cpus_per_trial,
        address=asked.address,
        timer=None if asked.latency_node is None else parse_label(asked.latency_node),
    )


def expected_study(run: RunFolder) -> Literal["absent", "present", "either"]:
    """Whether a run's study is there: not before its search, and surely once trials were summed up.

    A run's own `study.db` may be moved away to begin anew.
    """
    if run.is_new:
        return "absent"
    return "present" if run.storage is not None and (run.path / FRONT).is_file() else "either"
