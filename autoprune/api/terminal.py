"""A plan and a result, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoprune.core.processors import quota_line, usable_processors
from autoprune.run.config import Config
from autoprune.run.remarks import STOPPED, Compared, Remarked, as_good_lines, remarks
from autoprune.run.text import shell_word, size_text, stored_text
from autoprune.space.budget import Budget, megabytes
from autoprune.space.point_names import POINT_NAMES, also, by_trial
from autoprune.space.trial import ORIGINAL, Measurement, Trial, finished
from autoprune.tasks.metrics import ACCURACY, Metric
from autoprune.workers import cluster_asked_for

if TYPE_CHECKING:
    from autoprune.pipeline.inputs import Inputs
    from autoprune.run.standing import Standing, Summary


CLASS_LOSS = 10.0
"""Percent of a class's rows that a point loses before the summary says so."""


def plan_lines(
    config: Config, inputs: Inputs, smallest_bytes: int, *, metric: Metric = ACCURACY
) -> list[str]:
    """What will be done, before it is."""
    model = config.model.name or "all-MiniLM-L6-v2 (built-in demo)"
    task = inputs.task
    quota = quota_line()
    return [
        f"Model     {model}  {megabytes(inputs.original_bytes)} as {_target(config)}",
        f"Data      {inputs.dataset}  train {len(task.train)}, validation {len(task.validation)}, "
        f"test {len(task.test)}{_answers(task.label_names, metric)}",
        *([] if inputs.teacher is None else [f"Teacher   {inputs.teacher.note}"]),
        f"Space     {inputs.space_name}  {len(inputs.units)} units; smallest "
        f"{'' if inputs.coded_original is None else 'at most '}{size_text(smallest_bytes)}; "
        f"{_limit(config.limits())}",
        *(f"Note      {note}" for note in inputs.notes),
        f"Plan      baselines and {config.search.trials} trials, {_workers(config)}, "
        f"sampler {config.search.sampler}, seed {config.search.seed}; Ctrl-C is safe",
        *([f"Folds     {_folds(config, inputs)}"] if config.search.folds else []),
        *([f"Machine   {quota}"] if quota else []),
    ]


def _target(config: Config) -> str:
    """The target, and how its files are stored."""
    return stored_text(config.search.target, config.search.file_storage)


def _folds(config: Config, inputs: Inputs) -> str:
    """What folds are, and what they cost."""
    from autoprune.strategy.promotion import RUNG_STEPS

    asked, count, points = config.training.finetune_steps, config.search.folds or 0, len(POINT_NAMES)
    steps = RUNG_STEPS[-1] * (inputs.file.finetune.steps if asked is None else asked)
    return (
        f"{count}: at the end the original and the points to choose from, {points} at most, are scored on "
        f"each of {count} folds of training and validation rows, which costs up to {count * points} "
        f"fine-tunes of up to {steps} steps. The original's weights stay, and may know these rows: compare "
        "points with it there, not with test"
    )


def _workers(config: Config) -> str:
    """How many workers there are, and where."""
    asked = config.workers
    cluster = None if asked.count == 0 else cluster_asked_for(asked.address)
    if cluster is None:
        count = usable_processors() if asked.count is None else asked.count
        return f"{count or 'no'} Ray workers"
    most = "as many Ray workers as have room" if asked.count is None else f"{asked.count} Ray workers"
    return f"{most} of the cluster at {cluster}"


def summary_lines(summary: Summary, *, metric: Metric = ACCURACY) -> list[str]:
    """The baselines, the points to ship, and what to do next."""
    now, budget = summary.now, summary.budget
    plain = [trial for trial in now.trials if trial.is_baseline]
    names = [trial.name or "" for trial in plain] + [line.name for line in summary.lines]
    table = _Table(budget, metric, names)
    lines = [table.head()]
    lines += [table.trial_row(trial, trial.name or "") for trial in plain]
    lines += [
        table.row(line.name, line.size_bytes, line.latency_ms, line.accuracy, line.test_accuracy)
        for line in summary.lines
    ]
    best = f"Best within {budget}" if budget != Budget() else "Best, no limit set"
    lines.append(stored_text(best, summary.file_storage))
    named = by_trial(now.points.numbers())
    lines += [
        f"{table.trial_row(trial, f'#{trial.number} {words[0]}')}  {also(words)}".rstrip()
        for trial in now.points_to_ship
        for words in [named[trial.number]]
    ]
    simple = as_good_lines(_best(now), summary.lines, metric, answers=now.answers)
    lines += [f"  {sentence}" for sentence in [*simple, *remarks_on_points(now, metric=metric)]]
    lines += [f"  {sentence}" for sentence in _class_losses(summary)]
    lines += [f"  {sentence}" for sentence in _robustness_lines(summary)]
    lines += [f"  {sentence}" for sentence in _fold_lines(summary)]
    tried = [trial for trial in now.trials if not trial.is_baseline]
    done = sum(trial.rung == 0 for trial in tried)
    reference = now.reference
    lines.append(
        f"Front     {len(now.front)} points of {done} candidates, {len(tried) - done} of them trained, and "
        f"{len(now.trials) - len(tried)} baselines; "
        f"hypervolume {now.hypervolume:.3f} (reference {reference.size_bytes / 1e6:.1f} MB, "
        f"{reference.latency_ms:.1f} ms, {metric.told(reference.accuracy)})"
    )
    if summary.stopped_by in STOPPED and summary.stopped_by != "trials":
        lines.append(f"Ended     by {STOPPED[summary.stopped_by]}")
    lines.append(f"Report    {summary.run / 'report.html'}")
    if now.best is not None:
        words = f"autoprune export {shell_word(str(summary.run))} --trial best -o model-{now.best.number}"
        lines.append(f"Export    {words}")
    return lines


