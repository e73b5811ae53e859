"""What the library holds, what a model is made of, what a run weighs: records, and lines for people.

A record is plain data, the same that `--json` prints, and the lines are made from it alone. Only the
record of a model needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoprune.compress import library_folder
from autoprune.core.errors import AutopruneError
from autoprune.run.fast_storages import fast_of, speed_record
from autoprune.run.folder import FRONT, RUN, UNITS, read_record, read_run
from autoprune.run.text import latency_line, size_text, speed_lines, time_text, times
from autoprune.space.costs import Costs
from autoprune.space.levels import Choices, Level, SearchSpace
from autoprune.space.storage import widest_first

DEMO = "demo"
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def record_of(what: str | None, *, space: str | None = None, target: str | None = None) -> dict[str, Any]:
    """The record of the library (None), a run folder, a model folder or hub id, or the demo's model.

    Raises:
        AutopruneError: when `what` is none of these, or `space` or `target` is given without a model.
    """
    path = Path(what) if what is not None else None
    is_run = path is not None and (path / RUN).is_file()
    if (path is None or is_run) and (space or target):
        raise AutopruneError("--space and --target are for a model; the library and a run have their own")
    if path is None:
        return library_record(library_folder.library_path(), limit_bytes=library_folder.limit_bytes())
    if is_run:
        return run_record(path)
    is_demo = what == DEMO and not path.exists()
    is_model = (path / "config.json").is_file() or (not path.exists() and _HUB_ID.fullmatch(str(what)))
    if not is_demo and not is_model:
        raise AutopruneError(
            f"{what!r} is no run folder (with {RUN}), no model folder (with config.json and "
            f"model.safetensors), no hub id and not {DEMO!r}. Without it, the library is inspected"
        )
    return model_record(None if is_demo else what, space=space or "auto", target=target or "openvino")


def lines_of(record: Mapping[str, Any]) -> list[str]:
    """A record for people."""
    lines = {"library": _library_lines, "run": _run_lines, "model": _model_lines}
    return lines[record["what"]](record)


# ---- the library --------------------------------------------------------------------------------


def library_record(folder: Path, *, limit_bytes: int) -> dict[str, Any]:
    """The files in the library's folder: their sizes and dates, and the note in each."""
    files = library_folder.holdings(folder)
    current = [
        file for file in files if file.note is not None and file.note.version == library_folder.VERSION
    ]
    keys = dict.fromkeys(file.note.key for file in current if file.note is not None)
    models = [
        {"key": key} | _summed([file for file in current if file.note is not None and file.note.key == key])
        for key in keys
    ]
    bad = [file for file in files if file.problem]
    return {
        "what": "library",
        "folder": str(folder),
        "limit_bytes": limit_bytes,
        **_weighed(files),
        "models": sorted(models, key=lambda model: -model["used"]),
        "other_versions": _weighed([file for file in files if not file.problem and file not in current]),
        "unreadable": [
            {"file": file.path.name, "size_bytes": file.size_bytes, "problem": file.problem} for file in bad
        ],
        "unfinished": _weighed(library_folder.leftovers(folder)),
    }


def _weighed(files: Sequence[library_folder.Held]) -> dict[str, Any]:
    used = max((file.used for file in files), default=None)
    return {"files": len(files), "size_bytes": sum(file.size_bytes for file in files), "used": used}


def _summed(files: Sequence[library_folder.Held]) -> dict[str, Any]:
    """Units, variants and bytes of files with a note. A variant is a unit at a ratio, in a storage."""
    notes = [file.note for file in files if file.note is not None]
    variants = sum(len(note.bits) for note in notes)
    return {"units": len({note.unit for note in notes}), "variants": variants, **_weighed(files)}


