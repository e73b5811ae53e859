"""A plan, a run under way, and a result, as lines for people."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoprune.budget import Budget, megabytes
from autoprune.front import Trial
from autoprune.metric import ACCURACY, Metric
from autoprune.run import Config, Standing
from autoprune.space import INTEGER

if TYPE_CHECKING:
    from autoprune.inputs import Inputs
    from autoprune.ledger import Summary

RUNGS = ("untrained", "brief", "longer")
"""How long a trial was fine-tuned, in a word."""


def plan_lines(
    config: Config, inputs: Inputs, smallest_bytes: int, *, metric: Metric = ACCURACY
) -> list[str]:
    """What will be done, before it is."""
    model = config.model or "all-MiniLM-L6-v2 (built-in demo)"
    task = inputs.task
    return [
        f"Model     {model}  {megabytes(inputs.original_bytes)} as {config.target}",
        f"Data      {inputs.dataset}  train {len(task.train)}, validation {len(task.validation)}, "
        f"test {len(task.test)}{_answers(task.label_names, metric)}",
        f"Space     {inputs.space_name}  {len(inputs.units)} units; smallest "
        f"{smallest_bytes / 1e6:.2f} MB; {_limit(config.limits())}",
        f"Plan      baselines and {config.trials} trials, {config.workers or 'no'} Ray workers, "
        f"sampler {config.sampler}, seed {config.seed}; Ctrl-C is safe",
    ]


def summary_lines(summary: Summary, *, metric: Metric = ACCURACY) -> list[str]:
    """The baselines, the points to ship, and what to do next."""
    now, budget = summary.now, summary.budget
    head = _head(metric)
    lines = [f"{'Baselines':24}{'size':>9}  {'latency':>9}  {head:>8}  {'test':>6}"]
    lines += [_row(one, one.name or "", budget, metric) for one in now.trials if one.is_baseline]
    lines.append(f"Best within {budget}" if budget != Budget() else "Best, no limit set")
    shown = [(now.best, "best"), (now.knee, "knee")]
    lines += [_row(one, f"#{one.number} {tag}", budget, metric) for one, tag in shown if one is not None]
    plain = [one for one in now.trials if one.is_baseline]
    if now.best is not None and (same := [one for one in plain if one.candidate == now.best.candidate]):
        longer = "" if now.best.is_baseline else ", trained longer"
        beats = "which no trial dominates; more --trials may find better"
        lines.append(f"  #{now.best.number} is {same[0].name}{longer}, {beats}")
    tried = [one for one in now.trials if not one.is_baseline]
    done = sum(one.rung == 0 for one in tried)
    at = now.reference
    lines.append(
        f"Front     {len(now.front)} points of {done} candidates, {len(tried) - done} of them trained, and "
        f"{len(now.trials) - len(tried)} baselines; "
        f"hypervolume {now.hypervolume:.3f} (reference {at.size_bytes / 1e6:.1f} MB, "
        f"{at.latency_ms:.1f} ms, {metric.told(at.accuracy)})"
    )
    lines.append(f"Report    {summary.run / 'report.html'}")
    if now.best is not None:
        lines.append(f"Export    autoprune export {summary.run} --trial best -o model-{now.best.number}")
    return lines


def standing_note(now: Standing, failed: int, seconds_left: float, *, metric: Metric = ACCURACY) -> str:
    """How the search stands, in a few words."""
    note = f"front {len(now.front)}  hypervolume {now.hypervolume:.3f}"
    if now.best is not None and now.best.measurement is not None:
        m = now.best.measurement
        name = "" if metric == ACCURACY else f"{metric.word} "
        note += f"  best {name}{metric.text(m.accuracy)} @ {megabytes(m.size_bytes)}"
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


def speed_lines(record: Mapping[str, Any]) -> list[str]:
    """Which widths of a space a target computes fast with, and which save bytes alone there.

    record: `target`, `fast` and `bytes_alone`, as `inspect --json` has them.
    """
    fast, alone = (", ".join(map(str, record[name])) for name in ("fast", "bytes_alone"))
    told = f"{fast}: computed" if fast else "no width is computed"
    lines = [f"Fast      {told} faster than floats on {record['target']}"]
    if alone:
        lines.append(f"Slow      {alone}: bytes are saved, but no time")
    if INTEGER in [*record["fast"], *record["bytes_alone"]]:
        lines.append(f"          Numbers are bits of a weight; {INTEGER} is 8-bit weights and activations")
    return lines


def latency_line(found: Mapping[str, Any]) -> str:
    """How good the predicted milliseconds are.

    found: `latency` of `front.json`.

    >>> latency_line({"predicted error": 0.031, "pairs": 24, "bias": -0.012})
    'Latency   predicted 3.1 % off on average over 24 trials, 1.2 % too low in the mean'
    """
    side = "high" if found["bias"] > 0 else "low"
    return (
        f"Latency   predicted {100 * found['predicted error']:.1f} % off on average over {found['pairs']} "
        f"trials, {100 * abs(found['bias']):.1f} % too {side} in the mean"
    )


def size_text(size_bytes: int) -> str:
    """Bytes for people; a unit may weigh kilobytes and a library gigabytes.

    >>> size_text(20_000_000_000), size_text(4_391_234), size_text(1_536)
    ('20.00 GB', '4.39 MB', '1.5 kB')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.2f} {name}"
    return f"{size_bytes / 1e3:.1f} kB"


