"""A plan and a result, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoprune.run.config import Config
from autoprune.space.budget import Budget, megabytes
from autoprune.space.trial import Trial
from autoprune.tasks.metrics import ACCURACY, Metric

if TYPE_CHECKING:
    from autoprune.pipeline.inputs import Inputs
    from autoprune.run.standing import Summary


def plan_lines(
    config: Config, inputs: Inputs, smallest_bytes: int, *, metric: Metric = ACCURACY
) -> list[str]:
    """What will be done, before it is."""
    model = config.model.name or "all-MiniLM-L6-v2 (built-in demo)"
    task = inputs.task
    return [
        f"Model     {model}  {megabytes(inputs.original_bytes)} as {config.search.target}",
        f"Data      {inputs.dataset}  train {len(task.train)}, validation {len(task.validation)}, "
        f"test {len(task.test)}{_answers(task.label_names, metric)}",
        f"Space     {inputs.space_name}  {len(inputs.units)} units; smallest "
        f"{smallest_bytes / 1e6:.2f} MB; {_limit(config.limits())}",
        f"Plan      baselines and {config.search.trials} trials, {config.workers.count or 'no'} Ray workers, "
        f"sampler {config.search.sampler}, seed {config.search.seed}; Ctrl-C is safe",
    ]


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
    lines.append(f"Best within {budget}" if budget != Budget() else "Best, no limit set")
    shown = [(now.best, "best"), (now.knee, "knee")]
    lines += [table.trial_row(trial, f"#{trial.number} {tag}") for trial, tag in shown if trial is not None]
    if now.best is not None and (same := [trial for trial in plain if trial.candidate == now.best.candidate]):
        longer = "" if now.best.name == same[0].name else ", trained longer"
        beats = "which no trial dominates; more --trials may find better"
        lines.append(f"  #{now.best.number} is {same[0].name}{longer}, {beats}")
    tried = [trial for trial in now.trials if not trial.is_baseline]
    done = sum(trial.rung == 0 for trial in tried)
    reference = now.reference
    lines.append(
        f"Front     {len(now.front)} points of {done} candidates, {len(tried) - done} of them trained, and "
        f"{len(now.trials) - len(tried)} baselines; "
        f"hypervolume {now.hypervolume:.3f} (reference {reference.size_bytes / 1e6:.1f} MB, "
        f"{reference.latency_ms:.1f} ms, {metric.told(reference.accuracy)})"
    )
    lines.append(f"Report    {summary.run / 'report.html'}")
    if now.best is not None:
        lines.append(f"Export    autoprune export {summary.run} --trial best -o model-{now.best.number}")
    return lines


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
