"""How the hypervolume grew over trials and over time, beside that of the baselines, and in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoprune.report.shown import spread_places
from autoprune.report.text import duration, milliseconds, named_score, plural, share
from autoprune.run.front_schema import Front, LineRow, TrialRow
from autoprune.space.budget import megabytes
from autoprune.strategy.growth import Growth

MOST_STEPS = 1000
"""Steps of the curve that a page holds; of more, evenly spread ones."""

LAST = 10
"""Trials whose gain is told in words."""

MOST_NAMED = 8
"""Members of the front among the last trials that are named."""


@dataclass(frozen=True)
class Step:
    """The hypervolume after so many trials, from one that raised it. seconds: of the run; None if unknown."""

    trials: int
    seconds: float | None
    volume: float


@dataclass(frozen=True)
class Progress:
    """The curve of the search's own trials, and what models that needed no search come to.

    rivals: names with the hypervolume of each kind of them, all of a kind together. seconds: when the last
    trial ended; None where a trial's time is not recorded.
    """

    steps: tuple[Step, ...]
    trials: int
    seconds: float | None
    rivals: tuple[tuple[str, float], ...]
    words: str
    reference: str

    def as_json(self) -> dict[str, object]:
        """As the page draws it."""
        return {
            "steps": [[step.trials, step.seconds, round(step.volume, 6)] for step in self.steps],
            "trials": self.trials,
            "seconds": self.seconds,
            "rivals": [[name, round(volume, 6)] for name, volume in self.rivals],
            "reference": self.reference,
        }


def progress(front: Front) -> Progress | None:
    """The curve; None where nothing was searched, or the front has no reference point."""
    reference = _reference(front)
    if reference is None or not any(trial.measured for trial in front.searched):
        return None
    growth, steps, gains = Growth(reference), list[Step](), list[float]()
    for count, trial in enumerate(front.searched, start=1):
        gains.append(_add(growth, trial))
        if gains[-1] > 0:
            steps.append(Step(count, trial.ended_s, growth.volume))
    volumes = {
        "uniform baselines": _volume(reference, front.baselines),
        "simple models": _volume(reference, front.lines),
    }
    rivals = [(name, volume) for name, volume in volumes.items() if volume > 0]
    ends = [trial.ended_s for trial in front.searched]
    return Progress(
        steps=tuple(_thinned(steps)),
        trials=len(front.searched),
        seconds=max((end for end in ends if end is not None), default=None) if None not in ends else None,
        rivals=tuple(rivals),
        words=" ".join(filter(None, (_passed(steps, rivals), _last(front, gains, growth.volume)))),
        reference=_reference_words(front),
    )


def _reference(front: Front) -> tuple[float, float, float] | None:
    point = front.hypervolume_reference
    if point.size_bytes is None or point.latency_ms is None or point.accuracy is None:
        return None
    return point.size_bytes, point.latency_ms, 100.0 - point.accuracy


def _reference_words(front: Front) -> str:
    point = front.hypervolume_reference
    return (
        f"{megabytes(point.size_bytes or 0)}, {milliseconds(point.latency_ms)} and "
        f"{named_score(front.run.metric, point.accuracy)}"
    )


def _add(growth: Growth, model: TrialRow | LineRow) -> float:
    """What a model adds; nothing of one that was not measured."""
    is_failed = isinstance(model, TrialRow) and not model.measured
    if is_failed or model.size_bytes is None or model.latency_ms is None or model.accuracy is None:
        return 0.0
    return growth.add((float(model.size_bytes), model.latency_ms, 100.0 - model.accuracy))


def _volume(reference: tuple[float, float, float], models: Iterable[TrialRow | LineRow]) -> float:
    growth = Growth(reference)
    for model in models:
        _add(growth, model)
    return growth.volume


def _thinned(steps: Sequence[Step]) -> Sequence[Step]:
    return [steps[k] for k in spread_places(len(steps), MOST_STEPS)]


def _passed(steps: Sequence[Step], rivals: Sequence[tuple[str, float]]) -> str:
    """After how many trials the search was ahead of what needs none."""
    end = steps[-1].volume if steps else 0.0
    said = []
    for name, volume in rivals:
        first = next((step for step in steps if step.volume > volume), None)
        if first is None:
            said.append(
                f"The trials of the search alone ({end:.4f}) are not above the {name} ({volume:.4f})."
            )
            continue
        after = "" if first.seconds is None else f", {duration(first.seconds)} into the run"
        said.append(
            f"The trials of the search alone were above the {name} ({volume:.4f}) after "
            f"{plural(first.trials, 'trial')}{after}."
        )
    return " ".join(said)


def _last(front: Front, gains: Sequence[float], volume: float) -> str:
    """What the last trials brought: growth, and members of the front."""
    count = min(LAST, len(gains) - 1)
    if count < 1:
        return ""
    last = front.searched[-count:]
    trials = "The last trial" if count == 1 else f"The last {'ten' if count == 10 else count} trials"
    members = [str(trial.number) for trial in last if trial.on_front]
    grown = sum(gains[-count:])
    if grown <= 0 and not members:
        return f"{trials} brought nothing."
    before = volume - grown
    growth = f"raised the hypervolume by {share(grown / before)}" if before > 0 else "brought all of it"
    if grown <= 0:
        growth = "raised the hypervolume by nothing"
    return f"{trials} {growth}{_members(members)}."


def _members(numbers: Sequence[str]) -> str:
    if not numbers:
        return " and are not on the front"
    more = f" and {len(numbers) - MOST_NAMED} more" if len(numbers) > MOST_NAMED else ""
    noun = "trial" if len(numbers) == 1 else "trials"
    count = "one is" if len(numbers) == 1 else f"{len(numbers)} are"
    return f"; {count} on the front: {noun} {', '.join(numbers[:MOST_NAMED])}{more}"
