"""The stages of a search, with a worker that computes nothing: what is asked, told, kept and said."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.api.ending import ending_recorded
from autoprune.compress.statistics import Statistics
from autoprune.core.errors import BudgetError, FailedTrialsError
from autoprune.core.progress import Progress
from autoprune.evaluation.answer_changes import LookAtAnswers, Looked
from autoprune.evaluation.finetune import Recipe
from autoprune.evaluation.jobs import (
    BuildUnit,
    Evaluate,
    Evaluated,
    Original,
    PackedModel,
    Score,
    Scored,
    Sense,
    Setting,
    TimeModel,
    TimeTogether,
    Whereabouts,
)
from autoprune.evaluation.lines.line import FitLine, MeasuredLine
from autoprune.evaluation.measure import Timing
from autoprune.evaluation.seeds import candidate_seed
from autoprune.models.spec import Architecture
from autoprune.models.unit import Unit, Weight
from autoprune.pipeline.answers import answer_budget
from autoprune.pipeline.baselines import LONGER, run_baselines, train_rivals
from autoprune.pipeline.driver import drive
from autoprune.pipeline.finalists import packed_model
from autoprune.pipeline.lines import run_lines
from autoprune.pipeline.measured_costs import Costed, measure_costs
from autoprune.pipeline.opened import OpenedSearch, open_search
from autoprune.pipeline.prepare import Prepared
from autoprune.pipeline.trials import FEWEST_TRIALS, run_trials
from autoprune.run.config import Config
from autoprune.run.folder import FRONT, STATUS, UNITS, RunFolder
from autoprune.run.front_schema import checked_front
from autoprune.sensitivity.fisher_scores import Sensitivity
from autoprune.space.budget import Budget, parse_budget
from autoprune.space.levels import Candidate
from autoprune.space.trial import ORIGINAL, Measurement, Trial, failed_trials, finished, tried_trials
from autoprune.strategy.baselines import baselines
from autoprune.strategy.file_room import excess_bytes
from autoprune.strategy.seen_loss import SeenLoss
from autoprune.strategy.trial_limits import FIRST_SECONDS, FLOOR_SECONDS
from autoprune.tasks.data.rows import Rows
from autoprune.tasks.data.splits import Splits
from autoprune.tasks.kinds import TEXT_CLASSIFICATION
from autoprune.tasks.task import Encoded, Task
from autoprune.workers.pool import Outcome, SerialPool
from tests.support.toy_search import Toy

TOY = Toy.of(4)
REFERENCE_MS, SEED, ROWS = 20.0, 5, 100
ORIGINAL_BYTES = TOY.costs.size_bytes(TOY.space.untouched())
LIMIT = round(0.3 * ORIGINAL_BYTES / 1000) * 1000
NAMES = list(baselines(TOY.space, TOY.costs, Budget(size_bytes=LIMIT)))

Work = Callable[["Worker", Evaluate], Evaluated]


class Worker:
    """Makes up what it is asked for, and remembers the jobs. evaluated: says what a candidate comes to."""

    def __init__(self, evaluated: Work) -> None:
        self.evaluated, self.jobs = evaluated, list[object]()

    def __call__(self, job: object) -> object:
        self.jobs.append(job)
        match job:
            case Evaluate():
                return self.evaluated(self, job)
            case TimeTogether(models):
                return [timing(float(cast(PackedModel, model).weights)) for model in models]
            case TimeModel(model):
                return timing(REFERENCE_MS if model == Original() else 0.5 * REFERENCE_MS)
            case Score():
                return Scored(70.0)
            case LookAtAnswers():
                places = np.zeros(ROWS, np.float32)
                return Looked(places.astype(np.int32), places, places)
            case Sense(units):
                scores = {level: np.full(3, 0.5) for unit in units for level in unit.choices.levels()}
                return Sensitivity({unit.name: scores for unit in units})
            case BuildUnit():
                return None
            case Whereabouts():
                return ["a machine"]
            case FitLine(line):
                return MeasuredLine(line.name, 1000, 0.5, 70.0, 69.0, "as it is", 0.1)
        raise AssertionError(job)

    def asked(self, kind: type) -> list[Any]:
        return [job for job in self.jobs if isinstance(job, kind)]


def timing(ms: float) -> Timing:
    return Timing(ms, 0.9 * ms, 1.1 * ms, REFERENCE_MS, ms / REFERENCE_MS, ms / REFERENCE_MS)


def as_predicted(_: Worker, job: Evaluate) -> Evaluated:
    """Bytes and milliseconds as predicted; training halves the divergence."""
    size, ms = TOY.costs.size_bytes(job.candidate), TOY.costs.latency_ms(job.candidate)
    kl = TOY.kl(job.candidate) * (0.5 if job.recipe.steps else 1.0)
    m = Measurement(size, ms, 90.0 - min(40.0, 10.0 * kl), kl=kl)
    return Evaluated(m, {"finetune": 0.1}, PackedModel(str(ms).encode()))


class BackwardsPool(SerialPool):
    """Its last job ends first."""

    def next(self, timeout: float | None = None) -> Outcome[Any] | None:
        self._queue.reverse()
        try:
            return super().next(timeout)
        finally:
            self._queue.reverse()


def task() -> Task:
    starts, labels = np.arange(0, 2 * ROWS + 1, 2), np.arange(ROWS) % 2
    rows = Encoded(np.ones(2 * ROWS, np.int32), np.zeros(2 * ROWS, np.uint8), starts, labels)
    return Task(rows, rows, rows, ("a", "b"), ("input_ids", "attention_mask"), pad_id=0)


def some_texts() -> Splits:
    rows = Rows((("a fine film", "a dull film"),), (1, 0))
    return Splits(rows, rows, rows, ("a", "b"), "rows.csv", "0" * 64)


def prepared(steps: int = 0, texts: Splits | None = None) -> Prepared:
    """Units of the toy's levels, and as little else as a search looks at."""
    units = tuple(
        Unit(
            choices.unit, "dense", (Weight(f"{choices.unit}.up", 64, 64, True),),
            (Weight(f"{choices.unit}.down", 64, 64, True),), 64, 1, 32, choices.ratios, choices.storages,
        )
        for choices in TOY.space.units
    )  # fmt: skip
    answers = cast(Any, None)
    setting = Setting(
        Architecture(TEXT_CLASSIFICATION, {"layers": 4}), {}, {}, units, task(), answers, answers,
        target="packed", key="toy", batch=1, sequence=8, sensitivity_rows=8, seed=SEED,
    )  # fmt: skip
    inputs = SimpleNamespace(
        space=TOY.space, sizes=TOY.costs, original_bytes=ORIGINAL_BYTES,
        dataset="rows.csv", data_hash="0" * 64, space_name="toy", texts=texts, cleaned=None,
        loaded=SimpleNamespace(tokenizer=None), teacher=None,
    )  # fmt: skip
    model = nn.Module()
    model.layer = nn.ModuleList(nn.ModuleDict({"up": nn.Identity(), "down": nn.Identity()}) for _ in units)
    return Prepared(cast(Any, inputs), model, setting, Recipe(steps, 8, 1e-4), "0" * 64)


