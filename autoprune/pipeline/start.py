"""Before a search: its workers opened, its inputs loaded and held to the run, its budget checked."""

from __future__ import annotations

from autoprune.compress.library_folder import limit_bytes
from autoprune.core.cache import check_cache
from autoprune.core.errors import AutopruneError
from autoprune.core.processors import usable_processors
from autoprune.core.progress import Progress
from autoprune.evaluation.worker import device_count, make_worker
from autoprune.models.image_processor import earlier_pixels
from autoprune.pipeline.inputs import Inputs, check_budget, read_inputs
from autoprune.run.cleaning import recorded_cleaning
from autoprune.run.config import Config
from autoprune.run.folder import RunFolder
from autoprune.run.identity import hold_to
from autoprune.run.whereabouts import check_inputs, located
from autoprune.space.budget import Budget
from autoprune.workers import Pool, cluster_asked_for, open_pool
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
    check_cache()
    if run is None:
        inputs = read_inputs(config, progress=progress)
    else:
        check_inputs(config, run.path)
        earlier = earlier_pixels(run.path / "tokenizer")
        inputs = read_inputs(
            located(config, run.path),
            earlier,
            was_fitted=_was_fitted(run),
            left_out=recorded_cleaning(run.path),
            progress=progress,
        )
        hold_to(run, inputs.identity, progress or Progress())
    return inputs, check_budget(inputs, config.limits() if budget is None else budget)


def _was_fitted(run: RunFolder) -> bool:
    """Whether a run began with a head that was not the model's own; earlier versions drew one unasked."""
    before = run.about().inputs
    return before is not None and before.head is None


def open_workers(config: Config, progress: Progress) -> Pool:
    """The workers of a search; they import what they need while the driver reads its inputs.

    Where the user does not say, there are as many as this machine has processors, or the cluster room for,
    and the GPUs of this machine are shared out among them. progress: hears of workers that die or wait.
    """
    asked = config.workers
    if asked.count == 0 and config.search.trial_timeout_s is not None:
        raise AutopruneError(
            "--trial-timeout needs workers: with --workers 0 trials run in this process, which cannot end "
            "them. Give --workers 1 or more, or leave --trial-timeout out"
        )
    gpus, address, count = asked.gpus_per_trial, cluster_asked_for(asked.address), asked.count
    if address is None:
        count = usable_processors() if count is None else count
        gpus = min(1.0, device_count() / max(1, count)) if gpus is None else gpus
    return open_pool(
        make_worker,
        workers=count,
        gpus_per_worker=gpus,
        cpus_per_worker=asked.cpus_per_trial,
        address=address,
        timer=None if asked.latency_node is None else parse_label(asked.latency_node),
        tell=lambda text: progress.line(f"Workers   {text}"),
        wait=asked.wait_s,
    )
