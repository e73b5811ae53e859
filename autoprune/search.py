"""The search: prepare, build the library, run baselines and trials on workers, sum up.

Knows no model family, no runtime and no storage: it moves candidates from the study to the workers
and their measurements back, and keeps the run folder true.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from autoprune.costs import Costs
from autoprune.errors import BudgetError, FailedTrialsError
from autoprune.evaluate import (
    BuildUnit,
    Evaluate,
    Evaluated,
    Score,
    TimeOriginal,
    candidate_seed,
    device_count,
    make_worker,
)
from autoprune.files import write_json, written_whole
from autoprune.front import ORIGINAL, Trial
from autoprune.inputs import Inputs, check_budget, read_inputs
from autoprune.ledger import Ledger, Summary
from autoprune.measure import Timing
from autoprune.prepare import Prepared, prepare
from autoprune.printing import standing_note, trial_line
from autoprune.progress import Progress, Update
from autoprune.repair import repair
from autoprune.run import FRONT, STUDY, UNITS, Config, RunFolder, Standing
from autoprune.space import Candidate, Level
from autoprune.starts import baselines, first_candidates
from autoprune.study import Study
from autoprune.targets import get_target
from autoprune.workers import Outcome, Pool, open_pool

WARM_STARTS = 8
"""Candidates taken from the repair's ladders of sizes before the sampler is asked."""


def plan(config: Config) -> tuple[Inputs, int]:
    """Load what was named and check that the budget can be met; bytes of the smallest candidate."""
    inputs = read_inputs(config)
    return inputs, check_budget(inputs, config.limits())


def open_workers(config: Config) -> Pool:
    """The workers of a search; they import what they need while the driver reads its inputs.

    Where the user does not say, the GPUs of this machine are shared out among them.
    """
    gpus = config.gpus_per_trial
    if gpus is None:
        have = device_count() if config.address is None else 0
        gpus = min(1.0, have / max(1, config.workers))
    return open_pool(
        make_worker,
        workers=config.workers,
        gpus_per_worker=gpus,
        cpus_per_worker=config.cpus_per_trial,
        address=config.address,
    )


def search(run: RunFolder, inputs: Inputs, pool: Pool, progress: Progress, *, trials: int) -> Summary:
    """Run or go on with a search until `trials` trials are finished, baselines not counted.

    Raises:
        BudgetError: when no finished trial is within the budget.
        FailedTrialsError: when more than half of at least six trials failed.
    """
    config = run.config()
    run.status("preparing")
    prepared = prepare(config, inputs, progress)
    if not (run.path / "tokenizer").is_dir():
        with written_whole(run.path / "tokenizer") as temporary:
            inputs.loaded.tokenizer.save_pretrained(temporary)
    pool.start({"setting": prepared.setting})
    return _Search(run, config, prepared, pool, progress, trials).go()


