"""The models that every run is compared with, evaluated as trials are, before these."""

from __future__ import annotations

from autoprune.evaluation.jobs import Evaluated
from autoprune.pipeline.opened import OpenedSearch
from autoprune.search.baselines import baselines
from autoprune.space.levels import Candidate, is_untouched
from autoprune.space.trial import ORIGINAL
from autoprune.workers import Outcome
from autoprune.workers.pool import run_each


def run_baselines(search: OpenedSearch) -> None:
    """Evaluate the baselines that the study lacks; they are recorded in order, whichever ends first."""
    have = {trial.name for trial in search.study.trials()}
    named = baselines(search.prepared.inputs.space, search.costed.costs, search.budget)
    todo = {name: candidate for name, candidate in named.items() if name not in have}
    if todo:
        waiting, came = list(todo.items()), dict[int, Outcome[Evaluated]]()
        with search.progress.bar("Baselines", len(todo)) as bar:
            jobs = [search.job(candidate, _rung(search, candidate)) for candidate in todo.values()]
            for outcome in run_each(search.pool, jobs, bar):
                came[outcome.key] = outcome
                while (place := len(todo) - len(waiting)) in came:  # the original is trial 0
                    _record(search, *waiting.pop(0), came[place])
    search.ledger.sum_up(state="running")


def _rung(search: OpenedSearch, candidate: Candidate) -> int:
    """Baselines get the brief fine-tune that trials get; there is none for the original."""
    return 0 if is_untouched(candidate) or not search.prepared.recipe.steps else 1


def _record(search: OpenedSearch, name: str, candidate: Candidate, outcome: Outcome[Evaluated]) -> None:
    rung = _rung(search, candidate)
    trial = search.study.add(search.ledger.trial_of(candidate, rung, outcome, name))
    if name != ORIGINAL:
        search.ledger.keep(trial, outcome.result)
