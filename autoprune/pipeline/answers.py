"""The solver's answer to a budget: its best candidate there, made and measured as trials are."""

from __future__ import annotations

from autoprune.core.errors import BudgetError
from autoprune.pipeline.opened import OpenedSearch
from autoprune.space.budget import Budget
from autoprune.strategy.records import Records
from autoprune.workers.pool import run_each


def answer_budget(search: OpenedSearch, budget: Budget, *, state: str) -> None:
    """Make and measure the solver's candidate for a budget, trained as trials are, if it is new.

    state: of the search, in its records.

    Raises:
        BudgetError: when no candidate is predicted to meet the budget.
    """
    study, ledger = search.study, search.ledger
    trials = study.trials()
    asked_for = search.predicted(budget, baselines_alone=False)
    candidate = search.aim.answer(Records.of(search.aim.problem, trials), asked_for)
    if candidate is None:
        raise BudgetError(f"no candidate is predicted to be within {budget}")
    rung = 1 if search.prepared.recipe.steps else 0
    if any(trial.candidate == candidate and trial.rung >= rung for trial in trials):
        return
    asked = study.ask(candidate, rung=rung)
    with search.progress.bar(f"The solver's answer to {budget}", 1) as bar:
        for outcome in run_each(search.pool, [search.job(candidate, rung)], bar):
            trial = study.tell(asked.token, ledger.trial_of(candidate, rung, outcome))
            search.tell(trial)
            ledger.sum_up(state=state)
            ledger.keep(trial, outcome.result)
