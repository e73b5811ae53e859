"""The search: prepare, measure what variants cost, run baselines and trials on workers, sum up.

Knows no model family, no runtime and no storage: it moves candidates from the study to the workers
and their measurements back, and keeps the run folder true.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np

from autoprune.core.errors import BudgetError, FailedTrialsError
from autoprune.core.files import write_json, written_whole
from autoprune.core.progress import Progress, Update
from autoprune.evaluation.jobs import Evaluate
from autoprune.evaluation.seeds import candidate_seed
from autoprune.pipeline.finalists import Finalists
from autoprune.pipeline.inputs import Inputs
from autoprune.pipeline.ledger import Ledger
from autoprune.pipeline.measured_costs import build_library, measured_costs, time_original
from autoprune.pipeline.prepare import Prepared, prepare
from autoprune.pipeline.start import expected_study
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, STUDY, UNITS, RunFolder
from autoprune.run.identity import hold_to
from autoprune.run.standing import Summary
from autoprune.run.text import standing_note, trial_line
from autoprune.search.aim import Aim
from autoprune.search.baselines import baselines, first_candidates
from autoprune.search.promotion import RUNG_STEPS
from autoprune.search.records import Records
from autoprune.search.repair import repair
from autoprune.search.samplers import make_proposer
from autoprune.search.schedule import Plan, Schedule, is_candidate
from autoprune.search.solver.mckp import Problem
from autoprune.search.study import Study
from autoprune.space.budget import Budget
from autoprune.space.levels import Candidate, is_untouched
from autoprune.space.trial import ORIGINAL, Trial, failed_trials, finished, searched_trials
from autoprune.targets import get_target
from autoprune.workers import Outcome, Pool
from autoprune.workers.pool import describe, run_each

log = logging.getLogger(__name__)

FEWEST_TRIALS = 6
"""Trials from which a search ends where more than half of them failed."""


def search(
    run: RunFolder,
    inputs: Inputs,
    pool: Pool,
    progress: Progress,
    *,
    trials: int,
    new_budget: bool = False,
) -> Summary:
    """Run or go on with a search until `trials` trials are finished, baselines not counted.

    new_budget: whether the run was searched under another one; the solver answers it first.

    Raises:
        BudgetError: when no finished trial is within the budget.
        FailedTrialsError: when more than half of at least `FEWEST_TRIALS` trials failed, whatever their rung.
    """
    config = run.config()
    hold_to(run, inputs.identity, progress)
    run.status("preparing")
    prepared = prepare(config, inputs, progress)
    if not (run.path / "tokenizer").is_dir():
        with written_whole(run.path / "tokenizer") as temporary:
            inputs.loaded.save_inputs(temporary)
    pool.start({"setting": prepared.setting})
    return Driver(run, config, prepared, pool, progress, trials).go(new_budget=new_budget)


class Driver:
    """One driver at work on one run."""

    def __init__(
        self,
        run: RunFolder,
        config: Config,
        prepared: Prepared,
        pool: Pool,
        progress: Progress,
        trials: int,
    ) -> None:
        self.run, self.config, self.prepared, self.pool = run, config, prepared, pool
        self.progress, self.wanted = progress, trials
        self.space, self.budget = prepared.inputs.space, config.limits()
        self.started = time.monotonic()
        build_library(prepared, pool, progress)
        self.reference_ms = self._original_ms()
        self.costs, table = measured_costs(prepared, pool, progress, self.reference_ms)
        run.note(latency_table_error=table.error)
        write_json(run.path / UNITS, self.costs.as_json())
        self.aim = Aim.of(Problem.of(self.space, self.costs), self.budget)
        asked = config.search
        self.study = Study(
            run.path / STUDY,
            self.space,
            proposer=make_proposer(
                asked.sampler, space=self.space, seed=asked.seed, repair=self._repair, aim=self.aim
            ),
            storage=asked.storage,
            name=run.study_name(),
            expect=expected_study(run),
        )
        self.ledger = Ledger(
            run,
            prepared,
            self.study,
            self.costs,
            reference_ms=self.reference_ms,
            wanted=trials,
            byte_range=self.aim.scale.byte_range,
        )

    def go(self, *, new_budget: bool) -> Summary:
        """All stages, in order; what a stage finds done is not done again."""
        try:
            self._run_baselines()
            if new_budget:
                self.answer(self.budget, state="running")
            self._run_trials()
            finalists = self._finalists()
            finalists.time_again()
            finalists.score()
            now = self.ledger.sum_up(state="finished")
        except BaseException:
            try:
                self.ledger.sum_up(state="stopped")
            except Exception as later:  # must not hide what ended the search: a full disk ends both
                log.debug("the last summary failed: %s", describe(later))
            raise
        finally:
            self.study.close()
        if now.best is None:
            raise BudgetError(
                f"no trial of {len(now.trials)} is within {self.budget}; "
                f"go on with: autoprune resume {self.run.path} --trials +50"
            )
        return Summary(self.run.path, "finished", now, self.budget)

    def answer(self, budget: Budget, *, state: str = "finished") -> None:
        """Make and measure the solver's candidate for a budget, trained as trials are, if it is new."""
        trials = self.study.trials()
        asked_for = budget
        if budget.size_bytes is not None:
            asked_for = replace(budget, size_bytes=budget.size_bytes - _excess_bytes(trials))
        found = self.aim.answer(Records.of(self.aim.problem, trials), asked_for)
        if found is None:
            raise BudgetError(f"no candidate is predicted to be within {budget}")
        rung = 1 if self.prepared.recipe.steps else 0
        if any(trial.candidate == found and trial.rung >= rung for trial in trials):
            return
        asked = self.study.ask(found, rung=rung)
        with self.progress.bar(f"The solver's answer to {budget}", 1) as bar:
            for outcome in run_each(self.pool, [self._job(found, rung)], bar):
                trial = self.study.tell(asked.token, self.ledger.trial_of(found, rung, outcome))
                self.ledger.sum_up(state=state)
                self.ledger.keep(trial, outcome.result)

    def remake(self, number: int) -> None:
        """Make a finished trial's model again."""
        self._finalists().weights({trial.number: trial for trial in self.study.trials()}[number])

    def _finalists(self) -> Finalists:
        return Finalists(
            self.run, self.study, self.ledger, self.pool, self.progress, self.reference_ms, self._job
        )

    def _original_ms(self) -> float:
        """The original's latency on the target, measured once a run."""
        known = self.run.about().original_ms
        if known is None:
            known = time_original(self.pool)
            self.run.note(original_ms=known)
        return float(known)

    def _repair(self, one: Candidate, seen: AbstractSet[Candidate], seed: int) -> Candidate:
        return repair(one, seen, seed, space=self.space, costs=self.costs, limit_bytes=self._limit_bytes())

    def _limit_bytes(self) -> int | None:
        """Predicted bytes that a candidate may have for its file to be within the budget."""
        if self.budget.size_bytes is None:
            return None
        smallest = self.costs.size_bytes(self.costs.smallest(self.space))
        plain = [
            trial for trial in self.study.trials() if trial.is_baseline
        ]  # the same whichever trial ends first
        room = self.budget.size_bytes - _excess_bytes(plain)
        return max(room, min(smallest, self.budget.size_bytes))

    # ---- trials ---------------------------------------------------------------------------------

    def _job(self, candidate: Candidate, rung: int) -> Evaluate:
        recipe = self.prepared.recipe
        steps = recipe.steps * RUNG_STEPS[rung]
        seed = candidate_seed(self.config.search.seed, candidate)
        return Evaluate(candidate, replace(recipe, steps=steps), seed, self.reference_ms)

    def _baseline_rung(self, candidate: Candidate) -> int:
        """Baselines get the brief fine-tune that trials get; there is none for the original."""
        return 0 if is_untouched(candidate) or not self.prepared.recipe.steps else 1

    def _run_baselines(self) -> None:
        have = {trial.name for trial in self.study.trials()}
        named = baselines(self.space, self.costs, self.budget)
        todo = {name: one for name, one in named.items() if name not in have}
        if todo:
            waiting, came = list(todo.items()), dict[int, Outcome]()
            with self.progress.bar("Baselines", len(todo)) as bar:
                jobs = [self._job(one, self._baseline_rung(one)) for one in todo.values()]
                for outcome in run_each(self.pool, jobs, bar):
                    came[outcome.key] = outcome
                    # Recorded in their order, whichever ends first: the original is trial 0.
                    while (place := len(todo) - len(waiting)) in came:
                        self._record_baseline(*waiting.pop(0), came[place])
        self.ledger.sum_up(state="running")

    def _record_baseline(self, name: str, candidate: Candidate, outcome: Outcome) -> None:
        trial = self.study.add(self.ledger.trial_of(candidate, self._baseline_rung(candidate), outcome, name))
        if name != ORIGINAL:
            self.ledger.keep(trial, outcome.result)

    def _run_trials(self) -> None:
        """Ask, evaluate, tell, until enough are finished or the time is up."""
        starts = first_candidates(
            self.space, self.costs, fast=get_target(self.config.search.target).fast,
            limit_bytes=self._limit_bytes(), count=self.study.proposer.warm_starts,
        )  # fmt: skip
        schedule = Schedule(self.study, self._plan(), starts)
        begun, waited = time.monotonic(), 0.0
        with self.progress.bar("Search", self.wanted) as bar:
            while True:
                while self.pool.free and (work := schedule.next()) is not None:
                    self.pool.submit(work.token, self._job(work.candidate, work.rung))
                if not self.study.history.in_flight:
                    break
                pause = time.monotonic()
                outcome = self.pool.next(timeout=1.0)
                waited += time.monotonic() - pause
                if outcome is None:
                    continue
                work = self.study.history.in_flight[outcome.key]
                trial = self.study.tell(work.token, self.ledger.trial_of(work.candidate, work.rung, outcome))
                self.ledger.keep(trial, outcome.result)
                in_flight = len(self.study.history.in_flight)
                self._say(trial, schedule.seconds_left(self.pool.size), in_flight, bar)
        self.ledger.close_trials(schedule.stopped_by, time.monotonic() - begun, waited)

    def _plan(self) -> Plan:
        limit, task = self.config.search.timeout_s, self.prepared.setting.task
        return Plan(
            budget=self.budget,
            wanted=self.wanted,
            steps=self.prepared.recipe.steps,
            answers=task.answer_count(task.validation),
            byte_range=self.aim.scale.byte_range,
            patience=self.config.search.patience,
            deadline=None if limit is None else self.started + limit,
        )

    def _say(self, trial: Trial, seconds_left: float, in_flight: int, bar: Update) -> None:
        """Sum up after a trial; a line for one that failed, and for each where there is no bar."""
        now = self.ledger.sum_up(state="running", in_flight=in_flight, seconds_left=seconds_left)
        tried = [trial for trial in now.trials if is_candidate(trial)]
        searched, failed = searched_trials(now.trials), len(failed_trials(now.trials))
        metric = self.prepared.setting.task.metric
        note = standing_note(now, failed, seconds_left, metric=metric)
        bar(len(tried), note)
        if trial.failure is not None or not self.progress.live:
            self.progress.line(f"[{len(tried)}/{self.wanted}] {trial_line(trial, metric=metric)}   {note}")
        if len(searched) >= FEWEST_TRIALS and failed > len(searched) / 2:
            raise FailedTrialsError(
                f"{failed} of {len(searched)} trials failed, the last with: {trial.failure}; "
                f"see {self.run.path / FRONT}"
            )


def _excess_bytes(trials: Sequence[Trial]) -> int:
    """Bytes that files may be larger than predicted: the upper quartile of the models so far, or none.

    A language model's were by 12 kB of 58 MB: candidates that were to fill the limit broke it.
    """
    off = [
        m.size_bytes - trial.predicted_size_bytes for trial, m in finished(trials) if trial.name != ORIGINAL
    ]
    return max(0, math.ceil(np.quantile(off, 0.75, method="lower"))) if off else 0
