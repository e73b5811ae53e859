"""Questions to a finished run: the answer to another budget, or a trial's model made again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from autoprune.core.progress import Progress
from autoprune.evaluation.worker import make_worker
from autoprune.pipeline.answers import answer_budget
from autoprune.pipeline.finalists import packed_model
from autoprune.pipeline.inputs import check_budget
from autoprune.pipeline.measured_costs import measure_costs
from autoprune.pipeline.opened import OpenedSearch, open_search
from autoprune.pipeline.prepare import prepare
from autoprune.pipeline.start import plan
from autoprune.run.folder import RunFolder
from autoprune.space.budget import Budget
from autoprune.space.trial import Trial
from autoprune.workers import open_pool


def answer(run: RunFolder, budget: Budget, progress: Progress) -> Sequence[Trial]:
    """Make and measure the solver's best candidate for a budget in a run that has trials; all trials.

    Raises:
        BudgetError: when no candidate can meet the budget.
    """
    with _in_this_process(run, budget, progress) as search:
        answer_budget(search, budget, state="finished")
        return search.study.trials()


def remake(run: RunFolder, number: int, progress: Progress) -> None:
    """Make the model of a finished trial again and keep it in the run folder."""
    with _in_this_process(run, Budget(), progress) as search:
        packed_model(search, {trial.number: trial for trial in search.study.trials()}[number])


@contextlib.contextmanager
def _in_this_process(run: RunFolder, budget: Budget, progress: Progress) -> Iterator[OpenedSearch]:
    """Resume a run without workers, for a model or two; the budget is checked first."""
    config = run.config()
    inputs, _ = plan(config, run, progress, budget=budget)
    prepared = prepare(config, inputs, progress)
    with open_pool(make_worker, {"setting": prepared.setting}, workers=0) as pool:
        costed = measure_costs(run, prepared, pool, progress)
        check_budget(inputs, budget, costed.costs)
        search = open_search(run, prepared, costed, pool, progress, wanted=config.search.trials)
        try:
            yield search
        finally:
            search.study.close()