def _library_lines(record: Mapping[str, Any]) -> list[str]:
    lines = [
        f"Library   {record['folder']}",
        f"Holds     {size_text(record['size_bytes'])} in {record['files']} files; limit "
        f"{size_text(record['limit_bytes'])} ({library_folder.LIMIT_VARIABLE})",
    ]
    if record["models"]:
        lines.append(f"{'Model and data':26}{'units':>6}{'variants':>10}{'files':>7}{'size':>11}  last used")
    for model in record["models"]:
        lines.append(
            f"  {model['key']:24}{model['units']:6}{model['variants']:10}{model['files']:7}"
            f"{size_text(model['size_bytes']):>11}  {time_text(model['used'])}"
        )
    old, unfinished = record["other_versions"], record["unfinished"]
    if old["files"]:
        lines.append(
            f"Outdated  {old['files']} files, {size_text(old['size_bytes'])}, last used "
            f"{time_text(old['used'])}: made by another version of autoprune, not used by this one"
        )
    if unfinished["files"]:
        lines.append(
            f"Unfinished  {unfinished['files']} files, {size_text(unfinished['size_bytes'])}: being written, "
            "or left by a killed process and removed an hour later"
        )
    for entry in record["unreadable"]:
        lines.append(f"Unreadable  {entry['file']}, {size_text(entry['size_bytes'])}: {entry['problem']}")
    return lines


# ---- a run --------------------------------------------------------------------------------------


def run_record(path: Path) -> dict[str, Any]:
    """Bytes of a run's units at every level, and what the library holds of them.

    Raises:
        AutopruneError: when the run has no such table yet, or one that this version cannot read.
    """
    if not (path / UNITS).is_file():
        raise AutopruneError(f"run {path} has no {UNITS} yet: it stopped before its library was built")
    about = read_run(path)
    try:
        costs = Costs.from_json(read_record(path / UNITS))
        space = SearchSpace(tuple(_choices(name, table) for name, table in costs.levels.items()))
        units = _units_record(costs, space, about.as_json()["kinds"])  # noted with the facts
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise AutopruneError(
            f"{path / UNITS} or {path / RUN} is damaged, or of another version of autoprune ({error!r})"
        ) from error
    return {
        "what": "run",
        "run": str(path),
        **{name: getattr(about.facts, name) for name in ("model", "target", "space")},
        **units,
        **speed_record(space, fast_of(about.facts)),
        "latency": _latency_of(path / FRONT),
        "library": _library_of(about.library_key),
    }


def _choices(unit: str, levels: Iterable[Level]) -> Choices:
    known = list(levels)
    ratios = tuple({level.ratio for level in known})
    return Choices(unit, ratios, widest_first(level.storage for level in known))


def _latency_of(path: Path) -> dict[str, Any] | None:
    """How far predicted milliseconds were off, as `front.json` has it; None where that is not known."""
    from autoprune.run.front_schema import checked_front

    latency = checked_front(read_record(path)).latency if path.is_file() else None
    return None if latency is None else latency.model_dump(by_alias=True)


def _library_of(key: str | None) -> dict[str, Any] | None:
    """What the library holds under a key; None where a run does not say its key."""
    if key is None:
        return None
    files = library_folder.holdings(library_folder.library_path())
    return {"key": key} | _summed([file for file in files if file.note is not None and file.note.key == key])


def _run_lines(record: Mapping[str, Any]) -> list[str]:
    held = record["library"]
    lines = [f"Run       {record['run']}", *_head_lines(record)]
    if held is None:
        lines.append("Library   the run does not say which variants are its own")
    else:
        have = sum(len(unit["levels"]) for unit in record["units"])
        lines.append(
            f"Library   {held['variants']} variants of {held['units']} units, "
            f"{size_text(held['size_bytes'])} under {held['key']}; the run takes {have}"
        )
    lines += [] if record["latency"] is None else [latency_line(record["latency"])]
    return lines + _units_lines(record)


# ---- a model ------------------------------------------------------------------------------------


def model_record(source: str | None, *, space: str, target: str) -> dict[str, Any]:
    """Units, levels and bytes of a model as a search would find them; no data is needed."""
    from autoprune.inspection.survey import survey
    from autoprune.targets import get_target

    runtime = get_target(target)
    surveyed = survey(source, space=space, target=target)
    return {
        "what": "model",
        "model": "all-MiniLM-L6-v2 (built-in demo)" if source is None else source,
        "target": target,
        "space": surveyed.space_name,
        "importance": surveyed.importance,
        "labels": surveyed.labels,
        "has_head": surveyed.has_head,
        **_units_record(surveyed.sizes, surveyed.space, surveyed.kinds),
        **speed_record(surveyed.space, runtime.fast),
        "left_alone": [{"path": path, "size_bytes": size} for path, size in surveyed.left_alone.items()],
    }


