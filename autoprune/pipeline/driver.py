"""The search: prepare, measure what variants cost, run baselines and trials on workers, sum up.

Knows no model family, no runtime and no storage: it moves candidates from the study to the workers
and their measurements back, and keeps the run folder true.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from autoprune.core.errors import BudgetError
from autoprune.core.files import written_whole
from autoprune.core.progress import Progress
from autoprune.evaluation.jobs import FindRoom
from autoprune.pipeline.answer_changes import look_at_finalists
from autoprune.pipeline.answers import answer_budget, unmet
from autoprune.pipeline.baselines import run_baselines, train_rivals
from autoprune.pipeline.finalists import score_finalists, time_again
from autoprune.pipeline.folds import cross_validate, folds_of
from autoprune.pipeline.head_classes import has_names_of_head
from autoprune.pipeline.inputs import Inputs, check_budget
from autoprune.pipeline.lines import run_lines
from autoprune.pipeline.measured_costs import measure_costs
from autoprune.pipeline.opened import OpenedSearch, open_search
from autoprune.pipeline.prepare import Prepared, prepare
from autoprune.pipeline.robustness import examine_finalists
from autoprune.pipeline.trials import run_trials
from autoprune.run.cleaning import record_cleaning
from autoprune.run.folder import FRONT, RunFolder
from autoprune.run.folds import recorded_folds
from autoprune.run.identity import hold_to
from autoprune.run.lines import recorded_lines
from autoprune.run.robustness import recorded_robustness
from autoprune.run.standing import Summary
from autoprune.run.status import resume_command
from autoprune.run.text import size_text
from autoprune.space.trial import Trial
from autoprune.tasks.class_balance import check_original
from autoprune.tracking.tracking import Tracking
from autoprune.workers import Pool
from autoprune.workers.pool import describe, run_one

log = logging.getLogger(__name__)


def search(
    run: RunFolder,
    inputs: Inputs,
    pool: Pool,
    progress: Progress,
    *,
    trials: int,
    new_budget: bool = False,
    on_trial: Callable[[Trial], object] | None = None,
    followed: Tracking | None = None,
) -> Summary:
    """Run or go on with a search until `trials` trials are finished, baselines not counted.

    new_budget: whether the run was searched under another one; the solver answers it first.
    on_trial: hears of each trial and baseline once the study has it; what it raises ends the search, which is
    saved. followed: the trackers that the run is followed in.

    Raises:
        BudgetError: when no finished trial is within the budget.
        FailedTrialsError: as `run_trials` raises.
        AutopruneError: before anything is compressed, when the original model is no better than guessing.
    """
    config = run.config()
    hold_to(run, inputs.identity, progress)
    if inputs.cleaned is not None:
        record_cleaning(run.path, inputs.cleaned)
    run.workers = lambda: pool.census().as_json()
    run.status("preparing")
    pool.wait_for_room()
    prepared = prepare(config, inputs, progress)
    if config.search.folds:
        folds_of(prepared, config)  # rows that cannot be dealt are refused now, not after the trials
    if not (run.path / FRONT).is_file():
        _hold_to_guessing(prepared)
    if not (run.path / "tokenizer").is_dir():
        with written_whole(run.path / "tokenizer") as temporary:
            inputs.loaded.save_inputs(temporary)
    pool.start({"setting": prepared.setting})
    _say_room(prepared, pool, progress)
    limit = config.search.timeout_s
    deadline = None if limit is None else time.monotonic() + limit
    costed = measure_costs(run, prepared, pool, progress)
    check_budget(inputs, config.limits(), costed.costs)
    opened = open_search(
        run, prepared, costed, pool, progress, wanted=trials, deadline=deadline, on_trial=on_trial,
        followed=followed,
    )  # fmt: skip
    return drive(opened, new_budget=new_budget)


def _say_room(prepared: Prepared, pool: Pool, progress: Progress) -> None:
    """Say what a fine-tune takes of a worker's memory."""
    if not prepared.recipe.steps:
        return
    room = run_one(pool, FindRoom(prepared.recipe.batch_size))
    free = "" if room.free_bytes is None else f" of {size_text(room.free_bytes)} that are free"
    whole = "" if room.parts == 1 else f"; a batch is trained on in {room.parts} parts, for it to fit"
    progress.line(f"A fine-tune takes about {size_text(room.needed_bytes)}{free} ({room.device}){whole}")


def _hold_to_guessing(prepared: Prepared) -> None:
    """Raise AutopruneError where the original is no better than always answering alike; warn of few rows."""
    setting = prepared.setting
    said = check_original(
        setting.task,
        setting.validation_answers.values,
        is_fitted=not prepared.inputs.loaded.has_head,
        has_names=has_names_of_head(setting.task, prepared.model),
    )
    if said:
        log.warning("%s", said)


def drive(search: OpenedSearch, *, new_budget: bool = False) -> Summary:
    """Run all stages in order; a stage skips what is already done. Closes the study.

    Raises:
        BudgetError, FailedTrialsError: as `search` raises; the records say then that it stopped.
    """
    try:
        search.begin_tracking()
        run_baselines(search)
        run_lines(search)
        if new_budget:
            answer_budget(search, search.budget, state="running")
        run_trials(search)
        train_rivals(search)
        time_again(search)
        score_finalists(search)
        look_at_finalists(search)
        examine_finalists(search)
        cross_validate(search)
        now = search.ledger.sum_up(state="finished")
    except BaseException:
        try:
            search.ledger.sum_up(state="stopped")
        except Exception as later:  # must not hide what ended the search: a full disk ends both
            log.debug("the last summary failed: %s", describe(later))
        raise
    finally:
        search.study.close()
    if now.best is None:
        raise _unmet(search, len(now.trials))
    path = search.run.path
    return Summary(
        path,
        "finished",
        now,
        search.budget,
        lines=recorded_lines(path),
        classes=search.ledger.classes,
        robustness=recorded_robustness(path),
        folds=recorded_folds(path),
        metric=search.prepared.setting.task.metric,
        stopped_by=search.run.about().stopped_by,
        file_storage=search.config.search.file_storage,
    )


def _unmet(search: OpenedSearch, count: int) -> BudgetError:
    """The error of a search of so many trials none of which is within the budget."""
    error = unmet(f"no trial of {count} is within {search.budget}", search, search.budget)
    command = resume_command(search.run.path)
    other = f", or under limits that were met: {resume_command(search.run.path, error.limits)}"
    told = BudgetError(f"{error}; go on with: {command} --trials +50{other if error.limits else ''}")
    told.limits = error.limits
    return told
