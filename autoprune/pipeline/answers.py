"""The solver's answer to a budget: its best candidate there, made and measured as trials are."""

from __future__ import annotations

import math

from autoprune.core.errors import BudgetError
from autoprune.pipeline.opened import OpenedSearch
from autoprune.space.budget import Budget, megabytes
from autoprune.space.trial import ORIGINAL, Measurement, Trial, finished
from autoprune.strategy.records import Records
from autoprune.strategy.surrogates.latency_model import with_corrected_latency
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
        raise unmet(f"no candidate is predicted to be within {budget}", search, budget)
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


def unmet(what: str, search: OpenedSearch, budget: Budget) -> BudgetError:
    """The error of a budget that nothing meets, with how near the trials and the predictions come.

    what: what there is not. The error's `limits` are those that the fastest compressed model meets, or the
    smallest where bytes alone are limited; the solver is predicted to meet each of them as well.
    """
    trials = search.study.trials()
    measured = [pair for pair in finished(trials) if pair[0].name != ORIGINAL]
    size_bytes, ms = _least_predicted(search, trials)
    told = []
    fastest = min(measured, key=lambda pair: pair[1].latency_ms, default=None)
    smallest = min(measured, key=lambda pair: pair[1].size_bytes, default=None)
    if budget.latency_ms is not None:
        if fastest is not None:
            told.append(f"the fastest measured is {fastest[1].latency_ms:.3g} ms (trial {fastest[0].number})")
        told.append(f"the fastest predicted {ms:.3g} ms")
    if budget.size_bytes is not None:
        if smallest is not None:
            size = megabytes(smallest[1].size_bytes)
            told.append(f"the smallest measured is {size} (trial {smallest[0].number})")
        told.append(f"the smallest predicted {megabytes(size_bytes)}")
    error = BudgetError(f"{what}: {', '.join(told)}" if told else what)
    nearest = smallest if budget.latency_ms is None else fastest
    if nearest is not None:
        error.limits = _limits_met(nearest[1], budget, size_bytes, ms)
    return error


def _least_predicted(search: OpenedSearch, trials: list[Trial]) -> tuple[float, float]:
    """Bytes of the smallest candidate, and milliseconds of the fastest, as trials taught to predict them."""
    aim = search.aim
    records = Records.of(aim.problem, trials)
    problem = with_corrected_latency(aim.problem, records.chosen, records.latency_ms, aim.time_features)
    size_bytes = problem.fixed_bytes + float(problem.size_bytes.min(1).sum())
    return size_bytes, problem.fixed_ms + float(problem.latency_ms.min(1).sum())


def _limits_met(m: Measurement, budget: Budget, size_bytes: float, ms: float) -> tuple[str, ...]:
    """The limits of a budget, raised to what was measured and what is predicted at least.

    >>> m = Measurement(150_200, 4.03, 90.0)
    >>> _limits_met(m, Budget(400_000, 1.5), 140_000.0, 3.9), _limits_met(m, Budget(100_000), 140_000.0, 3.9)
    (('400kB', '4.1ms'), ('151kB',))
    """
    limits = []
    if budget.size_bytes is not None:
        limits.append(f"{math.ceil(max(m.size_bytes, size_bytes, budget.size_bytes) / 1000)}kB")
    if budget.latency_ms is not None:
        most = max(m.latency_ms, ms)
        step = 10.0 ** (math.floor(math.log10(most)) - 1)  # two digits
        rounded = Budget(latency_ms=float(f"{math.ceil(most / step) * step:.6g}"))
        limits += (
            rounded.texts() if most > budget.latency_ms else Budget(latency_ms=budget.latency_ms).texts()
        )
    return tuple(limits)