def times(name: str, count: int) -> str:
    """What is there more than once, with how often.

    >>> times("pooler", 1), times("encoder.layer.*", 6)
    ('pooler', 'encoder.layer.* x6')
    """
    return name if count == 1 else f"{name} x{count}"


def time_text(seconds: float) -> str:
    """A moment in local time, from seconds since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def trial_line(one: Trial, *, metric: Metric = ACCURACY) -> str:
    """What one trial came to."""
    m = one.measurement
    if m is None:
        return f"#{one.number} failed: {one.failure}"
    return (
        f"#{one.number:<4d}{m.size_bytes / 1e6:6.2f} MB {m.latency_ms:7.2f} ms  "
        f"{metric.told(m.accuracy, 2):>7}  "
        f"{RUNGS[one.rung]:9} {one.seconds:5.1f} s"
    )


def _limit(budget: Budget) -> str:
    """The budget, a limit or both.

    >>> _limit(Budget(None, 5.0)), _limit(Budget(20_000_000, 5.0)), _limit(Budget())
    ('budget 5 ms', 'budget 20.0 MB and 5 ms', 'no budget')
    """
    return f"budget {budget}" if budget != Budget() else "no budget"


def _answers(names: Sequence[str], metric: Metric) -> str:
    """What is asked of a row: which of some classes, or what else is measured.

    >>> _answers(("bad", "good"), ACCURACY), _answers((), Metric("perplexity", "", higher_is_better=False))
    ('; 2 classes', '; perplexity (lower is better)')
    """
    classes = f"; {len(names)} classes" if names else ""
    return classes + ("" if metric == ACCURACY else f"; {metric.label}")


def _head(metric: Metric) -> str:
    """A metric's name over a column; a long one is cut."""
    return metric.word if len(metric.word) <= 20 else metric.word.split()[0][:20]


def _row(one: Trial, label: str, budget: Budget, metric: Metric) -> str:
    m = one.measurement
    if m is None:
        return f"  {label:22}failed: {one.failure}"
    test = metric.text(one.test_accuracy) if one.test_accuracy is not None else ""
    over = "" if budget.allows(m.size_bytes, m.latency_ms) else "  over budget"
    size, wide = f"{m.size_bytes / 1e6:.2f} MB", max(8, len(_head(metric)))
    return (
        f"  {label:22}{size:>9}  {m.latency_ms:6.2f} ms  {metric.text(m.accuracy):>{wide}}  {test:>6}{over}"
    )
