"""The trials of a search: ask for a candidate, have it evaluated, tell the study, until it is enough."""

from __future__ import annotations

import time

from autoprune.core.errors import FailedTrialsError
from autoprune.core.progress import Update
from autoprune.pipeline.ledger import guessed_accuracy
from autoprune.pipeline.opened import OpenedSearch
from autoprune.run.folder import FRONT
from autoprune.run.text import standing_note, trial_line
from autoprune.space.levels import Candidate
from autoprune.space.trial import Trial
from autoprune.strategy.baselines import first_candidates
from autoprune.strategy.schedule import Plan, Schedule
from autoprune.strategy.starts import solver_answers
from autoprune.targets import get_target

STATUS_SECONDS = 10.0
"""How often `status.json` says what the workers do while no trial ends."""

FEWEST_TRIALS = 6
"""Trials from which a search ends where more than half of them failed."""


def run_trials(search: OpenedSearch) -> None:
    """Ask, evaluate, tell, until enough are finished or the time is up.

    Raises:
        FailedTrialsError: when more than half of at least `FEWEST_TRIALS` trials failed, whatever their rung.
    """
    study, pool, ledger = search.study, search.pool, search.ledger
    limits = search.predicted(search.budget, baselines_alone=True)
    answers = solver_answers(search.aim.within(limits))
    ladders = first_candidates(
        search.prepared.inputs.space, search.costed.costs, fast=get_target(search.config.search.target).fast,
        limit_bytes=limits.size_bytes, count=study.proposer.warm_starts,
    )  # fmt: skip
    starts = list(dict.fromkeys([*answers, *ladders]))
    schedule = Schedule(study, _plan(search, frozenset(answers)), starts)
    begun, waited, told = time.monotonic(), 0.0, time.monotonic()
    with search.progress.bar("Search", search.wanted) as bar:
        while True:
            while pool.free and (work := schedule.next()) is not None:
                pool.submit(work.token, search.trial_job(work.candidate, work.rung))
            if not study.history.in_flight:
                break
            pause = time.monotonic()
            outcome = pool.next(timeout=1.0)
            waited += time.monotonic() - pause
            if outcome is None:
                if time.monotonic() - told > STATUS_SECONDS:  # it may be long until a trial ends
                    search.run.status_again()
                    told = time.monotonic()
                continue
            work = study.history.in_flight[outcome.key]
            trial = study.tell(work.token, ledger.trial_of(work.candidate, work.rung, outcome))
            ledger.keep(trial, outcome.result)
            search.tell(trial)
            _say(search, trial, schedule.seconds_left(pool.size), bar)
            told = time.monotonic()
    ledger.close_trials(schedule.stopped_by, time.monotonic() - begun, waited)


def _plan(search: OpenedSearch, first: frozenset[Candidate]) -> Plan:
    task = search.prepared.setting.task
    return Plan(
        budget=search.budget,
        wanted=search.wanted,
        steps=search.prepared.recipe.steps,
        answers=task.answer_count(task.validation),
        byte_range=search.aim.scale.byte_range,
        patience=search.config.search.patience,
        deadline=search.deadline,
        first=first,
        left=search.aim.shares_left,
        chance=guessed_accuracy(task),
        other_teacher=search.prepared.setting.taught_answers is not None,
    )


def _say(search: OpenedSearch, trial: Trial, seconds_left: float, bar: Update) -> None:
    """Sum up after a trial; a line for one that failed, and for each where there is no bar."""
    in_flight = len(search.study.history.in_flight)
    now = search.ledger.sum_up(state="running", in_flight=in_flight, seconds_left=seconds_left)
    counts = search.ledger.leaders
    tried, searched, failed = counts.tried, counts.searched, counts.failed
    metric = search.prepared.setting.task.metric
    note = standing_note(now, failed, seconds_left, metric=metric)
    bar(tried, note)
    if trial.failure is not None or not search.progress.live:
        search.progress.line(f"[{tried}/{search.wanted}] {trial_line(trial, metric=metric)}   {note}")
    if searched >= FEWEST_TRIALS and failed > searched / 2:
        raise FailedTrialsError(
            f"{failed} of {searched} trials failed, the last with: {trial.failure}; "
            f"see {search.run.path / FRONT}"
        )
