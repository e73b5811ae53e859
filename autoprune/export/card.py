"""The model card of an exported model: `README.md` with the front matter that the Hugging Face hub reads.

Names of models, data, classes and folders come from elsewhere and are taken for hostile: in the front matter
they go through the YAML writer, in the text they stand in code spans, where Markdown and HTML mean nothing,
and every fence of code is longer than any in what it holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoprune.export.card_members import example_limit, members_of, opening_of_several, sections_of_several
from autoprune.export.card_usage import with_autoprune, without_autoprune
from autoprune.export.export_record import (
    BaseRecord,
    DataRecord,
    ExportRecord,
    LatencyRecord,
    ValidatedRecord,
)
from autoprune.export.hub import is_hub_id
from autoprune.export.markdown import code, fenced, figure, one_line, table, words
from autoprune.space.storage import storage_of
from autoprune.tasks.data.demo import demo_model
from autoprune.tasks.metrics import METRICS, Metric

DEMO_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"


def base_of(model: str | None, revision: str | None) -> BaseRecord:
    """Name, hub id, revision and license of the model that was compressed, as far as they are known here.

    Args:
        model: a folder or hub id; None is the built-in demo's.
    """
    if model is None:
        license = _license(demo_model() / "README.md")
        return BaseRecord(name="all-MiniLM-L6-v2", hub_id=DEMO_HUB_ID, revision=None, license=license)
    if Path(model).exists() or not is_hub_id(model):
        license = _license(Path(model) / "README.md")
        return BaseRecord(name=Path(model).name, hub_id=None, revision=None, license=license)
    from huggingface_hub import try_to_load_from_cache

    card = try_to_load_from_cache(model, "README.md", revision=revision)
    license = _license(Path(card)) if isinstance(card, str) else None
    return BaseRecord(name=model, hub_id=model, revision=revision, license=license)


def model_card(about: ExportRecord, name: str, *, builder: str | None = None) -> str:
    """The card of a model, from what its `autoprune.json` says.

    Args:
        name: of the folder it is exported to.
        builder: function that it cannot be loaded without.
    """
    base, target = about.base, about.target
    validated = about.validated
    if validated is None:
        raise ValueError("a model is described once its folder was measured")
    opening = opening_of_several(about) or (
        f"{code(base.name)}, compressed by autoprune for {code(target)}: {about.data.kind.removable} removed "
        f"and weights stored as integers, unit by unit, as a search found best within {about.budget}. "
        f"This is trial {about.trial} of the run {code(about.run)}."
    )
    parts = [
        f"# {code(name)}",
        opening,
        _summary(validated, about.metric),
        *sections_of_several(about),
        *_measurements(about, validated),
        *_loading(about, name, builder),
        *([] if members_of(about) else _units(about)),
        "## Make it again",
        "The search, then the export:",
        fenced(f"{about.command}\n{about.export}", "bash"),
        *_origin(about),
    ]
    return f"---\n{_front_matter(about, validated, name)}\n---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(about: ExportRecord, validated: ValidatedRecord, name: str) -> str:
    from huggingface_hub import ModelCardData

    units = [*about.units.values(), *(u for m in members_of(about) for u in m.units.values())]
    base, storages = about.base, [storage_of(unit.bits) for unit in units]
    is_pruned = any(unit.ratio > 0 for unit in units)
    tags = ["autoprune", about.target, *(["pruned"] if is_pruned else [])]
    tags += ["quantized"] if any(not storage.is_float for storage in storages) else []
    dataset = _hub_dataset(about)
    data = ModelCardData(
        base_model=base.hub_id,
        license=base.license,
        library_name="autoprune",
        pipeline_tag=about.data.kind.pipeline,
        tags=tags,
        datasets=[dataset] if dataset else None,
        metrics=[_hub_metric(about)],
        model_name=one_line(name),
        eval_results=_results(about, validated) or None,
    )
    return str(data.to_yaml())


def _results(about: ExportRecord, validated: ValidatedRecord) -> list[Any]:
    """Scores for the card's model-index, of the target's own model alone; the hub wants a task for each."""
    from huggingface_hub import EvalResult

    metric, task = about.metric, about.data.kind.pipeline
    scores = {"validation": validated.accuracy}
    if about.measured_on == about.target:
        scores["test"] = about.measured.test_accuracy
    dataset = _hub_dataset(about) or one_line(about.dataset)
    return [
        EvalResult(
            task_type=task,
            dataset_type=dataset,
            dataset_name=one_line(about.dataset),
            dataset_split=split,
            metric_type=_hub_metric(about),
            metric_value=round(metric.shown(score) / (100 if metric.unit == "%" else 1), 4),
        )
        for split, score in scores.items()
        if score is not None and task is not None and math.isfinite(metric.shown(score))
    ]


def _hub_metric(about: ExportRecord) -> str:
    metric = about.metric
    return metric.hub_name or one_line(metric.name)


def _summary(validated: ValidatedRecord, metric: Metric) -> str:
    score, told = validated.accuracy, ""
    if score is not None:
        value = " ".join(part for part in (metric.text(score), _unit(metric)) if part)
        told = f", {_named(metric)} {value} on {validated.rows} validation rows"
    faster = 1 / validated.latency.ratio
    return f"**{validated.size_bytes / 1e6:.2f} MB{told}, {faster:.2f} times as fast as the original.**"


def _named(metric: Metric) -> str:
    """The metric's name; Markdown in one that is the user's own means nothing."""
    return metric.word if metric.name in METRICS else words(metric.name)


def _unit(metric: Metric) -> str:
    return metric.unit if metric.unit in ("", "%") else words(metric.unit)


def _scored(what: str, about: ExportRecord, *scores: float | None) -> tuple[str, str, str]:
    """A row of the metric on a split: its name, and its own numbers."""
    metric = about.metric
    unit = f", {_unit(metric)}" if metric.unit else ""
    worse = "" if metric.higher_is_better else " (lower is better)"
    first, second = (None if score is None else metric.shown(score) for score in scores)
    return f"{_named(metric)} on {what}{unit}{worse}", figure(first), figure(second)


def _measurements(about: ExportRecord, validated: ValidatedRecord) -> list[str]:
    recorded, timing = about.measured, validated.latency
    original_ms = recorded.original_ms
    before = original_ms / recorded.latency_ms if original_ms and recorded.latency_ms else None
    of = f" of {words(about.latency_of)}" if about.latency_of else ""
    rows = [
        (f"latency{of}, ms", recorded.latency_ms, timing.median_ms),
        ("10th and 90th percentile, ms", (recorded.latency_low_ms, recorded.latency_high_ms),
         (timing.low_ms, timing.high_ms)),
        ("the original's latency, ms", original_ms, timing.original_ms),
        ("times as fast", before, 1 / timing.ratio),
        ("loads in, s", None, validated.load_seconds),
    ]  # fmt: skip
    head = ["", f"by the search, on {code(about.measured_on)}", "as exported, in a fresh process"]
    cells = [
        ("size, bytes", str(recorded.size_bytes), str(validated.size_bytes)),
        _scored("validation", about, recorded.accuracy, validated.accuracy),
        _scored("test", about, recorded.test_accuracy, None),
        *((what, figure(a), figure(b)) for what, a, b in rows),
    ]
    own = validated.defaults
    more: Sequence[tuple[str, ...]] = [()] * len(cells)
    if own is not None and own.latency is not None:
        head.append(f"with no settings ({words(own.settings)})")
        more = _unset(about, validated.size_bytes, own.accuracy, own.latency)
    return [
        "## Measurements",
        table(head, [(*row, *last) for row, last in zip(cells, more, strict=True)]),
        f"As exported: {validated.protocol} {validated.date}, {code(validated.machine)}.",
        f"By the search: {about.protocol}",
        "Checked in a fresh process after the export:",
        table(
            ("", "", "found"),
            [(words(check.name), _MARKS[check.passed], code(check.said)) for check in validated.checks],
        ),
    ]


def _unset(
    about: ExportRecord, size: int, score: float | None, timing: LatencyRecord
) -> list[tuple[str, ...]]:
    """The column for the runtime's default settings; it chooses the number of threads itself."""
    figures = [
        None if score is None else about.metric.shown(score), None, timing.median_ms,
        (timing.low_ms, timing.high_ms), timing.original_ms, 1 / timing.ratio, None,
    ]  # fmt: skip
    return [(str(size),), *((figure(column),) for column in figures)]


