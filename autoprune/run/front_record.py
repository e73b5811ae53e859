"""What `front.json` says: plain data from the trials, for the report and for other programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any, TypeVar

from scipy.stats import spearmanr

from autoprune.run.run_record import RunRecord
from autoprune.run.short_rows import NUMBERS
from autoprune.run.standing import Standing
from autoprune.space.budget import Budget
from autoprune.space.costs import Costs
from autoprune.space.levels import Candidate
from autoprune.space.trial import FEWEST_PAIRS, Trial, finished
from autoprune.strategy.hypervolume import ByteRange
from autoprune.strategy.promotion import RUNG_STEPS
from autoprune.strategy.rung_agreement import agreement, kl_hypervolume

T = TypeVar("T")

NOTED = ("stopped_by", "driver_share", "overhead_share", "latency_table_error")
"""What `run.json` says of how the search went, where it says it."""

MEASURED = (
    *("size_bytes", "latency_ms", "latency_low_ms", "latency_high_ms", "accuracy", "kl"),
    *("raw_latency_ms", "raw_original_ms"),
)
"""Fields of a measurement that a trial's row has."""


def front_record(
    about: RunRecord,
    costs: Costs,
    now: Standing,
    budget: Budget,
    *,
    byte_range: ByteRange,
    state: str,
) -> dict[str, Any]:
    """The content of `front.json`: the run, its units, every trial, and the front.

    byte_range: sizes between which the hypervolume in (bytes, log KL) is taken.
    """
    rows = TrialRows(costs, budget)
    record = front_fields(about, rows, now, byte_range=byte_range, state=state)
    return record | {"trials": [rows.whole(trial, now) for trial in now.trials]}


class TrialRows:
    """What `front.json` says of each trial; what is predicted of one is worked out once."""

    def __init__(self, costs: Costs, budget: Budget) -> None:
        self.costs, self.budget = costs, budget
        self._predicted: dict[Candidate, tuple[float, float | None]] = {}
        self._members: tuple[Standing | None, set[int]] = (None, set())
        self._numbers = {
            unit: {level: k for k, level in enumerate(table)} for unit, table in costs.levels.items()
        }
        self._first: dict[tuple[Candidate, int], int] = {}
        self._counted: Sequence[Trial] = ()

    def kl(self, trial: Trial) -> float:
        """Predicted divergence, nats a row."""
        return self._of(trial)[0]

    def ms(self, trial: Trial) -> float | None:
        """Predicted latency; None where no latency table was measured."""
        return self._of(trial)[1]

    def whole(self, trial: Trial, now: Standing) -> dict[str, Any]:
        """All of a trial."""
        timed = () if self.ms(trial) is None else trial.candidate.items
        levels = {u: {"ratio": lv.ratio, "bits": lv.storage.written} for u, lv in trial.candidate.items}
        units = {
            "levels": levels,
            "unit_bytes": {u: self.costs.levels[u][lv].size_bytes for u, lv in trial.candidate.items},
            "unit_ms": {u: self.costs.levels[u][lv].latency_ms for u, lv in timed},
        }
        return self._row(trial, now, units)

    def short(self, trial: Trial, now: Standing) -> dict[str, Any]:
        """A trial whose units' levels are numbers; `run/short_rows` makes it whole again."""
        numbers = [self._numbers[unit][level] for unit, level in trial.candidate.items]
        return self._row(trial, now, {NUMBERS: numbers})

    def _row(self, trial: Trial, now: Standing, units: Mapping[str, Any]) -> dict[str, Any]:
        m = trial.measurement
        if self._members[0] is not now:
            self._members = now, {member.number for member in now.front}
        return {
            "number": trial.number,
            "name": trial.name,
            "state": "COMPLETE" if m is not None else "FAIL",
            "failure": trial.failure,
            **units,
            **{name: None if m is None else _finite(getattr(m, name)) for name in MEASURED},
            "predicted_size_bytes": trial.predicted_size_bytes,
            "predicted_latency_ms": self.ms(trial),
            "predicted_kl": self.kl(trial),
            "rung": trial.rung,
            "test_accuracy": trial.test_accuracy,
            "seconds": trial.seconds,
            "ended_s": trial.ended_s,
            "parts": dict(trial.parts),
            "worker": trial.worker,
            "on_front": trial.number in self._members[1],
            "within_budget": m is not None and self.budget.allows(m.size_bytes, m.latency_ms),
            "promoted_from": self._lower(trial, now.trials),
        }

    def _of(self, trial: Trial) -> tuple[float, float | None]:
        known = self._predicted.get(trial.candidate)
        if known is None:
            costs, candidate = self.costs, trial.candidate
            known = costs.damage(candidate), costs.latency_ms(candidate) or None
            self._predicted[candidate] = known
        return known

    def _lower(self, trial: Trial, trials: Sequence[Trial]) -> int | None:
        """Number of the same candidate's trial at the nearest lower rung."""
        if trial.is_baseline or trial.rung == 0:
            return None
        for k in range(len(self._counted), len(trials)):
            self._first.setdefault((trials[k].candidate, trials[k].rung), trials[k].number)
        self._counted = trials
        return _nearest_below(self._first, trial)