class Bench:
    """Opens searches of one run folder, one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder.with_suffix(".log")
        self.opened: list[OpenedSearch] = []
        self.worker = Worker(as_predicted)

    def open(
        self,
        evaluated: Work = as_predicted,
        *,
        wanted: int = 4,
        steps: int = 0,
        pool: type[SerialPool] = SerialPool,
        deadline: float | None = None,
        texts: Splits | None = None,
        **asked_for: Any,
    ) -> OpenedSearch:
        """The search as a new process takes it up; the jobs that it is asked begin anew."""
        self.close()
        limit = (f"{LIMIT // 1000}kB",)
        config = Config.of(budget=limit, target="packed", seed=SEED, trials=wanted, **asked_for)
        is_new = not self.folder.exists()
        run = (
            RunFolder.create(self.folder, config, "autoprune search")
            if is_new
            else RunFolder.open(self.folder)
        )
        self.worker = Worker(evaluated)
        made = open_search(
            run, prepared(steps, texts), Costed(REFERENCE_MS, TOY.costs), pool(lambda _: self.worker, {}),
            Progress(quiet=True, log=self.log), wanted=wanted, deadline=deadline,
        )  # fmt: skip
        self.opened.append(made)
        return made

    def close(self) -> None:
        for search in self.opened:
            search.study.close()
            search.run.close()
        self.opened.clear()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "run")
    yield made
    made.close()


def read(search: OpenedSearch, name: str) -> dict[str, Any]:
    return dict(json.loads((search.run.path / name).read_text(encoding="utf-8")))


# ---- costs --------------------------------------------------------------------------------------


def test_costs_are_measured_and_the_original_is_timed_once_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "cache"))
    run = RunFolder.create(tmp_path / "run", Config(), "autoprune search")
    costed = list[Costed]()
    for originals in (1, 0):
        worker = Worker(as_predicted)
        pool = SerialPool(lambda _, worker=worker: worker, {})
        costed.append(measure_costs(run, prepared(), pool, Progress(quiet=True)))
        assert len(worker.asked(BuildUnit)) == len(TOY.space.units)
        assert sum(job.model == Original() for job in worker.asked(TimeModel)) == originals
    assert costed[0] == costed[1]
    assert costed[0].reference_ms == run.about().original_ms == REFERENCE_MS
    assert run.about().latency_table_error is not None
    assert (run.path / UNITS).is_file()
    assert costed[0].costs.size_bytes(TOY.space.untouched()) == ORIGINAL_BYTES
    run.close()


# ---- baselines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [SerialPool, BackwardsPool])
def test_baselines_are_recorded_in_order_whichever_ends_first(bench: Bench, pool: type[SerialPool]) -> None:
    search = bench.open(pool=pool, steps=2)
    run_baselines(search)
    trials = search.study.trials()
    assert [(trial.number, trial.name) for trial in trials] == list(enumerate(NAMES))
    assert NAMES[0] == ORIGINAL
    done = [job.candidate for job in bench.worker.asked(Evaluate)]
    in_order = [trial.candidate for trial in trials]
    assert done == (in_order if pool is SerialPool else in_order[::-1])
    assert {trial.rung for trial in trials} == {0}
    assert {job.recipe.steps for job in bench.worker.asked(Evaluate)} == {0}
    kept = {int(folder.name) for folder in (search.run.path / "trials").iterdir()}
    assert kept == {trial.number for trial in trials if trial.name != ORIGINAL}
    assert read(search, FRONT)["run"]["state"] == "running"


def test_baselines_that_the_study_has_are_not_run_twice(bench: Bench) -> None:
    run_baselines(bench.open())
    before = bench.opened[-1].study.trials()
    again = bench.open()
    run_baselines(again)
    assert bench.worker.jobs == []
    assert again.study.trials() == before


def test_a_baseline_that_was_cut_off_is_run_after_a_resume(bench: Bench) -> None:
    def cut(worker: Worker, job: Evaluate) -> Evaluated:
        if len(worker.jobs) == 3:
            raise KeyboardInterrupt
        return as_predicted(worker, job)

    first = bench.open(cut)
    with pytest.raises(KeyboardInterrupt):
        run_baselines(first)
    assert [trial.name for trial in first.study.trials()] == NAMES[:2]
    again = bench.open()
    run_baselines(again)
    assert [trial.name for trial in again.study.trials()] == NAMES
    assert len(bench.worker.jobs) == len(NAMES) - 2


def test_the_best_baselines_within_the_budget_are_trained_as_long_as_finalists(bench: Bench) -> None:
    search = bench.open(wanted=6, steps=2)
    drive(search)
    trials = search.study.trials()
    longer = [trial for trial in trials if trial.name is not None and trial.name.endswith(LONGER)]
    assert longer
    by_name = {trial.name: trial for trial in trials if trial.is_baseline}
    for trial in longer:
        untrained = by_name[str(trial.name).removesuffix(LONGER)]
        assert (trial.candidate, trial.rung, untrained.rung) == (untrained.candidate, 2, 0)
        assert search.job(trial.candidate, 2) in bench.worker.jobs
        assert trial.measurement is not None
        assert search.budget.allows(trial.measurement.size_bytes)
        assert trial.test_accuracy == 70.0
        assert trial.number in search.study.timed_again
    assert len({trial.candidate for trial in trials if trial.rung == 2}) == sum(t.rung == 2 for t in trials)
    again = bench.open(wanted=6, steps=2)
    drive(again)
    assert bench.worker.jobs == []
    assert again.study.trials() == trials


def with_weights(search: OpenedSearch) -> OpenedSearch:
    """The same with random weights, and with statistics of random inputs."""
    torch.manual_seed(0)
    prepared, statistics = search.prepared, {}
    for unit in prepared.setting.units:
        for weight in unit.weights:
            prepared.model.set_submodule(weight.path, nn.Linear(64, 64))
        x = torch.randn(99, 64)
        seen = Statistics(x.T @ x / 99, x.mean(0), torch.ones(64), 1.0)
        statistics[unit.cols[0].path] = seen.arrays()
    setting = replace(prepared.setting, statistics=statistics)
    return replace(search, prepared=replace(prepared, setting=setting))


def test_models_of_rules_are_baselines_where_they_are_asked_for(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    search = with_weights(bench.open(wanted=6, steps=2, allocation=("erk", "global-threshold", "uniform")))
    drive(search)
    by_name = {trial.name: trial for trial in search.study.trials() if trial.is_baseline}
    worth = SeenLoss.of(search.study.trials()).worth_training(ROWS, 50.0)
    for name in ("ERK pruning", "global threshold pruning", "uniform pruning"):
        first, longer = by_name[name], by_name.get(name + LONGER)
        assert first.measurement is not None
        assert search.budget.allows(first.measurement.size_bytes)
        same = [trial for trial in search.study.trials() if trial.candidate == first.candidate]
        is_trained = longer is not None or any(trial.rung == 2 for trial in same)
        assert is_trained or first.measurement.kl <= worth
    again = bench.open(wanted=6, steps=2, allocation=("erk", "global-threshold", "uniform"))
    drive(again)
    assert bench.worker.jobs == []
    assert not caplog.records


def test_a_rule_that_has_no_model_is_said(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    search = bench.open(allocation=("erk",))
    whole = tuple(replace(unit, rows=unit.weights, cols=()) for unit in search.prepared.setting.units)
    setting = replace(search.prepared.setting, units=whole)
    run_baselines(replace(search, prepared=replace(search.prepared, setting=setting)))
    assert [trial.name for trial in search.study.trials()] == NAMES
    assert "--allocation erk: it has no model that loses rows" in caplog.text


def test_no_baseline_is_trained_longer_without_training_or_time(bench: Bench) -> None:
    for options in ({"steps": 0}, {"steps": 2, "deadline": time.monotonic() - 1.0}):
        search = bench.open(**options)
        run_baselines(search)
        count = len(search.study.trials())
        train_rivals(search)
        assert len(search.study.trials()) == count


# ---- lines --------------------------------------------------------------------------------------


def names_of(record: dict[str, Any]) -> list[str]:
    return [line.name for line in checked_front(record).lines]


def test_lines_are_measured_once_and_are_no_trials(bench: Bench) -> None:
    summary = drive(bench.open(wanted=3, texts=some_texts()))
    search, worker = bench.opened[-1], bench.worker
    (job,) = worker.asked(FitLine)
    assert job.reference_ms == REFERENCE_MS
    assert job.line.train.texts == ("a fine film", "a dull film")
    record = read(search, FRONT)
    assert names_of(record) == [line.name for line in summary.lines] == [job.line.name]
    assert job.line.name not in [trial["name"] for trial in record["trials"]]
    assert "as it is" in (search.run.path / "report.html").read_text(encoding="utf-8")
    with_lines = summary.now.trials
    drive(bench.open(wanted=3, texts=some_texts()))
    assert bench.worker.jobs == []
    assert bench.opened[-1].study.trials() == with_lines


def test_a_line_that_fails_is_left_out_and_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    search = bench.open(wanted=3, texts=some_texts())
    worker = bench.worker

    def broken(job: object) -> object:
        if isinstance(job, FitLine):
            raise ValueError("no words " + 500 * "x")
        return worker(job)

    monkeypatch.setattr(search.pool, "_work", broken)
    assert drive(search).lines == ()
    assert "lines" not in read(search, FRONT)
    (note,) = [line for line in bench.log.read_text("utf-8").splitlines() if line.startswith("Note ")]
    assert "tf-idf and logistic regression was not measured" in note
    assert "ValueError: no words" in note
    assert len(note) < 320
    run_lines(again := bench.open(wanted=3, texts=some_texts()))
    assert len(names_of(read(again, FRONT))) == 1


def test_a_run_of_before_lines_gets_them_when_it_is_gone_on_with(bench: Bench) -> None:
    drive(bench.open(wanted=3))
    assert "lines" not in read(bench.opened[-1], FRONT)
    drive(bench.open(wanted=4, texts=some_texts()))
    assert len(names_of(read(bench.opened[-1], FRONT))) == 1


# ---- trials -------------------------------------------------------------------------------------


def test_trials_are_asked_told_and_kept_until_there_are_enough(bench: Bench) -> None:
    search = bench.open(wanted=5)
    run_trials(search)
    trials = search.study.trials()
    jobs = bench.worker.asked(Evaluate)
    assert len(tried_trials(trials)) == len(trials) == len(jobs) == 5
    assert [job.candidate for job in jobs] == [trial.candidate for trial in trials]
    assert len(set(jobs)) == 5
    for job, trial in zip(jobs, trials, strict=True):
        assert (job.seed, job.reference_ms, job.recipe.steps) == (
            candidate_seed(SEED, job.candidate),
            REFERENCE_MS,
            0,
        )
        assert trial.measurement == as_predicted(bench.worker, job).measurement
        assert trial.predicted_size_bytes == TOY.costs.size_bytes(job.candidate)
    front = read(search, FRONT)["front"]
    kept = {int(folder.name): folder for folder in (search.run.path / "trials").iterdir()}
    assert front
    assert set(front) <= set(kept)
    assert (
        packed_model(search, trials[front[0]]).weights
        == as_predicted(bench.worker, jobs[front[0]]).packed.weights
    )
    assert not search.study.history.in_flight
    assert search.run.about().stopped_by == "trials"
    status = read(search, STATUS)
    assert (status["trials"], status["planned"], status["failed"]) == (5, 5, 0)


def test_a_trial_may_work_for_as_long_as_those_before_tell_or_as_the_user_says(bench: Bench) -> None:
    drive(bench.open(wanted=3))
    limits = [job.limit_s for job in bench.worker.asked(Evaluate)]
    assert limits[: len(NAMES)] == [FIRST_SECONDS] * len(NAMES)
    assert set(limits[len(NAMES) :]) == {FLOOR_SECONDS}
    bench.close()
    shutil.rmtree(bench.folder)
    drive(bench.open(wanted=3, trial_timeout_s=7.0))
    assert {job.limit_s for job in bench.worker.asked(Evaluate)} == {7.0}


def test_promising_trials_are_trained_and_do_not_count_as_tried(bench: Bench) -> None:
    search = bench.open(wanted=6, steps=2)
    run_trials(search)
    trials = search.study.trials()
    assert len(tried_trials(trials)) == 6
    trained = [trial for trial in trials if trial.rung]
    assert {trial.rung for trial in trained} == {1, 2}
    assert {job.recipe.steps for job in bench.worker.asked(Evaluate)} == {0, 2, 8}
    status = read(search, STATUS)
    assert (status["trials"], status["trained"]) == (6, len(trained))


def test_a_search_that_is_taken_up_goes_on_to_the_number_wanted(bench: Bench) -> None:
    first = bench.open(wanted=3)
    run_trials(first)
    again = bench.open(wanted=5)
    run_trials(again)
    assert len(bench.worker.jobs) == 2
    assert len({trial.candidate for trial in again.study.trials()}) == 5


def test_no_trial_begins_when_the_time_is_up(bench: Bench) -> None:
    search = bench.open(deadline=time.monotonic() - 1.0)
    run_trials(search)
    assert search.study.trials() == bench.worker.jobs == []
    assert search.run.about().stopped_by == "time"


def test_trials_that_bring_nothing_end_it(bench: Bench) -> None:
    def no_better(worker: Worker, job: Evaluate) -> Evaluated:
        worse = Measurement(LIMIT, 1.0, 80.0, kl=1.0 + len(worker.jobs))
        return replace(as_predicted(worker, job), measurement=worse)

    search = bench.open(no_better, wanted=50, patience=3)
    run_trials(search)
    assert search.run.about().stopped_by == "patience"
    assert len(search.study.trials()) == 4


def out_of_memory(every: int) -> Work:
    """Each so many jobs, one fails."""

    def evaluated(worker: Worker, job: Evaluate) -> Evaluated:
        if len(worker.jobs) % every == 0:
            raise MemoryError("none left")
        return as_predicted(worker, job)

    return evaluated


def test_a_job_that_fails_is_a_failed_trial_and_counted(bench: Bench) -> None:
    search = bench.open(out_of_memory(every=3), wanted=8)
    run_trials(search)
    trials = search.study.trials()
    failed = failed_trials(trials)
    assert [trial.number for trial in failed] == [2, 5]
    assert {trial.failure for trial in failed} == {"MemoryError: none left"}
    assert len(tried_trials(trials)) == 8
    assert not any(search.run.artifact(trial.number).exists() for trial in failed)
    assert read(search, STATUS)["failed"] == 2
    assert [trial["state"] for trial in read(search, FRONT)["trials"]].count("FAIL") == 2


def test_a_search_ends_where_more_than_half_of_its_trials_failed(bench: Bench) -> None:
    search = bench.open(out_of_memory(every=1), wanted=50)
    with pytest.raises(
        FailedTrialsError, match=r"6 of 6 trials failed, the last with: MemoryError: none left"
    ):
        run_trials(search)
    assert len(search.study.trials()) == FEWEST_TRIALS


def test_half_of_the_trials_may_fail(bench: Bench) -> None:
    search = bench.open(out_of_memory(every=2), wanted=8)
    run_trials(search)
    assert len(failed_trials(search.study.trials())) == 4


# ---- a budget's answer --------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 2])
def test_the_answer_to_a_budget_is_trained_once(bench: Bench, steps: int) -> None:
    search = bench.open(steps=steps)
    run_baselines(search)
    before = len(search.study.trials())
    budget = Budget(size_bytes=ORIGINAL_BYTES // 5)
    for _ in range(2):
        answer_budget(search, budget, state="running")
    *_, answered = trials = search.study.trials()
    assert len(trials) == before + 1
    assert answered.measurement is not None
    assert answered.measurement.size_bytes <= ORIGINAL_BYTES // 5
    assert (answered.rung, bench.worker.asked(Evaluate)[-1].recipe.steps) == (1 if steps else 0, steps)
    assert (search.run.artifact(answered.number) / "model.safetensors").is_file()
    assert not search.study.history.in_flight
    assert read(search, FRONT)["run"]["state"] == "running"


def test_a_budget_that_nothing_meets_is_an_error(bench: Bench) -> None:
    search = bench.open()
    with pytest.raises(BudgetError, match="no candidate is predicted to be within"):
        answer_budget(search, Budget(size_bytes=10), state="finished")
    assert bench.worker.jobs == []


def test_a_latency_that_nothing_meets_is_answered_with_one_that_is_met(bench: Bench) -> None:
    """Whoever follows the advice of the error, of its note and of the status is not refused again."""
    search = bench.open()
    run_baselines(search)
    fastest = min(finished(search.study.trials()), key=lambda pair: pair[1].latency_ms)
    with pytest.raises(BudgetError) as caught, ending_recorded(search.run.path):
        answer_budget(search, Budget(2 * ORIGINAL_BYTES, 0.001), state="running")
    trial, m = fastest
    assert f"the fastest measured is {m.latency_ms:.3g} ms (trial {trial.number})" in str(caught.value)
    size, time = caught.value.limits
    advice = f"autoprune resume {search.run.path} --budget {size} --budget {time}"
    assert caught.value.__notes__ == [f"go on with: {advice}"]
    assert read(search, STATUS)["next"] == advice
    budget = parse_budget(caught.value.limits)
    assert budget.allows(m.size_bytes, m.latency_ms)
    answer_budget(search, budget, state="running")


def test_what_files_are_larger_than_predicted_is_left_free(bench: Bench) -> None:
    trials = [
        Trial(k, Candidate(()), Measurement(1000 + more, 1.0, 80.0), predicted_size_bytes=1000, name=name)
        for k, (more, name) in enumerate([(500, ORIGINAL), (0, "a"), (10, "b"), (20, "c"), (30, "d")])
    ]
    assert (excess_bytes(trials), excess_bytes(trials[:1])) == (20, 0)
    search = bench.open(
        lambda worker, job: replace(
            as_predicted(worker, job),
            measurement=Measurement(TOY.costs.size_bytes(job.candidate) + 40, 1.0, 80.0, kl=0.1),
        )
    )
    assert search.predicted_limit_bytes() == LIMIT
    run_baselines(search)
    assert search.predicted_limit_bytes() == LIMIT - 40


# ---- all stages ---------------------------------------------------------------------------------


def test_finalists_are_timed_again_and_scored_after_the_trials(bench: Bench) -> None:
    search = bench.open(wanted=6)
    summary = drive(search)
    best = summary.now.best
    assert (summary.state, summary.run) == ("finished", search.run.path)
    assert best is not None
    kinds = [type(job) for job in bench.worker.jobs]
    assert kinds == sorted(kinds, key=[Evaluate, TimeTogether, Score, LookAtAnswers].index)
    assert {*kinds} == {Evaluate, TimeTogether, Score, LookAtAnswers}
    plain = {trial.number for trial in search.study.trials() if trial.is_baseline}
    shipped = {trial.number for trial in summary.now.points_to_ship}
    scored = {trial.number for trial in search.study.trials() if trial.test_accuracy == 70.0}
    assert scored == plain | shipped
    assert Score(Original()) in bench.worker.jobs
    assert search.study.timed_again == (plain | shipped) - {0}
    record = read(search, FRONT)
    assert (record["run"]["state"], record["best"]) == ("finished", best.number)
    assert (search.run.path / "report.html").is_file()


def test_a_finished_search_that_is_taken_up_does_nothing_more(bench: Bench) -> None:
    before = drive(bench.open(wanted=4)).now
    again = drive(bench.open(wanted=4)).now
    assert bench.worker.jobs == []
    assert again.trials == before.trials


def test_a_model_that_was_not_kept_is_made_again(bench: Bench) -> None:
    search = bench.open()
    run_baselines(search)
    trial = search.study.trials()[1]
    before = packed_model(search, trial)
    shutil.rmtree(search.run.artifact(1))
    assert packed_model(search, trial) == before
    assert bench.worker.jobs[-1] == search.job(trial.candidate, trial.rung)


def test_a_new_budget_is_answered_before_the_trials(bench: Bench) -> None:
    drive(bench.open(wanted=3, steps=2))
    search = bench.open(wanted=3, steps=2)
    search.run.note(config={**search.config.as_json(), "budget": [f"{LIMIT // 2500}kB"]})
    search = bench.open(wanted=3, steps=2)
    count = len(search.study.trials())
    summary = drive(search, new_budget=True)
    first = next(job for job in bench.worker.asked(Evaluate) if job.recipe.steps)
    new = search.study.trials()[count:]
    (answered,) = (trial for trial in new if trial.candidate == first.candidate and trial.rung == 1)
    assert first == search.job(answered.candidate, 1)
    assert answered.number <= count + 1  # after a baseline that the new budget asks for, if any
    assert summary.budget == Budget(size_bytes=LIMIT // 2500 * 1000)


@pytest.mark.parametrize("during", [Evaluate, TimeTogether, Score])
def test_what_is_interrupted_leaves_a_front_that_says_stopped(
    bench: Bench, during: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = bench.open(wanted=6)
    worker, calls = bench.worker, list[object]()

    def interrupted(job: object) -> object:
        calls.append(job)
        if isinstance(job, during) and (during is not Evaluate or len(calls) == len(NAMES) + 3):
            raise KeyboardInterrupt
        return worker(job)

    monkeypatch.setattr(search.pool, "_work", interrupted)
    with pytest.raises(KeyboardInterrupt):
        drive(search)
    trials = search.study.trials()
    assert len(tried_trials(trials)) == (2 if during is Evaluate else 6)
    record, status = read(search, FRONT), read(search, STATUS)
    assert (record["run"]["state"], status["state"]) == ("stopped", "stopped")
    assert len(record["trials"]) == len(trials)
    assert (search.run.path / "report.html").is_file()
    summary = drive(bench.open(wanted=6))
    assert (summary.state, len(tried_trials(summary.now.trials))) == ("finished", 6)
    assert summary.now.trials[: len(trials)] == [
        replace(trial, test_accuracy=now.test_accuracy, measurement=now.measurement)
        for trial, now in zip(trials, summary.now.trials, strict=False)
    ]


def test_a_search_whose_trials_fail_says_stopped(bench: Bench) -> None:
    search = bench.open(out_of_memory(every=1), wanted=50)
    with pytest.raises(FailedTrialsError):
        drive(search)
    assert read(search, FRONT)["run"]["state"] == "stopped"


def test_that_the_last_summary_fails_does_not_hide_what_ended_the_search(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = bench.open(out_of_memory(every=1), wanted=50)
    summed_up = search.ledger.sum_up

    def full(*, state: str, **more: Any) -> Any:
        if state == "stopped":
            raise OSError(28, "No space left on device")
        return summed_up(state=state, **more)

    monkeypatch.setattr(search.ledger, "sum_up", full)
    with pytest.raises(FailedTrialsError):
        drive(search)


def test_no_trial_within_the_budget_is_an_error_that_says_how_to_go_on(bench: Bench) -> None:
    def too_large(worker: Worker, job: Evaluate) -> Evaluated:
        made = as_predicted(worker, job)
        return replace(made, measurement=replace(made.measurement, size_bytes=2 * ORIGINAL_BYTES))

    search = bench.open(too_large, wanted=3)
    with pytest.raises(BudgetError) as caught:
        drive(search)
    count, resume = len(search.study.trials()), f"autoprune resume {search.run.path}"
    first = next(trial for trial in search.study.trials() if trial.name != ORIGINAL)
    size = f"{2 * ORIGINAL_BYTES / 1e6:.3g}"
    told = str(caught.value)
    assert told.startswith(f"no trial of {count} is within {search.budget}: the smallest measured is {size}")
    assert f" MB (trial {first.number}), the smallest predicted " in told
    limit = f"{math.ceil(2 * ORIGINAL_BYTES / 1000)}kB"
    assert told.endswith(
        f"; go on with: {resume} --trials +50, or under limits that were met: {resume} --budget {limit}"
    )
    assert read(search, FRONT)["run"]["state"] == "finished"
    assert bench.worker.asked(TimeTogether) == []
