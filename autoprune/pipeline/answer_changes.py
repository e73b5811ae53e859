"""After the search: to which validation rows the points to ship answer otherwise than the original.

Shapes: m answered places of all rows in order, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.evaluation.answer_changes import LookAtAnswers, Looked, is_looked_at
from autoprune.evaluation.jobs import Original
from autoprune.pipeline.finalists import packed_model
from autoprune.pipeline.kept_rows import RowsToShow
from autoprune.pipeline.opened import OpenedSearch
from autoprune.run.answer_changes import (
    MOST_CLASSES,
    MOST_EXAMPLES,
    AnswerChanges,
    Cell,
    Example,
    PointChanges,
    record_changes,
    recorded_changes,
)
from autoprune.tasks.task import Task
from autoprune.workers.pool import run_all, run_one


def look_at_finalists(search: OpenedSearch) -> None:
    """Hold the answers of the points to ship against the original's, each point once.

    Rows of the data are kept unless the run was asked for none.
    """
    task = search.prepared.setting.task
    if not is_looked_at(task):
        return
    before = recorded_changes(search.run.path)
    wanted = {str(trial.number): trial for trial in search.ledger.standing().points_to_ship}
    todo = [t for number, t in wanted.items() if before is None or number not in before.points]
    todo = [trial for trial in todo if trial.measurement is not None]
    if not todo:
        return
    has_examples = not search.config.search.no_examples
    inputs = search.prepared.inputs
    shown = RowsToShow(task, inputs.texts, inputs.loaded.tokenizer)
    record = (before or _empty(task, has_examples=has_examples)).of_points(wanted)
    with search.progress.bar("Answers of finalists to validation rows", 1 + len(todo)) as bar:
        held = HeldAgainst(task, run_one(search.pool, LookAtAnswers(Original()), bar), shown)

        def done(k: int, answers: Looked) -> None:
            nonlocal record
            point = held.point(answers, has_examples=has_examples)
            rows = {example.key: shown.row(example.row, example.place) for example in point.examples}
            record = record.with_point(todo[k].number, point, rows)
            record_changes(search.run.path, record)

        run_all(search.pool, [LookAtAnswers(packed_model(search, trial)) for trial in todo], done, bar)


def _empty(task: Task, *, has_examples: bool) -> AnswerChanges:
    names = task.label_names if task.is_probable and not task.kind.predicts_next_token else ()
    places = task.answer_count(task.validation)
    return AnswerChanges(sort=sort_of(task), places=places, classes=names, examples=has_examples)


def sort_of(task: Task) -> str:
    """What an answer is, in a word."""
    if task.kind.predicts_next_token:
        return "token"
    if task.is_probable:
        return "tag" if task.kind.answers_each_token else "class"
    return "vector" if task.kind.gives_vectors else "number"


@dataclass(frozen=True)
class HeldAgainst:
    """The original's answers, which those of points are held against."""

    task: Task
    original: Looked
    shown: RowsToShow

    def point(self, now: Looked, *, has_examples: bool = True) -> PointChanges:
        """What changed, and the worst of it: what was right comes first, then what diverges most."""
        task, then = self.task, self.original
        labels = task.labels(task.validation, np.arange(len(task.validation)))
        changed: NDArray[np.bool_] | None = None
        lost = won = None
        if now.choice is not None and then.choice is not None:
            changed = now.choice != then.choice
            if not task.kind.gives_vectors:
                lost = changed & (then.choice == labels)
                won = changed & (now.choice == labels)
        chosen = self._worst(now, changed, lost).tolist() if has_examples else []
        return PointChanges(
            changed=_count(changed),
            lost=_count(lost),
            won=_count(won),
            kl=float(np.mean(now.kl, dtype=np.float64)),
            confusion=self._confusion(now, labels),
            examples=tuple(self._example(k, now, labels) for k in chosen),
        )

    def _worst(
        self, now: Looked, changed: NDArray[np.bool_] | None, lost: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """The places to show, the worst first."""
        harm = np.asarray(now.kl, np.float64)
        if now.came is not None and self.original.came is not None:
            harm = np.log(np.maximum(self.original.came, 1e-30)) - np.log(np.maximum(now.came, 1e-30))
        elif changed is None:
            harm = np.abs(now.value - self.original.value)
        first = np.zeros(len(harm), bool) if lost is None or now.came is not None else lost
        order = np.lexsort((np.arange(len(harm)), -harm, ~first))
        if changed is not None:  # of vectors only some have a nearest row
            order = order[order < len(changed)]
            return order[changed[order]][:MOST_EXAMPLES]
        return order[harm[order] > 0][:MOST_EXAMPLES]

    def _confusion(self, now: Looked, labels: NDArray[np.int64]) -> tuple[Cell, ...]:
        """All counts of few classes; of many the largest wrong ones of the point."""
        task, then = self.task, self.original
        names = len(task.label_names)
        if sort_of(task) not in ("class", "tag") or now.choice is None or then.choice is None or not names:
            return ()
        ours, theirs = (_counts(labels, answers.choice, names) for answers in (now, then))
        if names <= MOST_CLASSES:
            places = [(int(i), int(j)) for i, j in np.argwhere((ours > 0) | (theirs > 0))]
        else:
            wrong = ours * (1 - np.eye(names, dtype=np.int64))
            order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CLASSES]
            places = [divmod(int(k), names) for k in order if wrong.flat[k] > 0]
        return tuple(Cell(i, j, int(ours[i, j]), int(theirs[i, j])) for i, j in places)

    def _example(self, k: int, now: Looked, labels: NDArray[np.int64]) -> Example:
        then, kind, shown = self.original, self.task.kind, self.shown
        row, place = shown.row_of(k)
        sure = (then.value, now.value) if now.came is None or then.came is None else (then.came, now.came)
        kl = float(now.kl[k])
        if now.choice is None or then.choice is None:
            numbers = (labels[k], then.value[k], now.value[k])
            expected, before, after = (f"{float(number):.3g}" for number in numbers)
            return Example(row=row, place=place, kl=kl, expected=expected, original=before, now=after)
        if kind.gives_vectors:
            expected, before, after = "", shown.short_text(then.choice[k]), shown.short_text(now.choice[k])
        else:
            expected, before, after = (shown.name(n) for n in (labels[k], then.choice[k], now.choice[k]))
        return Example(
            row=row, place=place, kl=kl, expected=expected, original=before, now=after,
            original_sure=float(sure[0][k]), now_sure=float(sure[1][k]),
        )  # fmt: skip


def _counts(labels: NDArray[np.int64], choice: NDArray[np.int32] | None, names: int) -> NDArray[np.int64]:
    """How many of each true class got each answer [k k]; what is no class of these is left out."""
    assert choice is not None
    known = (labels >= 0) & (labels < names) & (choice < names)
    counts = np.bincount(labels[known] * names + choice[known], minlength=names * names)
    return counts.reshape(names, names)


def _count(places: NDArray[np.bool_] | None) -> int | None:
    return None if places is None else int(places.sum())