def remarks_on_points(now: Standing, *, metric: Metric = ACCURACY) -> list[str]:
    """That a uniform model wins, or that a point is no better than guessing."""
    named = by_trial(now.points.numbers())
    beside = Compared(
        [_remarked(trial, m) for trial, m in finished(now.trials) if trial.is_baseline],
        {trial.number for trial in now.points.as_accurate},
        metric,
        chance=now.reference.accuracy,
        answers=now.answers,
    )
    points = [(_remarked(t, m), ", ".join(named[t.number])) for t, m in finished(now.points_to_ship)]
    return remarks(_best(now), points, beside)


def _best(now: Standing) -> Remarked | None:
    """The best, where there is any."""
    return next((_remarked(trial, m) for trial, m in finished(now.trials) if trial == now.best), None)


def _class_losses(summary: Summary) -> list[str]:
    """The class of which a point to ship lost the most, where that is `CLASS_LOSS` points or more."""
    original = next((trial for trial in summary.now.trials if trial.name == ORIGINAL), None)
    if summary.classes is None or original is None:
        return []
    losses = [
        (trial.number, summary.classes.worst_loss(trial.row_scores, original.row_scores))
        for trial in summary.now.points_to_ship
    ]
    return [
        f"#{number} is right in {loss[1]:.0f} % of the validation rows of {loss[0]!r:.60}, the original in "
        f"{loss[2]:.0f} %: of all classes it lost the most."
        for number, loss in losses
        if loss is not None and loss[2] - loss[1] >= CLASS_LOSS
    ]


def _fold_lines(summary: Summary) -> list[str]:
    """What the original and the points score over folds, where all folds were scored."""
    from autoprune.run.folds import spread_text

    folds, now, metric = summary.folds, summary.now, summary.metric
    if folds is None:
        return []
    named = by_trial(now.points.numbers())
    told = [
        (f"#{trial.number} {named[trial.number][0]}" if trial.name != ORIGINAL else "the original", scores)
        for trial in now.original_and_points
        if (scores := folds.of(trial.number)) is not None
    ]
    return [f"{name}: {spread_text(metric, scores)}" for name, scores in told]


def _robustness_lines(summary: Summary) -> list[str]:
    """What the original and each point to ship lose on altered test rows, and how often answers flip."""
    what, original = summary.robustness, next((t for t in summary.now.trials if t.name == ORIGINAL), None)
    if what is None or original is None or (before := what.drops(original.number)) is None:
        return []
    lines = []
    for trial in summary.now.points_to_ship:
        if (after := what.drops(trial.number)) is None:
            continue
        told = ", ".join(
            f"{row.name} {ours:.1f} ({theirs:.1f})"
            for row, ours, theirs in zip(what.alterations, after, before, strict=True)
        )
        flips = what.flips[str(trial.number)][0]
        agreed = "" if flips is None else f"; {flips:.1f} % of its answers to them as they are differ"
        lines.append(f"#{trial.number} loses on altered test rows (the original): {told}{agreed}.")
    return lines


def _remarked(trial: Trial, m: Measurement) -> Remarked:
    return Remarked(
        trial.number,
        trial.name,
        f"#{trial.number}",
        trial.candidate,
        m.size_bytes,
        m.latency_ms,
        m.accuracy,
    )


def _limit(budget: Budget) -> str:
    """The budget, a limit or both.

    >>> _limit(Budget(None, 5.0)), _limit(Budget(20_000_000, 5.0)), _limit(Budget())
    ('budget 5 ms', 'budget 20.0 MB and 5 ms', 'no budget')
    """
    return f"budget {budget}" if budget != Budget() else "no budget"


def _answers(names: Sequence[str], metric: Metric) -> str:
    """The task in words: the number of classes, or what else is measured.

    >>> _answers(("bad", "good"), ACCURACY), _answers((), Metric("perplexity", "", higher_is_better=False))
    ('; 2 classes', '; perplexity (lower is better)')
    """
    classes = f"; {len(names)} classes" if names else ""
    return classes + ("" if metric == ACCURACY else f"; {metric.label}")


def _head(metric: Metric) -> str:
    """A metric's name over a column; a long one is cut."""
    return metric.word if len(metric.word) <= 20 else metric.word.split()[0][:20]


class _Table:
    """The columns of baselines and points to ship; the first is as wide as the longest name of a baseline."""

    def __init__(self, budget: Budget, metric: Metric, names: Sequence[str]) -> None:
        self.budget, self.metric = budget, metric
        self.label, self.score = max([20, *map(len, names)]) + 2, max(8, len(_head(metric)))

    def head(self) -> str:
        title, name = f"{'Baselines':{self.label + 2}}", _head(self.metric)
        return f"{title}{'size':>9}  {'latency':>9}  {name:>{self.score}}  {'test':>6}"

    def trial_row(self, trial: Trial, label: str) -> str:
        m = trial.measurement
        if m is None:
            return f"  {label:{self.label}}failed: {trial.failure}"
        return self.row(label, m.size_bytes, m.latency_ms, m.accuracy, trial.test_accuracy)

    def row(self, label: str, size: int, ms: float | None, score: float, on_test: float | None) -> str:
        """A name and its figures; ms: None where latency was not measured."""
        test = "" if on_test is None else self.metric.text(on_test)
        over = "" if self.budget.allows(size, ms or 0.0) else "  over budget"
        megabytes_, time = f"{size / 1e6:.2f} MB", "" if ms is None else f"{ms:.2f} ms"
        figures = f"{megabytes_:>9}  {time:>9}  {self.metric.text(score):>{self.score}}  {test:>6}"
        return f"  {label:{self.label}}{figures}{over}"
