"""What is measured once, before the trials: the library, what each variant harms, and milliseconds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from autoprune.compress.library import LOOK_UPS
from autoprune.compress.library_folder import VERSION as LIBRARY_VERSION
from autoprune.core.cache import DiskCache
from autoprune.core.files import read_json, write_json
from autoprune.core.progress import Progress
from autoprune.evaluation.coding import CodeUnit
from autoprune.evaluation.jobs import BuildUnit, Original, Sense, TimeModel, Whereabouts
from autoprune.evaluation.measure import Timing
from autoprune.models.blocks import shares
from autoprune.models.row_lookup import row_factors
from autoprune.models.unit import Unit
from autoprune.pipeline.prepare import Prepared
from autoprune.run.folder import UNITS, RunFolder
from autoprune.sensitivity.fisher_scores import Sensitivity
from autoprune.space.costs import Costs
from autoprune.space.levels import Level
from autoprune.space.space_file import NEAREST, SECOND_ORDER
from autoprune.targets import get_target, is_fast, versions_of
from autoprune.targets.coded_sizes import CODED_VERSION, coded_costs, coding, saved_outside
from autoprune.targets.latency_table import Design, LatencyTable
from autoprune.targets.target import PLAIN
from autoprune.tasks.task import layout
from autoprune.workers.pool import Pool, run_all, run_one

_SENSITIVITIES = DiskCache("sensitivity", 6, ".safetensors")
_CODED = DiskCache("coded", CODED_VERSION, ".json")
_LATENCIES = DiskCache("latency", 6, ".json")

_RATIOS = "of the original's milliseconds"
"""What a file of latencies names its numbers, one for each probe."""


@dataclass(frozen=True)
class Costed:
    """What is measured once, before the trials.

    reference_ms: the original's latency on the target. costs: bytes, predicted damage and milliseconds of
    every unit at every level.
    """

    reference_ms: float
    costs: Costs


def measure_costs(run: RunFolder, prepared: Prepared, pool: Pool, progress: Progress) -> Costed:
    """Build the library, time the original and measure the costs; noted in the run folder.

    What another run has measured is in the caches. The original is timed once a run.
    """
    build_library(prepared, pool, progress)
    known = run.about().original_ms
    if known is None:
        known = time_original(pool)
        run.note(original_ms=known)
    reference_ms = float(known)
    hosts = [] if run.config().workers.latency_node else timing_hosts(pool)
    if hosts:
        progress.line(
            f"Milliseconds are timed on {len(hosts)} machines ({', '.join(hosts[:4])}): where they are "
            "unlike, give --latency-node, so that one of them does it alone"
        )
    costs, table = measured_costs(prepared, pool, progress, reference_ms, hosts)
    run.note(latency_table_error=table.error)
    write_json(run.path / UNITS, costs.as_json())
    return Costed(reference_ms, costs)


def timing_hosts(pool: Pool) -> list[str]:
    """The machines of a pool's workers where there are several, which all time what they train."""
    hosts = sorted({worker.host for worker in pool.census().workers if worker.host})
    return hosts if len(hosts) > 1 else []


def build_library(prepared: Prepared, pool: Pool, progress: Progress) -> None:
    """Every unit's variants on disk, shared by the workers of a machine."""
    units = prepared.setting.units
    with progress.bar(f"Library: variants of {len(units)} units", len(units)) as bar:
        run_all(pool, [BuildUnit(unit) for unit in units], lambda *_: None, bar)


def measured_costs(
    prepared: Prepared, pool: Pool, progress: Progress, reference_ms: float, hosts: Sequence[str] = ()
) -> tuple[Costs, LatencyTable]:
    """Bytes, predicted damage and milliseconds of every unit at every level, and the table of these last.

    hosts: the machines that time, where they are several.
    """
    sensitivity = _sensitivity(prepared, pool, progress)
    table = _latency_table(prepared, pool, progress, hosts)
    costs = _sizes(prepared, pool, progress).with_damage(sensitivity.damage())
    return table.applied(costs, reference_ms), table


def time_original(pool: Pool) -> float:
    """The original's milliseconds on the target, with nothing else running."""
    return run_one(pool, TimeModel(Original())).original_ms


# ---- bytes --------------------------------------------------------------------------------------


