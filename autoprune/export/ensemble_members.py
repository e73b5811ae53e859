"""The members of an ensemble: the kept models of a run's front that answer best together within a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autoprune.core.errors import AutopruneError, BudgetError
from autoprune.core.progress import Progress
from autoprune.evaluation.measure import logits_of, teacher_answers
from autoprune.export.averaged import averaged
from autoprune.export.ensemble_selection import (
    AnsweringModel,
    choose_members,
    choose_weights,
    equal_weights,
    least_costs,
)
from autoprune.export.export_record import EnsembleRecord, MemberRecord, ScoresRecord
from autoprune.export.original import SEARCHED, original_folder
from autoprune.export.recorded_rows import validation_and_test
from autoprune.export.run_trials import RunToExport, Written, kept_trials, write_trial
from autoprune.space.budget import Budget, megabytes
from autoprune.targets import Runner, Target
from autoprune.targets.target import PLAIN
from autoprune.tasks.answers import Answers
from autoprune.tasks.task import Data, Task

AverageName = Literal["simple", "weighted"]


@dataclass(frozen=True)
class SavedMember:
    """A kept model of the front, saved for the target, and its answers to the validation rows."""

    trial: dict[str, Any]
    folder: Path
    written: Written
    run: Runner
    model: AnsweringModel


@dataclass(frozen=True)
class Answered:
    """All models that may be members, and the rows they were asked about.

    teacher: the original's answers to the validation rows, where there are no labels.
    """

    candidates: list[SavedMember]
    task: Task
    teacher: Answers | None

    def mean(self, answers: Sequence[NDArray[np.float32]], weights: Sequence[float]) -> NDArray[np.float32]:
        """The average of answers [m k] of several models."""
        return averaged(answers, weights, self.task.kind)

    def value(self, values: NDArray[np.float32]) -> tuple[float, ...]:
        """The score of answers to the validation rows, and, of classes, the labels' mean log-probability."""
        rows = self.task.validation
        score = self.task.score(rows, values, self.teacher)
        if not self.task.kind.predicts_classes:
            return (score,)
        labels = self.task.labels(rows, np.arange(len(rows)))
        shifted = values - values.max(-1, keepdims=True)
        likely = shifted[np.arange(len(labels)), labels] - np.log(np.exp(shifted).sum(-1))
        return score, float(likely.mean())


def trials_to_try(run: RunToExport, count: int, limit: Budget, *, same_target: bool) -> list[dict[str, Any]]:
    """The kept trials of the front that may be members, as far as their records tell."""
    kept = kept_trials(run)
    if len(kept) < count:
        raise AutopruneError(
            f"--ensemble {count}: {run.path} keeps {len(kept)} models of its front; give "
            f"{f'--ensemble {len(kept)} at most' if len(kept) > 1 else 'a run that keeps two or more'}"
        )
    if same_target:
        _check_room([_recorded(trial) for trial in kept], count, limit)
        kept = [trial for trial in kept if limit.allows(trial["size_bytes"], trial["latency_ms"] or 0.0)]
    return kept


def _recorded(trial: dict[str, Any]) -> AnsweringModel:
    """What a trial cost by its record."""
    return AnsweringModel(np.empty((0, 0), np.float32), trial["size_bytes"], trial["latency_ms"] or 0.0)


def _check_room(models: Sequence[AnsweringModel], count: int, limit: Budget) -> None:
    """Raise `BudgetError` where the cheapest models together are over the limit."""
    size, ms = least_costs(models, count)
    if not limit.allows(size, ms):
        raise BudgetError(
            f"--ensemble {count} within {limit}: the {count} smallest kept models of the front have "
            f"{megabytes(size)} together, and the {count} fastest take {ms:.2f} ms one after another; give a "
            "larger --budget or fewer members"
        )


