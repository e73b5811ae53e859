"""The trials as rows: `front.csv`, and the compact form that the page carries."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from autoprune.report.text import write_text
from autoprune.run.front_schema import checked_front
from autoprune.run.safe_front import safe
from autoprune.run.short_rows import NUMBERS, level_rows
from autoprune.tasks.metrics import ACCURACY, Metric

Json = Mapping[str, object]
_Items = tuple[tuple[str, object], ...]
_Numbers = dict[tuple[object, ...], int]
"""Distinct things, numbered as they came."""

FIELDS = (
    *("number", "name", "state", "failure", "size_bytes", "predicted_size_bytes"),
    *("latency_ms", "latency_low_ms", "latency_high_ms", "accuracy", "kl", "test_accuracy"),
    *("seconds", "worker", "on_front", "within_budget", "rung", "predicted_kl", "predicted_latency_ms"),
    "ended_s",
)
"""Columns of a trial; those of its units (ratio, bits, bytes) follow."""

PER_UNIT = ("levels", "unit_bytes", "unit_ms")
"""Fields of a trial that have a value for each unit."""

END = "\r\n"
"""Ends a row."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A spreadsheet takes text that begins so for a formula (OWASP, CSV Injection)."""


def write_csv(front: Json, path: Path) -> None:
    """Write one row per trial and baseline: sizes in bytes, times in milliseconds or as named.

    `accuracy` is the score of 0..100; the last column before the units' has the metric's own number where
    that is not accuracy.

    Raises:
        AutopruneError: where `front` is not what `front.json` holds.
    """
    metric = checked_front(front).run.metric
    data = safe(front)
    names, cells_of = unit_names(data), _short_cells(data)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=END)
    heads = [f"{name}.{part}" for name in names for part in ("ratio", "bits", "bytes")]
    writer.writerow([harmless(cell) for cell in (*FIELDS, *metric_column(metric), *heads)])
    for trial in trials(data):
        cells = [trial.get(field) for field in FIELDS]
        if metric != ACCURACY:
            cells.append(_own_number(metric, trial.get("accuracy")))
        if trial.get(NUMBERS) is None:
            writer.writerow(_harmless_row([*cells, *_unit_cells(trial, names)]))
        else:
            writer.writerow(_harmless_row(cells))
            out.seek(out.tell() - len(END))
            units = zip(cells_of, cast(list[int], trial[NUMBERS]), strict=True)
            out.write("".join(levels[number] for levels, number in units) + END)
    write_text(path, out.getvalue())


def _short_cells(front: Json) -> list[list[str]]:
    """The cells of each level of each unit as they stand in a row, each after a comma."""
    units = []
    for rows in level_rows(front).values():
        texts = []
        for _, *parts in rows:
            cells = io.StringIO()
            csv.writer(cells, lineterminator="").writerow(["", *(harmless(part) for part in parts[:3])])
            texts.append(cells.getvalue())
        units.append(texts)
    return units


def metric_column(metric: Metric) -> list[str]:
    """Head of the column with the metric's own numbers; none for accuracy.

    >>> metric_column(ACCURACY), metric_column(Metric("f1")), metric_column(Metric("seconds"))
    ([], ['f1'], ['metric seconds'])
    """
    if metric == ACCURACY:
        return []
    return [f"metric {metric.name}" if metric.name in FIELDS else metric.name]


def _own_number(metric: Metric, score: object) -> float | None:
    """The metric's own number; None where it is unknown or none is that large."""
    shown = metric.shown(float(score)) if isinstance(score, int | float) else math.nan
    return shown if math.isfinite(shown) else None


def harmless(cell: object) -> object:
    """A cell that no spreadsheet takes for a formula; numbers stay as they are.

    >>> harmless("=1+1"), harmless(-1.5), harmless(True)
    ("'=1+1", -1.5, 'true')
    """
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def _harmless_row(cells: Iterable[object]) -> list[object]:
    """Each cell as `harmless` gives it; numbers, which most are, are not asked about."""
    return [cell if cell.__class__ is float or cell.__class__ is int else harmless(cell) for cell in cells]


def trials(front: Json) -> list[Json]:
    """The trials as plain mappings."""
    return list(cast(Iterable[Json], front.get("trials") or ()))


def unit_names(front: Json) -> list[str]:
    """Every unit that is named anywhere, in the model's order."""
    names = {str(unit["name"]): None for unit in cast(Iterable[Json], front.get("units") or ())}
    for trial in trials(front):
        for field in PER_UNIT:
            names |= dict.fromkeys(cast(Json, trial.get(field) or {}))
    return list(names)


def pack(front: Json) -> dict[str, object]:
    """The same front in less space: a unit's name once, and each of its distinct variants once.

    A variant is an index into `levels`, bytes and milliseconds, each null where unknown. A trial's
    `levels` become indices into its units' `variants`, -1 where it has none; `unit_bytes` and
    `unit_ms` become null. A unit of `sensitivity` becomes its index in `names`. The page turns
    this back into `front.json`.
    """
    names = unit_names(front)
    levels: _Numbers = {}
    variants: list[_Numbers] = [{} for _ in names]
    packed = []
    for trial in trials(front):
        cells = [_variant(trial, name, levels) for name in names]
        index = [
            -1 if not any(part is not None for part in cell) else seen.setdefault(cell, len(seen))
            for cell, seen in zip(cells, variants, strict=True)
        ]
        times = {"unit_ms": None} if "unit_ms" in trial else {}
        packed.append({**trial, "levels": index, "unit_bytes": None, **times})
    return {
        "front": {**front, "trials": packed, **_short_sensitivity(front, names)},
        "names": names,
        "levels": [dict(cast(_Items, key)) for key in levels],
        "variants": [list(seen) for seen in variants],
    }


def _variant(trial: Json, name: str, levels: _Numbers) -> tuple[object, ...]:
    """A unit's level, by its number in `levels`, bytes and milliseconds; None where there is none."""
    level, size, ms = ((cast(Json, trial.get(field) or {})).get(name) for field in PER_UNIT)
    level = cast(Json | None, level)
    key = None if level is None else tuple((part, level.get(part)) for part in ("ratio", "bits"))
    return (None if key is None else levels.setdefault(key, len(levels))), size, ms


def _short_sensitivity(front: Json, names: list[str]) -> Json:
    """`sensitivity` with numbers for the units that are in `names`; nothing where there is none."""
    given = cast(Json | None, front.get("sensitivity"))
    if not given:
        return {}
    index: dict[str, object] = {name: k for k, name in enumerate(names)}
    rows = cast(Iterable[list[object]], given.get("levels") or ())
    short = [[index.get(str(row[0]), row[0]), *row[1:]] for row in rows]
    return {"sensitivity": {**given, "levels": short}} if "levels" in given else {}


def _unit_cells(trial: Json, names: list[str]) -> list[object]:
    levels = cast(Mapping[str, Json], trial.get("levels") or {})
    sizes = cast(Json, trial.get("unit_bytes") or {})
    cells: list[object] = []
    for name in names:
        level = levels.get(name, {})
        cells += [level.get("ratio"), level.get("bits"), sizes.get(name)]
    return cells
