"""What autoprune can do on this machine, and what is in its way: the record of `autoprune doctor`, and lines.

Nothing is fetched and nothing is started. A library that cannot be imported is told, whatever it raises.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from typing import Any

from autoprune.core.cache import cache_folder
from autoprune.core.files import reason_of
from autoprune.core.redaction import redacted
from autoprune.inspection.machine import folder_record, gpu_record, machine_record, versions_record
from autoprune.inspection.traps import Trap, own_variables, traps_found, why_no_answer
from autoprune.run.text import size_text
from autoprune.space.levels import Level
from autoprune.space.storage import FLOAT32, OPTIONAL, STATIC8, widest_first
from autoprune.workers.ray_address import cluster_asked_for

SHOWN = (
    "torch", "transformers", "optuna", "ray", "datasets", "openvino", "numpy", "safetensors",
    "huggingface_hub",
)  # fmt: skip
"""Libraries whose versions are shown: what is measured may depend on them."""

IMPORTED = ("torch", "transformers", "openvino", "optuna", "ray", "datasets")
"""Libraries that are imported: one whose system library is missing is installed and of no use."""

_NO_EXTRAS = ("dev", "bench")
"""Extras of who works on autoprune itself."""


def doctor_record(environment: Mapping[str, str]) -> dict[str, Any]:
    """What is here and what is in the way, as plain data; `works` is whether a search can run.

    Args:
        environment: the variables of this process.
    """
    broken = [*_unfit_packages(), *_not_importable()]
    found = sorted([*broken, *traps_found(environment)], key=lambda trap: not trap.breaks)
    address = cluster_asked_for(None)
    return {
        "what": "doctor",
        "versions": {"autoprune": _version("autoprune"), **versions_record(),
                     **{name: _version(name) for name in SHOWN}},
        "machine": machine_record(),
        **_gpus(),
        "targets": [target_record(name) for name in _target_names()],
        "extras": lacking_extras(),
        "cache": folder_record(cache_folder()),
        "ray": {
            "address": None if address is None else redacted(address),
            "why_no_answer": "" if address is None else why_no_answer(address),
        },
        "variables": own_variables(environment),
        "traps": [asdict(trap) for trap in found],
        "works": not any(trap.breaks for trap in found),
    }  # fmt: skip


def _gpus() -> dict[str, Any]:
    record = gpu_record()
    return {"gpus": record["gpus"], "why_no_gpu": record["why"]}


def _target_names() -> tuple[str, ...]:
    from autoprune.targets import NAMES

    return NAMES


def target_record(name: str) -> dict[str, Any]:
    """Whether a target can be used here, or why not, and what it does with a linear layer.

    `fast` and `bytes_alone` are as in `autoprune inspect`: widths of a weight that were measured to be
    computed faster than floats, and the others; those that a space file offers by name alone are not told.
    `removes` is whether rows can be removed there.
    """
    nothing: dict[str, Any] = {"fast": [], "bytes_alone": [], "removes": False}
    try:
        from autoprune.models.unit import Unit, Weight
        from autoprune.targets import get_target, is_fast

        target = get_target(name)
    except Exception as error:  # of a library that cannot be loaded too
        return {"name": name, "usable": False, "why": " ".join(reason_of(error).split()), **nothing}
    first, second = (Weight(path, 64, 64, has_bias=True) for path in ("first", "second"))
    storages = tuple(widest_first(target.storages))
    unit = Unit("layer", "feed-forward", (first,), (second,), 64, 1, 64, (0.0, 0.5), storages)
    levels = [Level(0.0, storage) for storage in storages if storage not in (FLOAT32, *OPTIONAL)]
    offered = [level for level in levels if target.offers(unit, level)]
    return {
        "name": name,
        "usable": True,
        "why": "",
        "fast": [level.storage.written for level in offered if is_fast(target, unit, level)],
        "bytes_alone": [level.storage.written for level in offered if not is_fast(target, unit, level)],
        "removes": target.offers(unit, Level(0.5, FLOAT32)),
    }


def lacking_extras() -> dict[str, list[str]]:
    """Packages that are not installed, by the extra of autoprune that brings them."""
    lacking: dict[str, list[str]] = {}
    for requirement, extra in _requirements():
        is_shown = extra and extra not in _NO_EXTRAS and requirement.name != "autoprune"
        if is_shown and not _version(requirement.name):
            lacking.setdefault(extra, []).append(requirement.name)
    return lacking


def _unfit_packages() -> Iterator[Trap]:
    """Packages that autoprune needs and that are missing, or of a version that it was not written for."""
    for requirement, extra in _requirements():
        version = _version(requirement.name)
        if extra or (version and requirement.specifier.contains(version, prereleases=True)):
            continue
        told = f"is {version}, and {requirement.specifier} is needed" if version else "is not installed"
        yield Trap(f"{requirement.name} {told}", f"pip install '{requirement}'", breaks=True)


def _not_importable() -> Iterator[Trap]:
    for name in IMPORTED:
        if not _version(name):
            continue  # told already
        try:
            importlib.import_module(name)
        except Exception as error:  # a missing system library, a CPU that is too old, a file that is damaged
            what = f"{name} {_version(name)} cannot be imported ({type(error).__name__}: {error})"
            cure = f"pip install --force-reinstall --no-deps {name}=={_version(name)}"
            yield Trap(f"{what:.500}", cure, breaks=True)


def _requirements() -> Iterator[tuple[Any, str]]:
    """Requirements of autoprune that hold on this system, each with its extra or ""; none in a checkout."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("autoprune") or []
        extras = metadata.metadata("autoprune").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            yield requirement, ""
            continue
        for extra in extras:
            if marker.evaluate({"extra": extra}):
                yield requirement, extra