def answered_members(
    run: RunToExport,
    trials: Sequence[dict[str, Any]],
    folder: Path,
    runtime: Target,
    limit: Budget,
    progress: Progress,
) -> Answered:
    """Every model saved for the target and asked, those within the limit."""
    folder.mkdir()
    (empty := folder / "no reader").mkdir()
    out: list[SavedMember] = []
    task: Task | None = None
    teacher: Answers | None = None
    storage = getattr(runtime, "storage", PLAIN)
    with progress.bar("Models of the front on validation rows", len(trials)) as bar:
        for done, trial in enumerate(trials, 1):
            place = folder / f"{trial['number']:04d}"
            written = write_trial(
                run, trial, place, target=runtime.name, storage=storage, budget=str(limit), command="",
                reader=empty, progress=progress,
            )  # fmt: skip
            if task is None:
                task = validation_and_test(run.reader, written.about, run.config.data.dataset)
                teacher = _teacher(run, task, place, runtime, task.validation)
            answer = runtime.load(place)
            model = AnsweringModel(
                logits_of(answer, task, task.validation), written.size_bytes, trial["latency_ms"] or 0.0
            )
            if limit.allows(model.size_bytes, model.latency_ms):
                out.append(SavedMember(trial, place, written, answer, model))
            bar(done, f"trial {trial['number']}")
    assert task is not None
    return Answered(out, task, teacher)


def _teacher(run: RunToExport, task: Task, folder: Path, runtime: Target, rows: Data) -> Answers | None:
    """The original's answers, where there are no labels."""
    if task.has_labels:
        return None
    example = task.batch(task.validation, [0])
    path, which = original_folder(folder, runtime, example, key=run.record.library_key, builder=run.builder)
    if which != SEARCHED:
        raise AutopruneError(
            "--ensemble: the members are chosen by the original's answers, and the original is not on this "
            "machine; export where the search ran"
        )
    return teacher_answers(runtime.load(path), task, rows)


def chosen_members(answered: Answered, count: int, limit: Budget) -> list[SavedMember]:
    """The members: by the score on validation rows, then by how likely the labels are, then by bytes."""
    models = [candidate.model for candidate in answered.candidates]
    _check_room(models, count, limit)
    numbers = choose_members(models, count, limit, answered.mean, answered.value)
    if numbers is None:
        raise BudgetError(f"no {count} kept models of the front are within {limit} together")
    return [answered.candidates[number] for number in numbers]


def ensemble_record(
    answered: Answered, chosen: Sequence[SavedMember], average: AverageName, limit: str
) -> EnsembleRecord:
    """Both averages, each member and the best single model of as many bytes, on validation and test rows."""
    validation = [member.model.answers for member in chosen]
    even = equal_weights(len(chosen))
    fitted = choose_weights(validation, answered.mean, answered.value)
    room = sum(member.model.size_bytes for member in chosen)
    single = max(
        (candidate for candidate in answered.candidates if candidate.model.size_bytes <= room),
        key=lambda candidate: answered.value(candidate.model.answers),
    )
    task, on_test = answered.task, dict[int, NDArray[np.float32]]()
    if answered.teacher is None:
        on_test = {m.trial["number"]: logits_of(m.run, task, task.test) for m in (*chosen, single)}

    def scores(weights: tuple[float, ...]) -> ScoresRecord:
        test = [on_test[member.trial["number"]] for member in chosen if on_test]
        return ScoresRecord(
            weights=weights,
            accuracy=answered.value(answered.mean(validation, weights))[0],
            test_accuracy=task.score(task.test, answered.mean(test, weights)) if test else None,
        )

    def record(name: str, member: SavedMember, weight: float | None = None) -> MemberRecord:
        test = on_test.get(member.trial["number"])
        return MemberRecord(
            name=name,
            trial=member.trial["number"],
            size_bytes=member.model.size_bytes,
            latency_ms=member.trial["latency_ms"],
            accuracy=answered.value(member.model.answers)[0],
            test_accuracy=None if test is None else task.score(task.test, test),
            weight=weight,
            units=member.written.about.units,
        )

    weights = even if average == "simple" else fitted
    return EnsembleRecord(
        average=average,
        members=tuple(record(f"member-{k + 1}", member, weights[k]) for k, member in enumerate(chosen)),
        limit=limit,
        candidates=len(answered.candidates),
        simple=scores(even),
        weighted=scores(fitted),
        single=record("", single),
    )