def _sizes(prepared: Prepared, pool: Pool, progress: Progress) -> Costs:
    """Bytes of every unit at every level; in coded files from the cache, or from coding every variant."""
    inputs, setting = prepared.inputs, prepared.setting
    if setting.storage == PLAIN:
        return inputs.sizes
    jobs = [
        CodeUnit(unit, tuple(choices.levels()))
        for unit, choices in zip(setting.units, inputs.space.units, strict=True)
    ]

    def counted() -> dict[str, dict[Level, int]]:
        saved: dict[str, dict[Level, int]] = {}
        with progress.bar(f"Entropy-coded bytes of {len(jobs)} units", len(jobs)) as bar:
            run_all(pool, jobs, lambda k, levels: saved.update({jobs[k].unit.name: levels}), bar)
        return saved

    told = [[str(level) for level in job.levels] for job in jobs]
    parts = [*coding(), LIBRARY_VERSION, setting.key, _described(setting.units), told, LOOK_UPS]
    saved = _CODED.get(parts, make=counted, save=_save_bytes, load=_read_bytes)
    outside = saved_outside(prepared.model, setting.units)
    return coded_costs(inputs.sizes, inputs.space, saved, outside)


def _save_bytes(saved: dict[str, dict[Level, int]], path: Path) -> None:
    rows = {
        unit: [[level.ratio, level.storage.written, size] for level, size in table.items()]
        for unit, table in saved.items()
    }
    write_json(path, {"saved [ratio, bits, bytes]": rows})


def _read_bytes(path: Path) -> dict[str, dict[Level, int]]:
    rows = read_json(path)["saved [ratio, bits, bytes]"]
    return {
        unit: {Level.of(float(ratio), storage): int(size) for ratio, storage, size in table}
        for unit, table in rows.items()
    }


# ---- sensitivity --------------------------------------------------------------------------------


def _sensitivity(prepared: Prepared, pool: Pool, progress: Progress) -> Sensitivity:
    """From the cache, or measured by all workers, each for some of the units."""
    setting = prepared.setting

    def arrays() -> dict[str, NDArray[np.float32]]:
        parts: list[Sensitivity] = []
        jobs = [Sense(share) for share in shares(prepared.model, setting.units, pool.size)]
        with progress.bar("Sensitivity of every variant", len(jobs)) as bar:
            run_all(pool, jobs, lambda _, result: parts.append(result), bar)
        return {
            f"{unit}|{level.ratio!r}|{level.storage.name}": np.ascontiguousarray(score)
            for unit, table in Sensitivity.merged(parts).scores.items()
            for level, score in table.items()
        }

    paths = [weight.path for unit in setting.units for weight in unit.weights]
    factors = row_factors(prepared.model, paths)
    parts = [
        LIBRARY_VERSION, setting.key, setting.sensitivity_rows, len(setting.task.train),
        _described(setting.units), *[LOOK_UPS for unit in setting.units if unit.is_looked_up],
        *([["row factors", factors]] if factors else []),
    ]  # fmt: skip
    return _SENSITIVITIES.get(parts, make=arrays, save=save_file, load=lambda path: _read(load_file(path)))


def _described(units: Sequence[Unit]) -> list[dict[str, Any]]:
    return [unit.described() for unit in units]


def _read(arrays: dict[str, Any]) -> Sensitivity:
    scores: dict[str, dict[Level, Any]] = {}
    for name, score in arrays.items():
        unit, ratio, storage = name.rsplit("|", 2)
        scores.setdefault(unit, {})[Level.of(float(ratio), storage)] = score
    return Sensitivity(scores)


# ---- milliseconds -------------------------------------------------------------------------------


def _latency_table(
    prepared: Prepared, pool: Pool, progress: Progress, hosts: Sequence[str] = ()
) -> LatencyTable:
    """Milliseconds of every unit at every level, from the cache of the machine that times, or measured."""
    setting, space = prepared.setting, prepared.inputs.space
    target = get_target(setting.target)
    design = Design(setting.units, space, functools.partial(is_fast, target))
    probes = design.probes()
    machine = run_one(pool, Whereabouts())

    def ratios() -> list[float]:
        out = [0.0] * len(probes)
        jobs = [TimeModel(probe) for probe in probes]

        def done(k: int, timing: Timing) -> None:
            out[k] = timing.quick_ratio

        with progress.bar(f"Latency table: {len(jobs)} models on {setting.target}", len(jobs)) as bar:
            run_all(pool, jobs, done, bar)
        return out

    def save(ratios: list[float], path: Path) -> None:
        about = {"machine": machine, "probes": [{u: str(lv) for u, lv in probe.items} for probe in probes]}
        write_json(path, about | {_RATIOS: ratios})

    parts = [
        machine, setting.target, versions_of(setting.target),
        setting.architecture.identity(), setting.batch, setting.sequence,
        layout(setting.task.timing_batch(setting.batch, setting.sequence)),
        _described([replace(u, importance=SECOND_ORDER, fallback=NEAREST) for u in setting.units]),
        [[str(level) for _, level in probe.items] for probe in probes],
        *([[*hosts]] if hosts else []),
    ]  # fmt: skip
    return design.fitted(probes, _LATENCIES.get(parts, make=ratios, save=save, load=_read_ratios))


def _read_ratios(path: Path) -> list[float]:
    return [float(ratio) for ratio in read_json(path)[_RATIOS]]
