"""A plan, a run under way, and a result, as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoprune.budget import Budget, megabytes
from autoprune.front import Trial
from autoprune.run import Config, Standing

if TYPE_CHECKING:
    from autoprune.inputs import Inputs
    from autoprune.ledger import Summary

RUNGS = ("untrained", "brief", "longer")
"""How long a trial was fine-tuned, in a word."""


def plan_lines(config: Config, inputs: Inputs, smallest_bytes: int) -> list[str]:
    """What will be done, before it is."""
    model = config.model or "all-MiniLM-L6-v2 (built-in demo)"
    task = inputs.task
    return [
        f"Model     {model}  {megabytes(inputs.original_bytes)} as {config.target}",
        f"Data      {inputs.dataset}  train {len(task.train)}, validation {len(task.validation)}, "
        f"test {len(task.test)}; {len(task.label_names)} classes",
        f"Space     {inputs.space_name}  {len(inputs.units)} units; smallest "
        f"{smallest_bytes / 1e6:.2f} MB; budget {config.limits()}",
        f"Plan      4 baselines, {config.trials} trials, {config.workers or 'no'} Ray workers, "
        f"sampler {config.sampler}, seed {config.seed}; Ctrl-C is safe",
    ]


def summary_lines(summary: Summary) -> list[str]:
    """The baselines, the points to ship, and what to do next."""
    now, budget = summary.now, summary.budget
    lines = [f"{'Baselines':24}{'size':>9}  {'latency':>9}  {'accuracy':>8}  {'test':>6}"]
    lines += [_row(one, one.name or "", budget) for one in now.trials if one.is_baseline]
    lines.append(f"Best within {budget}")
    shown = [(now.best, "best"), (now.knee, "knee")]
    lines += [_row(one, f"#{one.number} {tag}", budget) for one, tag in shown if one is not None]
    tried = [one for one in now.trials if not one.is_baseline]
    done = sum(one.rung == 0 for one in tried)
    at = now.reference
    lines.append(
        f"Front     {len(now.front)} points of {done} candidates, {len(tried) - done} of them trained, and "
        f"{len(now.trials) - len(tried)} baselines; "
        f"hypervolume {now.hypervolume:.3f} (reference {at.size_bytes / 1e6:.1f} MB, "
        f"{at.latency_ms:.1f} ms, {at.accuracy:.1f} %)"
    )
    lines.append(f"Report    {summary.run / 'report.html'}")
    if now.best is not None:
        lines.append(f"Export    autoprune export {summary.run} --trial best -o model-{now.best.number}")
    return lines


def standing_note(now: Standing, failed: int, seconds_left: float) -> str:
    """How the search stands, in a few words."""
    note = f"front {len(now.front)}  hypervolume {now.hypervolume:.3f}"
    if now.best is not None and now.best.measurement is not None:
        m = now.best.measurement
        note += f"  best {m.accuracy:.1f} @ {megabytes(m.size_bytes)}"
    return note + (f"  {failed} failed" if failed else "") + f"  {duration(seconds_left)} left"


def duration(seconds: float) -> str:
    """A time for people, no more exact than it is known.

    >>> duration(45), duration(400), duration(5400)
    ('45 s', '7 min', '1 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def trial_line(one: Trial) -> str:
    """What one trial came to."""
    m = one.measurement
    if m is None:
        return f"#{one.number} failed: {one.failure}"
    return (
        f"#{one.number:<4d}{m.size_bytes / 1e6:6.2f} MB {m.latency_ms:7.2f} ms  {m.accuracy:5.2f} %  "
        f"{RUNGS[one.rung]:9} {one.seconds:5.1f} s"
    )


def _row(one: Trial, label: str, budget: Budget) -> str:
    m = one.measurement
    if m is None:
        return f"  {label:22}failed: {one.failure}"
    test = f"{one.test_accuracy:.1f}" if one.test_accuracy is not None else ""
    over = "" if budget.allows(m.size_bytes, m.latency_ms) else "  over budget"
    size = f"{m.size_bytes / 1e6:.2f} MB"
    return f"  {label:22}{size:>9}  {m.latency_ms:6.2f} ms  {m.accuracy:8.1f}  {test:>6}{over}"
