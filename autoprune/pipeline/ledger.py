"""Keeps the run folder true to the study: front, status, table, report, and the models worth keeping."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata

import numpy as np

from autoprune.core.files import write_json
from autoprune.core.redaction import redacted
from autoprune.evaluation.jobs import Evaluated
from autoprune.evaluation.measure import TIMING_PAIRS
from autoprune.evaluation.seeds import candidate_seed
from autoprune.models.split_embedding import parts_of
from autoprune.pipeline.measured_costs import Costed
from autoprune.pipeline.prepare import Prepared
from autoprune.report import write_csv, write_report
from autoprune.run.answer_changes import changes_field, with_rows
from autoprune.run.config import Config
from autoprune.run.fast_storages import fast_facts
from autoprune.run.folder import FRONT, SENSITIVITY, RunFolder, read_record
from autoprune.run.folds import folds_field
from autoprune.run.front_file import FrontFile
from autoprune.run.front_record import sensitivity_file
from autoprune.run.lines import lines_field
from autoprune.run.robustness import robustness_field
from autoprune.run.row_scores import record_validation_scores
from autoprune.run.run_record import Limits, RecordedRecipe, RunFacts
from autoprune.run.safe_front import safe
from autoprune.run.standing import Standing, class_scores, standing
from autoprune.run.ties import ties_field
from autoprune.space.levels import Candidate
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.hypervolume import ByteRange
from autoprune.strategy.leaders import Leaders
from autoprune.strategy.study import Study
from autoprune.targets import get_target, is_fast
from autoprune.targets.sizes import SIZES_VERSION
from autoprune.targets.target import PLAIN
from autoprune.tasks.metrics import ACCURACY
from autoprune.tasks.row_scores import class_rows
from autoprune.tasks.task import Arrays, Task
from autoprune.workers.pool import Outcome

PACKAGES = ("autoprune", "torch", "transformers", "optuna", "ray", "datasets", "openvino")

MOST_CAUSES = 10
"""Causes of failures that `status.json` counts; `front.json` has all."""

EVALUATION = ("finetune", "save", "accuracy", "latency")
"""Parts of a trial that train or measure it; size is measured by saving."""

PROTOCOL = (
    "Median of {pairs} calls, batch {batch}, {what}, one thread, the original and the "
    "candidate in turn; meanwhile every other worker of the machine waits. The median over these "
    "pairs of the candidate's time to the original's is multiplied by the original's median, measured "
    "once before the trials. The bars are the 10th and 90th percentile. The points to ship and the "
    "uniform models are timed again at the end, all in turn."
)


def _protocol(config: Config, task: Task) -> str:
    """How latency is taken, in words."""
    what = f"{config.timing.sequence} tokens"
    if task.kind.predicts_next_token:
        what = f"one token after {config.timing.sequence} others, whose keys and values are kept"
    elif isinstance(task.validation, Arrays):
        shapes = (x.shape[1:] for x in task.validation.inputs.values())
        what = "inputs of " + ", ".join(" x ".join(map(str, shape)) for shape in shapes)
    return PROTOCOL.format(pairs=TIMING_PAIRS, batch=config.timing.batch, what=what)


def guessed_accuracy(task: Task) -> float:
    """Accuracy of always answering with the commonest class; 0 for any other metric."""
    if task.metric != ACCURACY:
        return 0.0
    labels = task.labels(task.validation, np.arange(len(task.validation)))
    return 100.0 * float(np.bincount(labels).max()) / len(labels)


class Ledger:
    """What is written of one run while and after it is searched."""

    def __init__(
        self,
        run: RunFolder,
        prepared: Prepared,
        study: Study,
        costed: Costed,
        *,
        wanted: int,
        byte_range: ByteRange,
    ) -> None:
        self.run, self.prepared, self.study = run, prepared, study
        self.costs, self.reference_ms = costed.costs, costed.reference_ms
        self.byte_range = byte_range
        self.config, self.wanted = run.config(), wanted
        self.budget = self.config.limits()
        task = prepared.setting.task
        self.classes = class_rows(task, task.validation)
        self.started = time.monotonic()
        ended = (trial.ended_s or 0.0 for trial in study.history.finished)
        self.before = max(run.about().seconds, *ended, 0.0)  # a driver that was killed noted no seconds
        self.estimates: list[tuple[float, float]] = []
        self.leaders = Leaders()
        self._front = FrontFile(run.path / FRONT, self.costs, self.budget, byte_range)
        self._summed: tuple[int, Standing] | None = None
        self._dropped = -1
        asked = self.config.search.file_storage
        self._stored = {} if asked == PLAIN else {"file_storage": asked}
        self._note_facts()

    def seconds(self) -> float:
        """Seconds that the run has had a driver, this one and those before it."""
        return self.before + time.monotonic() - self.started

    def trial_of(
        self, candidate: Candidate, rung: int, outcome: Outcome[Evaluated], name: str | None = None
    ) -> Trial:
        """What an outcome says of a candidate; `number` is the study's to give."""
        result = outcome.result
        return Trial(
            number=-1,
            candidate=candidate,
            measurement=result.measurement if result else None,
            failure=None if outcome.failure is None else redacted(outcome.failure),
            name=name,
            predicted_size_bytes=self.costs.size_bytes(candidate),
            seconds=round(outcome.seconds, 3),
            ended_s=round(self.seconds(), 3),
            worker=outcome.worker,
            seed=candidate_seed(self.config.search.seed, candidate),
            rung=rung,
            parts=dict(result.parts) if result else {},
            row_scores=result.row_scores if result else "",
        )

    def keep(self, trial: Trial, result: Evaluated | None) -> None:
        """Keep the model of a trial where its worker sent it; `sum_up` drops those that leave the front."""
        if result is not None and result.packed is not None:
            architecture = self.prepared.setting.architecture.described()
            self.run.keep_artifact(trial.number, result.packed.weights, architecture)
            self._dropped = -1

    def standing(self) -> Standing:
        """How the trials stand; the front and the points are worked out anew where a trial changed them."""
        history = self.study.history
        self.leaders.follow(history)
        if self._summed is None or self._summed[0] != self.leaders.version:
            self._summed = self.leaders.version, self._standing_of(self.leaders.trials)
        return replace(self._summed[1], trials=history.finished)

    def _standing_of(self, trials: Sequence[Trial]) -> Standing:
        task = self.prepared.setting.task
        original = self.prepared.inputs.original_bytes
        reference = Measurement(original, self.reference_ms, guessed_accuracy(task))
        return standing(trials, self.budget, reference, answers=task.answer_count(task.validation))

    def sum_up(self, *, state: str, in_flight: int = 0, seconds_left: float | None = None) -> Standing:
        """Bring `status.json` up to date, and `front.json`; at the end the table and the report too.

        While a search of many trials goes on, `front.json` is written now and then: all trials are in the
        study.
        """
        now = self.standing()
        seconds = round(self.seconds(), 1)
        if state != "running" or self._front.is_due(len(now.trials)):
            self._write_front(now, state, seconds)
        if state != "running" or self._dropped != self.leaders.version:
            self._drop_artifacts(now)
        if seconds_left is not None:
            self.estimates.append((time.monotonic() - self.started, seconds_left))
        points = now.points.numbers()
        self.run.status(
            state, trials=self.leaders.tried, planned=self.wanted, trained=self.leaders.trained,
            in_flight=in_flight, seconds=seconds, seconds_left=seconds_left, failed=self.leaders.failed,
            causes=dict(self.leaders.causes.most_common(MOST_CAUSES)),
            front=[trial.number for trial in now.front], best=points["best"], knee=points["knee"],
            points=points, hypervolume=now.hypervolume, **self._stored,
        )  # fmt: skip
        if state != "running":
            self.run.note(seconds=seconds)
            record_validation_scores(self.run.path, now)
            front = safe(with_rows(read_record(self.run.path / FRONT), self.run.path))
            write_csv(front, self.run.path / "front.csv")
            write_report(front, self.run.path / "report.html")
        return now

    def _write_front(self, now: Standing, state: str, seconds: float) -> None:
        """Write `front.json`, and `sensitivity.json` where it is absent or the search ends."""
        about = self.run.about().model_copy(update={"seconds": seconds})
        path = self.run.path
        more = lines_field(path) | class_scores(now, self.classes) | robustness_field(path)
        more |= folds_field(path) | changes_field(path)
        if state != "running":
            more |= ties_field(now)
        fields = self._front.write(about, now, state=state, more=more)
        if state != "running" or not (self.run.path / SENSITIVITY).exists():
            write_json(self.run.path / SENSITIVITY, sensitivity_file(fields))

    def close_trials(self, stopped_by: str, seconds: float, waited: float) -> None:
        """Note how the trials ended, what share of their time the driver took, and how the estimate held.

        seconds: from the first trial to the last; waited: of these, what the driver waited for workers.
        The rest of a trial's time that is neither training nor evaluation is stitching and packing.
        """
        trials = [trial for trial in self.study.trials() if trial.parts and not trial.is_baseline]
        whole = sum(trial.seconds for trial in trials)
        spent = sum(trial.parts.get(name, 0.0) for trial in trials for name in EVALUATION)
        end = time.monotonic() - self.started
        begun = end - seconds
        half = min(self.estimates, key=lambda pair: abs(pair[0] - begun - seconds / 2), default=None)
        self.run.note(
            stopped_by=stopped_by,
            driver_share=round((seconds - waited) / max(seconds, 1e-9), 4),
            overhead_share=round(1 - spent / whole, 4) if whole else None,
            time_left_at_half=None
            if half is None
            else {"said": round(half[1], 1), "was": round(end - half[0], 1)},
        )

    def _drop_artifacts(self, now: Standing) -> None:
        """Models that are neither on the front, nor a baseline, nor a point to ship."""
        wanted = {trial.number for trial in now.front} | {trial.number for trial in self.leaders.baselines}
        wanted |= {trial.number for trial in now.points_to_ship}
        self._dropped = self.leaders.version
        for folder in (self.run.path / "trials").glob("[0-9]*"):
            if int(folder.name) not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    def _note_facts(self) -> None:
        """What the report says of the run, in `run.json`."""
        inputs, config, task = self.prepared.inputs, self.config, self.prepared.setting.task
        target, units = get_target(config.search.target), self.prepared.setting.units
        fast = {lv.storage for unit in units for lv in unit.levels(0.0) if is_fast(target, unit, lv)}
        facts = RunFacts(
            name=self.run.path.name,
            folder=str(self.run.path),
            model=config.model.name or "all-MiniLM-L6-v2 (built-in demo)",
            dataset=inputs.dataset,
            target=config.search.target,
            **fast_facts(fast),
            sampler=config.search.sampler,
            seed=config.search.seed,
            budget=Limits(size_bytes=self.budget.size_bytes, latency_ms=self.budget.latency_ms),
            budget_text=str(self.budget),
            task=task.kind,
            metric=task.metric,
            latency_of=task.kind.latency_of,
            validation_answers=task.answer_count(task.validation),
            validation_rows=len(task.validation),
            test_rows=len(task.test),
            planned_trials=self.wanted,
            versions={name: metadata.version(name) for name in PACKAGES},
            machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
            protocol=_protocol(config, task),
            recipe=RecordedRecipe(**vars(self.prepared.recipe)),
            model_hash=self.prepared.model_hash,
            data_hash=inputs.data_hash,
            space=inputs.space_name,
            labels=task.label_names,
            parts=parts_of(self.prepared.model),
            sizes_version=SIZES_VERSION,
            cleaned={} if inputs.cleaned is None else inputs.cleaned.counts,
        )
        if self._stored:
            facts = facts.model_copy(update=self._stored)
        if inputs.teacher is not None:
            told = {"teacher": inputs.teacher.name, "teacher_score": self.prepared.teacher_score}
            facts = facts.model_copy(update=told)
        kinds = {unit.name: unit.kind for unit in self.prepared.setting.units}
        self.run.note(facts=facts, kinds=kinds, library_key=self.prepared.setting.key)