def _version(name: str) -> str:
    """The version of an installed package; "" where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


# ---- lines --------------------------------------------------------------------------------------


def doctor_lines(record: Mapping[str, Any]) -> list[str]:
    """The record for people."""
    versions, machine = record["versions"], record["machine"]
    shown = ", ".join(f"{name} {versions[name] or 'missing'}" for name in SHOWN)
    lines = [
        f"autoprune {versions['autoprune'] or 'not installed'}, Python {versions['python']}, from "
        f"{versions['package']}",
        f"Libraries {shown}",
        *_machine_lines(machine),
        *([f"GPU       {gpu['name']}, {size_text(gpu['memory_bytes'])}" for gpu in record["gpus"]]
          or [f"GPU       none: {record['why_no_gpu']}"]),
        f"Cache     {record['cache']['folder']}: {size_text(record['cache']['size_bytes'])}; "
        f"{size_text(record['cache']['free_bytes'])} free on its disk",
        f"Ray       {_ray_text(record['ray'])}",
    ]  # fmt: skip
    lines += [f"Set       {name}={value}" for name, value in record["variables"].items()]
    lines.append(f"{'Target':22}{'computed faster than floats':30}{'fewer bytes alone':28}rows removed")
    for target in record["targets"]:
        if target["usable"]:
            fast, alone = (", ".join(map(str, target[name])) or "-" for name in ("fast", "bytes_alone"))
            removes = "yes" if target["removes"] else "no"
            lines.append(f"  {target['name']:20}{fast:30}{alone:28}{removes}")
        else:
            lines.append(f"  {target['name']:20}not here: {target['why']}")
    lines.append(
        f"          Of a linear layer; numbers are bits of a weight, {STATIC8.name} is {STATIC8.words}"
    )
    lines += [
        f"Extra     {', '.join(names)} not installed: pip install 'autoprune[{extra}]'"
        for extra, names in record["extras"].items()
    ]
    for trap in record["traps"]:
        lines.append(
            f"{'Broken' if trap['breaks'] else 'Trap':10}{trap['what']}\n{'':10}Cure: {trap['cure']}"
        )
    lines.append("A search can run here" if record["works"] else "A search cannot run here: see Broken above")
    return lines


def _machine_lines(machine: Mapping[str, Any]) -> list[str]:
    count = f"{machine['processors']} of {machine['processors_seen']} processors usable"
    lines = [
        f"Machine   {machine['system']}; {machine['processor'] or 'processor not known'}",
        f"CPU       {count}; instructions {', '.join(machine['instructions']) or 'not known'}",
    ]
    lines += [f"          {machine['quota']}"] if machine["quota"] else []
    total, free = (machine[name] for name in ("memory_bytes", "memory_free_bytes"))
    texts = ["not known" if size is None else size_text(size) for size in (total, free)]
    return [*lines, f"Memory    {texts[0]}, {texts[1]} free"]


def _ray_text(ray: Mapping[str, Any]) -> str:
    if ray["address"] is None:
        return "a search starts one of its own on this machine (RAY_ADDRESS is not set)"
    state = "does not answer" if ray["why_no_answer"] else "answers"
    return f"a search joins the cluster at {ray['address']} (RAY_ADDRESS), which {state}"
