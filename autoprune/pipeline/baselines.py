"""The models that every run is compared with: evaluated before the trials, the best trained longer after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoprune.evaluation.jobs import Evaluate, Evaluated
from autoprune.pipeline.allocations import allocated_baselines, asked_names
from autoprune.pipeline.ledger import guessed_accuracy
from autoprune.pipeline.opened import OpenedSearch
from autoprune.space.levels import Candidate
from autoprune.space.trial import ORIGINAL
from autoprune.strategy.baselines import baselines, rivals
from autoprune.strategy.seen_loss import SeenLoss
from autoprune.workers import Outcome
from autoprune.workers.pool import run_each

LONGER = ", longer"
"""What the name of a baseline ends with that is trained as long as finalists."""


@dataclass(frozen=True)
class _Named:
    """A baseline to be evaluated."""

    name: str
    candidate: Candidate
    rung: int


def run_baselines(search: OpenedSearch) -> None:
    """Evaluate the baselines that the study lacks, untrained; recorded in order, whichever ends first.

    Those that a user would weigh against what is shipped are trained in the end, as long as that is.
    """
    have = {trial.name for trial in search.study.trials()}
    named = baselines(search.prepared.inputs.space, search.costed.costs, search.budget)
    named |= allocated_baselines(search, have)
    todo = [_Named(name, candidate, 0) for name, candidate in named.items() if name not in have]
    _evaluate(search, todo, "Baselines")
    search.ledger.sum_up(state="running")


def train_rivals(search: OpenedSearch) -> None:
    """Train the best baselines within the budget as long as finalists: what is shipped has been, too."""
    is_late = search.deadline is not None and time.monotonic() > search.deadline
    if not search.prepared.recipe.steps or is_late:
        return
    trials, task = search.study.trials(), search.prepared.setting.task
    worth = 0.0  # another teacher teaches what is near the original too
    if search.prepared.setting.taught_answers is None:
        answers = task.answer_count(task.validation)
        worth = SeenLoss.of(trials).worth_training(answers, guessed_accuracy(task))
    asked = asked_names(search.config.search.allocation)
    chosen = rivals(trials, search.budget, worth=worth, asked=asked)
    todo = [_Named(f"{trial.name}{LONGER}", trial.candidate, 2) for trial in chosen]
    _evaluate(search, todo, "Baselines, trained longer")


def _evaluate(search: OpenedSearch, todo: Sequence[_Named], title: str) -> None:
    if not todo:
        return
    waiting, came = list(todo), dict[int, Outcome[Evaluated]]()
    with search.progress.bar(title, len(todo)) as bar:
        jobs = [_job(search, baseline) for baseline in todo]
        for outcome in run_each(search.pool, jobs, bar):
            came[outcome.key] = outcome
            while (place := len(todo) - len(waiting)) in came:  # the original is trial 0
                _record(search, waiting.pop(0), came[place])


def _job(search: OpenedSearch, baseline: _Named) -> Evaluate:
    """The original's model is not kept: all workers have it."""
    job = search.job(baseline.candidate, baseline.rung)
    return replace(job, sends_model=baseline.name != ORIGINAL)


def _record(search: OpenedSearch, baseline: _Named, outcome: Outcome[Evaluated]) -> None:
    told = search.ledger.trial_of(baseline.candidate, baseline.rung, outcome, baseline.name)
    trial = search.study.add(told)
    if baseline.name != ORIGINAL:
        search.ledger.keep(trial, outcome.result)
    search.tell(trial)