def _model_lines(record: Mapping[str, Any]) -> list[str]:
    head = f"{record['labels']} labels" + ("" if record["has_head"] else ", head not trained yet")
    rest = record["fixed_bytes"] - sum(tensor["size_bytes"] for tensor in record["left_alone"])
    lines = [*_head_lines(record), *_units_lines(record)]
    lines.append(f"Left alone, {size_text(record['fixed_bytes'])} in all ({head})")
    groups: dict[str, list[int]] = {}
    for tensor in record["left_alone"]:
        groups.setdefault(_collapsed(tensor["path"]), []).append(tensor["size_bytes"])
    lines += [f"  {times(path, len(sizes)):52}{size_text(sum(sizes)):>10}" for path, sizes in groups.items()]
    lines.append(f"  {'the rest of the files: graph, headers':52}{size_text(rest):>10}")
    return lines


# ---- units, of a model or a run -----------------------------------------------------------------


def _units_record(costs: Costs, space: SearchSpace, kinds: Mapping[str, str]) -> dict[str, Any]:
    smallest = costs.smallest(space)
    return {
        "original_bytes": costs.size_bytes(space.untouched()),
        "smallest_bytes": costs.size_bytes(smallest),
        "fixed_bytes": costs.fixed_bytes,
        "units": [
            {
                "name": unit.unit,
                "kind": kinds.get(unit.unit, ""),
                "smallest": str(smallest[unit.unit]),
                "levels": [
                    {
                        "ratio": lv.ratio,
                        "bits": lv.storage.written,
                        "size_bytes": costs.levels[unit.unit][lv].size_bytes,
                    }
                    for lv in unit.levels()
                ],
            }
            for unit in space.units
        ],
    }


def _head_lines(record: Mapping[str, Any]) -> list[str]:
    levels = sum(len(unit["levels"]) for unit in record["units"])
    return [
        f"Model     {record['model']}  {size_text(record['original_bytes'])} as {record['target']}",
        f"Space     {record['space']}  {len(record['units'])} units, {levels} variants",
        f"Smallest  {size_text(record['smallest_bytes'])}, every unit at its smallest",
        *([f"Removed   {record['importance']}"] if record.get("importance") else []),
        *([] if record["fast"] is None else speed_lines(record)),
    ]


def _units_lines(record: Mapping[str, Any]) -> list[str]:
    """For each kind of equal units a table of bytes: a row a ratio, a column a storage."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for unit in record["units"]:
        groups.setdefault((_collapsed(unit["name"]), str(unit["levels"])), []).append(unit)
    lines = []
    for (name, _), units in groups.items():
        sizes = {(lv["ratio"], lv["bits"]): lv["size_bytes"] for lv in units[0]["levels"]}
        storages = dict.fromkeys(written for _, written in sizes)
        lines.append(
            f"{times(name, len(units))}  {size_text(max(sizes.values()))}, at the smallest "
            f"{size_text(min(sizes.values()))} ({units[0]['smallest']})" + ", each" * (len(units) > 1)
        )
        heads = (f"{written} bits" if isinstance(written, int) else written for written in storages)
        lines.append(f"  {'ratio':>5}" + "".join(f"{text:>11}" for text in heads))
        for ratio in sorted({ratio for ratio, _ in sizes}):
            lines.append(
                f"  {ratio:5g}" + "".join(f"{size_text(sizes[ratio, storage]):>11}" for storage in storages)
            )
        lines += ["  below zero: without it the graph is shorter too"] * (min(sizes.values()) < 0)
    return lines


def _collapsed(path: str) -> str:
    """A path with its numbers left out, for what comes once a layer.

    >>> _collapsed("encoder.layer.3.attention")
    'encoder.layer.*.attention'
    """
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", path)
