"""What is asked of a run that has its trials: another budget's answer, a trial's model made again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from autoprune.core.progress import Progress
from autoprune.evaluation.worker import make_worker
from autoprune.pipeline.driver import Driver
from autoprune.pipeline.inputs import check_budget, read_inputs
from autoprune.pipeline.prepare import prepare
from autoprune.run.folder import RunFolder, located
from autoprune.run.identity import hold_to
from autoprune.space.budget import Budget
from autoprune.space.trial import Trial
from autoprune.workers import open_pool


def answer(run: RunFolder, budget: Budget, progress: Progress) -> Sequence[Trial]:
    """Make and measure the solver's best candidate for a budget in a run that has trials; all trials.

    Raises:
        BudgetError: when no candidate can meet the budget.
    """
    with _in_this_process(run, budget, progress) as one:
        one.answer(budget)
        return one.study.trials()


def remake(run: RunFolder, number: int, progress: Progress) -> None:
    """Make the model of a finished trial again and keep it in the run folder."""
    with _in_this_process(run, Budget(), progress) as one:
        one.remake(number)


@contextlib.contextmanager
def _in_this_process(run: RunFolder, budget: Budget, progress: Progress) -> Iterator[Driver]:
    """A run taken up without workers, for a model or two; the budget is checked first."""
    config = run.config()
    inputs = read_inputs(located(config, run.path))
    hold_to(run, inputs.identity, progress)
    check_budget(inputs, budget)
    prepared = prepare(config, inputs, progress)
    with open_pool(make_worker, {"setting": prepared.setting}, workers=0) as pool:
        one = Driver(run, config, prepared, pool, progress, config.search.trials)
        try:
            yield one
        finally:
            one.study.close()
