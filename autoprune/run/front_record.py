"""What `front.json` says: plain data from the trials, for the report and for other programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any, TypeVar

from scipy.stats import spearmanr

from autoprune.run.run_record import RunRecord
from autoprune.run.standing import Standing
from autoprune.search.hypervolume import ByteRange
from autoprune.search.pareto import within
from autoprune.search.promotion import RUNG_STEPS, agreement, kl_hypervolume
from autoprune.space.budget import Budget
from autoprune.space.costs import Costs
from autoprune.space.levels import Candidate
from autoprune.space.trial import FEWEST_PAIRS, Trial, finished

T = TypeVar("T")

NOTED = ("stopped_by", "driver_share", "overhead_share", "latency_table_error")
"""What `run.json` says of how the search went, where it says it."""


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
    members, points = {trial.number for trial in now.front}, now.points.numbers()
    fit = {trial.number for trial in within(now.trials, budget)}
    untouched = {name: next(iter(table.values())) for name, table in costs.levels.items()}
    steps = about.facts.recipe.steps
    first = {(trial.candidate, trial.rung): trial.number for trial in reversed(now.trials)}
    return {
        "version": 1,
        "run": about.facts.as_json()
        | {"state": state, "started": about.started, "command": about.command, "seconds": about.seconds}
        | {name: getattr(about, name) for name in NOTED if name in about.model_fields_set},
        "units": [
            {"name": name, "kind": about.kinds.get(name, ""), "size_bytes": cost.size_bytes}
            for name, cost in untouched.items()
        ],
        "trials": [
            _trial_record(trial, costs, members, fit) | {"promoted_from": _lower(trial, first)}
            for trial in now.trials
        ],
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
        "agreement": [_agreement_record(now.trials, lower, upper) for lower, upper in ((0, 1), (1, 2))],
        "sensitivity": {
            "levels": [
                [unit, level.ratio, level.storage.written, cost.size_bytes, cost.damage, cost.latency_ms]
                for unit, table in costs.levels.items()
                for level, cost in table.items()
            ],
            **_prediction(now.trials, costs),
        },
        "latency": _latency_record(now.trials, costs),
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


def _lower(trial: Trial, first: Mapping[tuple[Candidate, int], int]) -> int | None:
    """Number of the same candidate's trial at the nearest lower rung."""
    return None if trial.is_baseline else _nearest_below(first, trial)


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


def _agreement_record(trials: Sequence[Trial], lower: int, upper: int) -> dict[str, Any]:
    agreed = agreement(trials, lower, upper)
    return asdict(agreed) | {"low": agreed.low}


def _prediction(trials: Sequence[Trial], costs: Costs) -> dict[str, Any]:
    """How well the divergence of untrained trials was predicted: the rank correlation (Spearman)."""
    pairs = [
        (costs.damage(trial.candidate), m.kl)
        for trial, m in finished(trials)
        if trial.rung == 0 and not trial.is_baseline and math.isfinite(m.kl)
    ]
    if len(pairs) < FEWEST_PAIRS:
        return {"spearman": None, "pairs": len(pairs)}
    rho = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return {"spearman": rho if math.isfinite(rho) else None, "pairs": len(pairs)}


def _latency_record(trials: Sequence[Trial], costs: Costs) -> dict[str, float | int] | None:
    """How far predicted milliseconds were from measured ones, as shares of the measured.

    The mean of the errors without signs, and with them: a bias above 0 is a prediction too high.
    """
    errors = [
        predicted / m.latency_ms - 1.0
        for trial, m in finished(trials)
        if not trial.is_baseline
        and 0 < m.latency_ms < math.inf
        and (predicted := _predicted_ms(trial, costs)) is not None
    ]
    if len(errors) < FEWEST_PAIRS:
        return None
    error, bias = fmean(map(abs, errors)), fmean(errors)
    return {"predicted error": error, "pairs": len(errors), "bias": bias}


def _predicted_ms(trial: Trial, costs: Costs) -> float | None:
    """Predicted latency of a trial; None where no latency table was measured."""
    return costs.latency_ms(trial.candidate) or None


def _trial_record(trial: Trial, costs: Costs, members: set[int], fit: set[int]) -> dict[str, Any]:
    m, predicted_ms = trial.measurement, _predicted_ms(trial, costs)
    timed = () if predicted_ms is None else trial.candidate.items
    names: tuple[str, ...] = (
        "size_bytes",
        "latency_ms",
        "latency_low_ms",
        "latency_high_ms",
        "accuracy",
        "kl",
    )
    names += ("raw_latency_ms", "raw_original_ms")
    return {
        "number": trial.number,
        "name": trial.name,
        "state": "COMPLETE" if m is not None else "FAIL",
        "failure": trial.failure,
        "levels": {u: {"ratio": lv.ratio, "bits": lv.storage.written} for u, lv in trial.candidate.items},
        "unit_bytes": {u: costs.levels[u][lv].size_bytes for u, lv in trial.candidate.items},
        "unit_ms": {u: costs.levels[u][lv].latency_ms for u, lv in timed},
        **{name: None if m is None else _finite(getattr(m, name)) for name in names},
        "predicted_size_bytes": trial.predicted_size_bytes,
        "predicted_latency_ms": predicted_ms,
        "predicted_kl": costs.damage(trial.candidate),
        "rung": trial.rung,
        "test_accuracy": trial.test_accuracy,
        "seconds": trial.seconds,
        "parts": dict(trial.parts),
        "worker": trial.worker,
        "on_front": trial.number in members,
        "within_budget": trial.number in fit,
    }


def _finite(x: float) -> float | None:
    return None if isinstance(x, float) and not math.isfinite(x) else x