def front_fields(
    about: RunRecord, rows: TrialRows, now: Standing, *, byte_range: ByteRange, state: str
) -> dict[str, Any]:
    """The content of `front.json` without its trials."""
    points, costs = now.points.numbers(), rows.costs
    untouched = {name: next(iter(table.values())) for name, table in costs.levels.items()}
    steps = about.facts.recipe.steps
    return {
        "version": 1,
        "run": about.facts.as_json()
        | {"state": state, "started": about.started, "command": about.command, "seconds": about.seconds}
        | {name: getattr(about, name) for name in NOTED if name in about.model_fields_set},
        "units": [
            {"name": name, "kind": about.kinds.get(name, ""), "size_bytes": cost.size_bytes}
            for name, cost in untouched.items()
        ],
        "trials": [],
        "front": [trial.number for trial in now.front],
        "best": points["best"],
        "knee": points["knee"],
        "points": points,
        "as_accurate": [trial.number for trial in now.points.as_accurate],
        "hypervolume": now.hypervolume,
        "hypervolume_reference": dict(
            zip(("size_bytes", "latency_ms", "accuracy"), now.reference.objectives(), strict=True)
        ),
        "kl_hypervolume": kl_hypervolume(now.trials, byte_range),
        "rungs": [_rung_record(now.trials, rung, steps) for rung in range(3)],
        "agreement": _agreements(about, now.trials),
        "sensitivity": {
            "levels": [
                [unit, level.ratio, level.storage.written, cost.size_bytes, cost.damage, cost.latency_ms]
                for unit, table in costs.levels.items()
                for level, cost in table.items()
            ],
            **_prediction(now.trials, rows),
        },
        "latency": _latency_record(now.trials, rows),
    }


def sensitivity_file(record: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `sensitivity.json`: what each unit harms at each level, and how well that held."""
    sensitivity = record["sensitivity"]
    units: dict[str, list[list[float | int | str]]] = {}
    for unit, ratio, bits, _, damage, _ in sensitivity["levels"]:
        units.setdefault(unit, []).append([ratio, bits, damage])
    return {
        "what": "predicted KL(teacher || model) of each unit compressed alone, nats a row",
        "units [ratio, bits, damage]": units,
        "rank correlation with measured KL (Spearman)": sensitivity["spearman"],
        "untrained trials it is taken over": sensitivity["pairs"],
    }


def _nearest_below(known: Mapping[tuple[Candidate, int], T], trial: Trial) -> T | None:
    """What is known of a trial's candidate at the nearest lower rung."""
    lower = (known.get((trial.candidate, rung)) for rung in range(trial.rung - 1, -1, -1))
    return next((value for value in lower if value is not None), None)


def _rung_record(trials: Sequence[Trial], rung: int, steps: int) -> dict[str, Any]:
    at_rung = [trial for trial in trials if trial.rung == rung and not trial.is_baseline]
    seconds = [trial.seconds for trial in at_rung]
    return {
        "rung": rung,
        "steps": steps * RUNG_STEPS[rung],
        "trials": len(at_rung),
        "mean_seconds": round(sum(seconds) / len(seconds), 2) if seconds else None,
        **_kept(trials, at_rung),
    }


def _kept(trials: Sequence[Trial], trained: Sequence[Trial]) -> dict[str, float | int | None]:
    """How many fine-tunes changed anything, and the mean share of the divergence that these left.

    By the nearest lower rung of each candidate; None where there is none to compare with.
    """
    kl = {(trial.candidate, trial.rung): m.kl for trial, m in reversed(finished(trials))}
    pairs = [
        (before, m.kl)
        for trial, m in finished(trained)
        for before in [_nearest_below(kl, trial)]
        if before is not None and math.isfinite(before) and math.isfinite(m.kl)
    ]
    left = [after / before for before, after in pairs if after != before and before > 0]
    return {
        "kept": sum(after != before for before, after in pairs) if pairs else None,
        "left": fmean(left) if left else None,
    }


def _agreements(about: RunRecord, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """How the ranks of rungs agree; none under another teacher, which training does not rank by the same."""
    if about.facts.teacher:
        return []
    agreed = (agreement(trials, lower, upper) for lower, upper in ((0, 1), (1, 2)))
    return [asdict(one) | {"low": one.low} for one in agreed]


def _prediction(trials: Sequence[Trial], rows: TrialRows) -> dict[str, Any]:
    """How well the divergence of untrained trials was predicted: the rank correlation (Spearman)."""
    pairs = [
        (rows.kl(trial), m.kl)
        for trial, m in finished(trials)
        if trial.rung == 0 and not trial.is_baseline and math.isfinite(m.kl)
    ]
    if len(pairs) < FEWEST_PAIRS:
        return {"spearman": None, "pairs": len(pairs)}
    rho = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return {"spearman": rho if math.isfinite(rho) else None, "pairs": len(pairs)}


def _latency_record(trials: Sequence[Trial], rows: TrialRows) -> dict[str, float | int] | None:
    """How far predicted milliseconds were from measured ones, as shares of the measured.

    The mean of the errors without signs, and with them: a bias above 0 is a prediction too high.
    """
    errors = [
        predicted / m.latency_ms - 1.0
        for trial, m in finished(trials)
        if not trial.is_baseline and 0 < m.latency_ms < math.inf and (predicted := rows.ms(trial)) is not None
    ]
    if len(errors) < FEWEST_PAIRS:
        return None
    error, bias = fmean(map(abs, errors)), fmean(errors)
    return {"predicted error": error, "pairs": len(errors), "bias": bias}


def _finite(x: float) -> float | None:
    return None if isinstance(x, float) and not math.isfinite(x) else x
