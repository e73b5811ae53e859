"""What is measured once, before the trials: the library, what each variant harms, and milliseconds."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from autoprune.costs import Costs
from autoprune.evaluate import BuildUnit, Sense, TimeCandidate
from autoprune.files import cache_folder, content_key, read_json, write_json, written_whole
from autoprune.latency import Probe, probes, with_latency
from autoprune.pool import Pool, run_all
from autoprune.prepare import Prepared
from autoprune.progress import Progress
from autoprune.sensitivity import Sensitivity
from autoprune.space import Level
from autoprune.targets import get_target
from autoprune.units import Unit

SENSITIVITY_VERSION = 1
LATENCY_VERSION = 1
"""Raised when a cached result would come out differently."""


def build_library(prepared: Prepared, pool: Pool, progress: Progress) -> None:
    """Every unit's variants on disk, shared by the workers of a machine."""
    units = prepared.setting.units
    with progress.bar(f"Library: variants of {len(units)} units", len(units)) as bar:
        run_all(pool, [BuildUnit(unit) for unit in units], lambda *_: None, bar)


def measured_costs(prepared: Prepared, pool: Pool, progress: Progress, reference_ms: float) -> Costs:
    """Bytes, predicted damage and milliseconds of every unit at every level."""
    sensitivity = _sensitivity(prepared, pool, progress)
    costs = prepared.inputs.sizes.with_damage(sensitivity.damage())
    return _with_latency(costs, prepared, pool, progress, reference_ms)


def time_original(pool: Pool) -> float:
    """The original's milliseconds on the target, with nothing else running."""
    found: list[float] = []
    run_all(pool, [TimeCandidate(None)], lambda _, timing: found.append(timing.original_ms))
    return found[0]


# ---- sensitivity --------------------------------------------------------------------------------


def _sensitivity(prepared: Prepared, pool: Pool, progress: Progress) -> Sensitivity:
    """From the cache, or measured by all workers, each for some of the units."""
    setting = prepared.setting
    key = content_key(
        SENSITIVITY_VERSION, setting.key, setting.sensitivity_rows, len(setting.task.train),
        [asdict(unit) for unit in setting.units],
    )  # fmt: skip
    path = cache_folder() / "sensitivity" / f"{key}.safetensors"
    if path.is_file():
        return _read(load_file(path))
    parts: list[Sensitivity] = []
    jobs = [Sense(share) for share in _shares(setting.units, pool.size)]
    with progress.bar("Sensitivity of every variant", len(jobs)) as bar:
        run_all(pool, jobs, lambda _, result: parts.append(result), bar)
    whole = Sensitivity.merged(parts)
    arrays = {
        f"{unit}|{level.ratio!r}|{level.bits}": np.ascontiguousarray(score)
        for unit, table in whole.scores.items()
        for level, score in table.items()
    }
    with written_whole(path) as temporary:
        save_file(arrays, temporary)
    return whole


def _read(arrays: dict[str, Any]) -> Sensitivity:
    scores: dict[str, dict[Level, Any]] = {}
    for name, score in arrays.items():
        unit, ratio, bits = name.rsplit("|", 2)
        scores.setdefault(unit, {})[Level(float(ratio), int(bits))] = score
    return Sensitivity(scores)


def _shares(units: Sequence[Unit], count: int) -> list[tuple[Unit, ...]]:
    """Units dealt out so that all shares have about the same work."""
    work = sorted(units, key=lambda unit: -unit.size_bytes(Level()) * len(unit.ratios) * len(unit.bits))
    return [tuple(work[k::count]) for k in range(count) if work[k::count]]


# ---- milliseconds -------------------------------------------------------------------------------


def _with_latency(
    costs: Costs, prepared: Prepared, pool: Pool, progress: Progress, reference_ms: float
) -> Costs:
    """Costs with the latency table, from the cache of this machine, or measured."""
    setting, space = prepared.setting, prepared.inputs.space
    fast = get_target(setting.target).fast_bits
    wanted = probes(setting.units, space, fast)
    key = content_key(
        LATENCY_VERSION, _machine(), setting.target, setting.config, setting.batch, setting.sequence,
        [asdict(unit) for unit in setting.units], sorted(fast),
    )  # fmt: skip
    path = cache_folder() / "latency" / f"{key}.json"
    if path.is_file():
        ratios = [float(one) for one in read_json(path)["of the original's milliseconds"]]
    else:
        ratios = [0.0] * len(wanted)
        jobs = [TimeCandidate(one.candidate(space)) for one in wanted]

        def done(k: int, timing: Any) -> None:
            ratios[k] = timing.median_ms / timing.original_ms

        with progress.bar(f"Latency table: {len(jobs)} models on {setting.target}", len(jobs)) as bar:
            run_all(pool, jobs, done, bar)
        about = {"machine": _machine(), "probes": [_said(one) for one in wanted]}
        write_json(path, about | {"of the original's milliseconds": ratios})
    taken = {probe: ratio * reference_ms for probe, ratio in zip(wanted, ratios, strict=True)}
    return with_latency(costs, space, taken, reference_ms, fast)


def _said(one: Probe) -> str:
    return f"{one.level} of {', '.join(one.units)}"


def _machine() -> list[str]:
    """What a table of milliseconds belongs to."""
    return [platform.node(), platform.machine(), platform.processor()]