_MARKS = {True: "ok", False: "**failed**", None: "not checked"}


def _loading(about: ExportRecord, name: str, builder: str | None) -> list[str]:
    target, kind = about.target, about.data.kind
    is_average = about.ensemble is not None
    usage = with_autoprune(
        target, kind, name, is_average=is_average, has_sentence_head=about.has_sentence_head,
        limit=None if about.family is None else example_limit(about.family), builder=builder,
    )  # fmt: skip
    parts = ["## Load it", fenced(usage, "python")]
    if about.pooling:
        parts.append(f"How a text's vector is made: {code(about.pooling)}.")
    if not members_of(about) and (alone := without_autoprune(target, kind, name)):
        parts += ["Without autoprune:", fenced(alone, "python")]
    return parts


def _units(about: ExportRecord) -> list[str]:
    sizes = about.unit_bytes
    rows = [
        (code(unit), f"{100 * level.ratio:.0f} %", str(level.bits), figure(sizes.get(unit)))
        for unit, level in about.units.items()
    ]
    size = "bytes" if about.storage == "plain" else "bytes before entropy coding"
    return ["## What was done to each unit", table(("unit", "rows removed", "bits", size), rows)]


def _origin(about: ExportRecord) -> list[str]:
    base, data = about.base, about.data
    versions = ", ".join(f"{name} {version}" for name, version in about.searched_with.items())
    revision = base.revision or "as found"
    facts = {
        "base model": f"{code(base.hub_id or base.name)}, revision {code(revision)}, "
        f"SHA-256 of its tensors {code(base.tensors_sha256)}",
        "license of the base model": code(base.license or "not known"),
        "data": f"{code(about.dataset)}{_at(data)}, fingerprint {code(data.fingerprint)}; "
        f"{data.validation_rows} validation rows{_cut(about)}",
        "classes": ", ".join(map(code, data.labels)),
        "brief fine-tune": _trained(about),
        "seed": str(data.seed),
        "versions": code(versions),
    }
    if not data.labels:
        del facts["classes"]
    return ["## Where it comes from", "\n".join(f"- {name}: {fact}" for name, fact in facts.items())]


def _trained(about: ExportRecord) -> str:
    if members_of(about):
        return "of each member as its trial was trained"
    return f"{about.steps} steps under the original"


def _at(data: DataRecord) -> str:
    return "" if data.revision is None else f", revision {code(data.revision)}"


def _cut(about: ExportRecord) -> str:
    """Where rows are cut; pictures are not."""
    return "" if about.data.kind.reads_images else f"; rows cut at {about.data.max_length} tokens"


def _hub_dataset(about: ExportRecord) -> str | None:
    name = about.data.dataset
    on_disk = about.data.on_disk
    if on_disk is None:  # a record of before it was noted
        on_disk = name is not None and name != "" and Path(name).exists()
    return name if name and not on_disk and is_hub_id(name) else None


def _license(card: Path) -> str | None:
    """The license that a model's own card names; None where there is none, or it is no plain name."""
    from huggingface_hub.repocard import metadata_load

    try:
        data = metadata_load(card)
    except Exception:  # of whatever kind: a card that cannot be read names no license
        return None
    name = (data or {}).get("license")
    return name if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9.+-]{1,64}", name) else None