class _Search:
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
        self.costs = self._build_library()
        self.reference_ms = self._time_original()
        self.study = Study(
            run.path / STUDY,
            self.space,
            sampler=config.sampler,
            seed=config.seed,
            repair=self._repair,
            storage=config.storage,
            name=run.path.name if config.storage else "autoprune",
        )
        self.ledger = Ledger(
            run, prepared, self.study, self.costs, reference_ms=self.reference_ms, wanted=trials
        )

    def go(self) -> Summary:
        """All stages, in order; what a stage finds done is not done again."""
        try:
            self._run_baselines()
            self._run_trials()
            self._score_finalists()
            now = self.ledger.sum_up(state="finished")
        except BaseException:
            self.ledger.sum_up(state="stopped")
            raise
        finally:
            self.study.close()
        if now.best is None:
            raise BudgetError(
                f"no trial of {len(now.trials)} is within {self.budget}; "
                f"go on with: autoprune resume {self.run.path} --trials +50"
            )
        return Summary(self.run.path, "finished", now, self.budget)

    def remake(self, number: int) -> None:
        """Make a finished trial's model again."""
        try:
            self._weights({one.number: one for one in self.study.trials()}[number])
        finally:
            self.study.close()

    # ---- before the trials ----------------------------------------------------------------------

    def _build_library(self) -> Costs:
        """Every unit's variants on disk, and their predicted damage beside their bytes."""
        units = {unit.name: unit for unit in self.prepared.setting.units}
        names = list(units)
        damage: dict[str, dict[Level, float]] = {}

        def done(key: int, result: Any) -> None:
            damage[names[key]] = {
                Level(r, b): harm for r, by_bits in result.items() for b, harm in by_bits.items()
            }

        with self.progress.bar(f"Library: variants of {len(units)} units", len(units)) as bar:
            self._all([BuildUnit(unit) for unit in units.values()], done, bar)
        costs = self.prepared.inputs.sizes.with_damage(damage)
        write_json(self.run.path / UNITS, costs.as_json())
        return costs

    def _each(self, jobs: Sequence[object], bar: Update | None = None) -> Iterator[Outcome]:
        """Run jobs; their outcomes as they come, whose key is the job's place."""
        for key, job in enumerate(jobs):
            self.pool.submit(key, job)
        for count in range(1, len(jobs) + 1):
            outcome = self.pool.next()
            assert outcome is not None
            yield outcome
            if bar is not None:
                bar(count, "")

    def _all(
        self, jobs: Sequence[object], done: Callable[[int, Any], None], bar: Update | None = None
    ) -> None:
        """Run jobs that must all succeed."""
        for outcome in self._each(jobs, bar):
            if outcome.failure is not None:
                raise RuntimeError(f"{type(jobs[outcome.key]).__name__} failed: {outcome.failure}")
            done(outcome.key, outcome.result)

    def _time_original(self) -> float:
        """The original's latency on the target, measured once a run."""
        known = self.run.about().get("original_ms")
        if known is not None:
            return float(known)
        found: list[Timing] = []
        self._all([TimeOriginal()], lambda _, timing: found.append(timing))
        self.run.note(original_ms=found[0].median_ms)
        return found[0].median_ms

    def _repair(self, one: Candidate, seen: AbstractSet[Candidate], seed: int) -> Candidate:
        return repair(one, seen, seed, space=self.space, costs=self.costs, limit_bytes=self.budget.size_bytes)

    # ---- trials ---------------------------------------------------------------------------------

    def _job(self, candidate: Candidate) -> Evaluate:
        seed = candidate_seed(self.config.seed, candidate)
        return Evaluate(candidate, self.prepared.recipe, seed, self.reference_ms)

    def _trial(self, candidate: Candidate, outcome: Outcome, name: str | None = None) -> Trial:
        """What an outcome says of a candidate; `number` is the study's to give."""
        result = outcome.result if isinstance(outcome.result, Evaluated) else None
        return Trial(
            number=-1,
            candidate=candidate,
            measurement=result.measurement if result else None,
            failure=outcome.failure,
            name=name,
            predicted_size_bytes=self.costs.size_bytes(candidate),
            seconds=round(outcome.seconds, 3),
            worker=outcome.worker,
            seed=candidate_seed(self.config.seed, candidate),
            parts=dict(result.parts) if result else {},
        )

    def _run_baselines(self) -> None:
        have = {one.name for one in self.study.trials()}
        limit = self.budget.size_bytes
        named = baselines(self.space, self.costs, limit_bytes=limit)
        todo = {name: one for name, one in named.items() if name not in have}
        if todo:
            waiting, came = list(todo.items()), dict[int, Outcome]()
            with self.progress.bar("Baselines", len(todo)) as bar:
                for outcome in self._each([self._job(one) for one in todo.values()], bar):
                    came[outcome.key] = outcome
                    # Recorded in their order, whichever ends first: the original is trial 0.
                    while (place := len(todo) - len(waiting)) in came:
                        self._record_baseline(*waiting.pop(0), came[place])
        self.ledger.sum_up(state="running")

    def _record_baseline(self, name: str, candidate: Candidate, outcome: Outcome) -> None:
        trial = self.study.add(self._trial(candidate, outcome, name))
        if name != ORIGINAL:
            self.ledger.keep(trial, outcome.result)

    def _run_trials(self) -> None:
        """Ask, evaluate, tell, until enough are finished or the time is up."""
        finished = [one for one in self.study.trials() if not one.is_baseline]
        done_before, flying = len(finished), dict[int, Candidate]()
        tried = {one.candidate for one in self.study.trials()}
        starts = [one for one in self._starts() if one not in tried]
        begun, failed = done_before, sum(one.failure is not None for one in finished)
        with self.progress.bar("Search", self.wanted) as bar:
            while True:
                while self.pool.free and begun < self.wanted and not self._out_of_time():
                    asked = self.study.ask(starts.pop(0) if starts else None)
                    flying[asked.token] = asked.candidate
                    self.pool.submit(asked.token, self._job(asked.candidate))
                    begun += 1
                if not flying:
                    break
                outcome = self.pool.next(timeout=1.0)
                if outcome is None:
                    continue
                trial = self.study.tell(outcome.key, self._trial(flying.pop(outcome.key), outcome))
                failed += trial.failure is not None
                self.ledger.keep(trial, outcome.result)
                now = self.ledger.sum_up(state="running", in_flight=len(flying))
                self._say(trial, now, bar, failed)
                done = sum(not one.is_baseline for one in now.trials)
                if done >= 6 and failed > done / 2:
                    raise FailedTrialsError(
                        f"{failed} of {done} trials failed, the last with: {trial.failure}; "
                        f"see {self.run.path / FRONT}"
                    )

    def _starts(self) -> list[Candidate]:
        fast = get_target(self.config.target).fast_bits
        return first_candidates(
            self.space, self.costs, fast_bits=fast, limit_bytes=self.budget.size_bytes, count=WARM_STARTS
        )

    def _out_of_time(self) -> bool:
        limit = self.config.timeout_s
        return limit is not None and time.monotonic() - self.started > limit

    def _say(self, trial: Trial, now: Standing, bar: Update, failed: int) -> None:
        """Move the bar; a line for a trial that failed, and for each where there is no bar."""
        done = sum(not one.is_baseline for one in now.trials)
        bar(done, standing_note(now, failed))
        if trial.failure is not None or not self.progress.live:
            self.progress.line(f"[{done}/{self.wanted}] {trial_line(trial)}   {standing_note(now, failed)}")

    # ---- after ----------------------------------------------------------------------------------

    def _score_finalists(self) -> None:
        """Accuracy on test, once, of the baselines and the points to ship."""
        now = self.ledger.standing()
        points = [one for one in (now.best, now.knee) if one is not None]
        finalists = {one.number: one for one in [*points, *(t for t in now.trials if t.is_baseline)]}
        todo = [one for one in finalists.values() if one.test_accuracy is None and one.measurement]
        jobs = [Score(None if one.name == ORIGINAL else self._weights(one)) for one in todo]
        if todo:
            with self.progress.bar("Test scores of finalists and baselines", len(todo)) as bar:
                self._all(
                    jobs, lambda k, result: self.study.update(todo[k].number, test_accuracy=result), bar
                )

    def _weights(self, trial: Trial) -> bytes:
        """A trial's packed model; made again, the same, where it was not kept."""
        path = self.run.artifact(trial.number) / "model.safetensors"
        if not path.is_file():
            self._all([self._job(trial.candidate)], lambda _, result: self.ledger.keep(trial, result))
        return path.read_bytes()


def remake(run: RunFolder, number: int, progress: Progress) -> None:
    """Make the model of a finished trial again and keep it in the run folder.

    Raises:
        AutopruneError: when the run has no such trial.
    """
    config = run.config()
    inputs = read_inputs(config)
    prepared = prepare(config, inputs, progress)
    with open_pool(make_worker, {"setting": prepared.setting}, workers=0) as pool:
        _Search(run, config, prepared, pool, progress, config.trials).remake(number)
