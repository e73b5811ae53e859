"""Checks of an exported model against its record: passed, failed or not checked, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autoprune.evaluation.measure import Timing
from autoprune.export.export_record import CheckRecord, ExportRecord, ValidatedRecord
from autoprune.export.validate import ExportMeasurements
from autoprune.run.folder import FAILED
from autoprune.tasks.metrics import Metric

SIZE_TOLERANCE = 0.005
"""Of the predicted bytes: what the search promises of its predictions."""

UNIT_TOLERANCE_BYTES = 32
"""Of each unit, where that is more: a packed file's header says where each tensor begins and ends, and how
many digits these numbers have depends on all units together."""

LEAST_TOLERANCE_BYTES = 1000
"""Of any file: the text of a graph weighs on files of some kilobytes, and is predicted by rule of thumb."""

SAME_TARGET_POINTS, OTHER_TARGET_POINTS = 0.1, 0.5
"""Points of accuracy that may differ from the record. On the target that was searched on the same arithmetic
is done again; another one rounds elsewhere, and so may the same one on another processor."""

SAME_TARGET_SHARE, OTHER_TARGET_SHARE = 0.005, 0.02
"""Of a metric of which less is better, as perplexity: what share of its own value may differ, likewise."""

DEFAULTS_POINTS, DEFAULTS_ROWS, DEFAULTS_SHARE = 5.0, 3, 0.1
"""Points, rows or share by which a score may differ with a runtime's own settings. They round more coarsely
(bfloat16 keeps 8 bits of a number), which is the runtime's choice and is said; more is no rounding."""

DECODING = 3.0
"""A language model's logits may differ by so many times a target's tolerance: its activations have outliers,
so that a runtime's own 8-bit rounding is coarse
(docs/decisions/019-rounding-and-speed-of-other-runtimes.md)."""


@dataclass(frozen=True)
class Check:
    """One thing that was recorded or predicted. passed: None where it could not be checked."""

    name: str
    passed: bool | None
    said: str


def export_checks(measured: ExportMeasurements, about: ExportRecord, *, tolerance: float) -> list[Check]:
    """Whether a folder just written is the model that was searched.

    Args:
        about: what its `autoprune.json` says.
        tolerance: the target's, of logits.
    """
    if about.data.kind.predicts_next_token:
        tolerance *= DECODING
    same = about.measured_on == about.target
    where = "" if same else f" on {about.measured_on}"
    return [
        _files(about),
        _size(measured, about),
        _logits(measured, tolerance),
        _score(measured, about, about.measured.accuracy, f"the search recorded{where}", same=same),
        *_defaults(measured, about.metric),
    ]


def bench_checks(measured: ExportMeasurements, about: ExportRecord, folder: str = "") -> list[Check]:
    """Whether an exported model still is what its record says; its milliseconds are the machine's.

    folder: its name, which says of one that failed its checks that it did.
    """
    before = about.validated
    size, score = (None, None) if before is None else (before.size_bytes, before.accuracy)
    said = f"{measured.size_bytes} bytes; the export recorded {size if size is not None else 'none'}"
    metric = about.metric
    checks = [
        _files(about),
        *_validation(about, folder),
        Check("bytes", None if size is None else size == measured.size_bytes, said),
        *_defaults(measured, metric),
    ]
    if score is None:
        score = about.measured.accuracy
    if not measured.is_recorded_data and measured.accuracy is not None:
        verb = "were" if metric.unit == "%" else "was"
        was = "was recorded" if score is None else f"{metric.text(score, 2)} {verb} recorded"
        now = metric.value(measured.accuracy, 2)
        said = f"{now} on {measured.rows} validation rows of other data than {was} of"
        return [*checks, Check(metric.word, None, said)]
    return [*checks, _score(measured, about, score, "recorded", same=False)]


def failed(checks: Sequence[Check]) -> str:
    """The checks that failed, in words; empty when none did."""
    return "; ".join(f"{check.name}: {check.said}" for check in checks if check.passed is False)


def validated_record(measured: ExportMeasurements, checks: Sequence[Check]) -> ValidatedRecord:
    """For `autoprune.json`, and for `bench --json`."""
    return ValidatedRecord(
        passed=all(check.passed is not False for check in checks),
        checks=tuple(CheckRecord(**asdict(check)) for check in checks),
        **asdict(measured),
    )


def lines(measured: ExportMeasurements, checks: Sequence[Check]) -> list[str]:
    """What was checked and measured, for people."""
    marks = {True: "ok", False: "FAILED", None: "not checked"}
    wide = _name_width(checks)
    out = [f"  {check.name:{wide}} {marks[check.passed]:12} {check.said}" for check in checks]
    out.append(f"  {'loads in':{wide}} {'measured':12} {measured.load_seconds:.2f} s")
    out.append(f"  {'latency':{wide}} {'measured':12} {latency(measured)}")
    if measured.defaults is not None and (timing := measured.defaults.latency) is not None:
        out.append(f"  {'':{wide}} {'no settings':12} {_times(timing)}")
    return out


def _name_width(checks: Sequence[Check]) -> int:
    """Columns that names take; a metric's may be long."""
    return max(9, *(len(check.name) for check in checks))


def recorded(about: ExportRecord) -> dict[str, Any]:
    """What the export's own validation found, for `bench --json`."""
    before = {} if about.validated is None else about.validated.as_json()
    names = ("size_bytes", "accuracy", "latency", "batch", "sequence", "threads", "load_seconds", "machine",
             "defaults")  # fmt: skip
    return {name: before.get(name) for name in names}


def bench_lines(measured: ExportMeasurements, checks: Sequence[Check], about: ExportRecord) -> list[str]:
    """What was measured now, and the latency that was recorded."""
    said = f"{about.target}, {_which(about)} of {about.run}"
    out = [said, *lines(measured, checks)]
    if about.validated is None:
        return out
    then, before = about.validated, about.validated.latency
    length = then.sequence if measured.sequence else 0  # versions before noted one of pictures too
    now = (measured.batch, measured.sequence, measured.threads)
    is_same = (then.batch, length, then.threads) == now
    size = f"{then.batch} x {length} tokens" if length else f"batch {then.batch}"
    other = "" if is_same else f", at {size}, {then.threads} thread(s)"
    name = " " * _name_width(checks)
    return [
        *out,
        f"  {name} {'recorded':12} {before.median_ms:.2f} ms ({before.low_ms:.2f} to "
        f"{before.high_ms:.2f}); the original {1 / before.ratio:.2f} times as long in pairs{other}",
    ]


def _which(about: ExportRecord) -> str:
    """The trial, or the trials, that an export holds."""
    if about.family is not None:
        return f"the most accurate of a family of {len(about.family.members)}"
    if about.ensemble is None:
        return f"trial {about.trial}"
    numbers = ", ".join(str(member.trial) for member in about.ensemble.members)
    return f"the {about.ensemble.average} average of trials {numbers}"


def latency(measured: ExportMeasurements) -> str:
    """Milliseconds, their spread, and how they compare with the original's."""
    threads = f"{measured.threads} thread{'s' if measured.threads > 1 else ''}"
    return _times(measured.latency, f" at batch {measured.batch}, {_length(measured.sequence)}{threads}")


def _times(timing: Timing, setting: str = "") -> str:
    """Milliseconds, their spread, and the original's; setting: what they were taken at."""
    return (
        f"{timing.median_ms:.2f} ms ({timing.low_ms:.2f} to {timing.high_ms:.2f}){setting}; "
        f"the original {timing.original_ms:.2f} ms; called in pairs, {1 / timing.ratio:.2f} times as long"
    )


def _length(sequence: int) -> str:
    """Tokens of a row; nothing where a row has none, as pictures."""
    return f"{sequence} tokens, " if sequence else ""


def _files(about: ExportRecord) -> Check:
    """Whether the folder's files are intact; checked before anything is measured."""
    return Check("files", True, f"{len(about.sha256)} files, each with the SHA-256 that was recorded")


def _validation(about: ExportRecord, folder: str) -> list[Check]:
    """That the export itself failed; no check where it did not."""
    before = about.validated
    if before is not None and before.passed is not False:
        return []
    if before is None and FAILED not in folder:
        return []
    wrong = [] if before is None else [f"{c.name}: {c.said}" for c in before.checks if c.passed is False]
    said = f"it failed when it was exported ({'; '.join(wrong) or 'it did not load'}); do not ship it"
    return [Check("export", False, said)]


def _size(measured: ExportMeasurements, about: ExportRecord) -> Check:
    predicted, recorded = about.predicted_size_bytes, about.measured.size_bytes
    if about.storage != "plain" and about.storage == about.measured_storage and recorded is not None:
        passed = abs(measured.size_bytes - recorded) <= _room(recorded, about)
        return Check("bytes", passed, f"{measured.size_bytes} bytes, coded; the search recorded {recorded}")
    if predicted is None:
        return Check("bytes", None, f"{measured.size_bytes} bytes; not predicted: {about.not_predicted}")
    room = _room(predicted, about)
    if about.storage != "plain":
        passed = measured.size_bytes <= predicted + room
        saved = 100 * (1 - measured.size_bytes / predicted)
        return Check(
            "bytes", passed, f"{measured.size_bytes} bytes, {predicted} before coding: {saved:.1f} % saved"
        )
    passed = abs(measured.size_bytes - predicted) <= room
    if (
        not passed and about.measured_on == about.target and recorded is not None
    ):  # an emptied layer is a guess
        near = abs(measured.size_bytes - recorded) <= _room(recorded, about)
        said = f"{measured.size_bytes} bytes; the search recorded {recorded}, and had predicted {predicted}"
        return Check("bytes", near, said)
    allowed = f"{100 * room / predicted:.2g} % allowed"
    return Check("bytes", passed, f"{measured.size_bytes} bytes, {predicted} predicted ({allowed})")


def _room(size: int, about: ExportRecord) -> float:
    """Bytes by which a file may differ from so many."""
    return max(SIZE_TOLERANCE * size, UNIT_TOLERANCE_BYTES * len(about.units), LEAST_TOLERANCE_BYTES)


def _logits(measured: ExportMeasurements, tolerance: float) -> Check:
    logits = measured.logits
    if logits is None:
        return Check("logits", None, "no model to compare with")
    rows = f"{logits.rows} {'made-up' if logits.made_up else 'validation'} rows"
    said = (
        f"99 % of them within {logits.most:.2g} standard deviations of the packed model's on {rows} "
        f"({tolerance:g} allowed), all within {logits.largest:.2g}"
    )
    return Check("logits", logits.most <= tolerance, said)


def _score(
    measured: ExportMeasurements, about: ExportRecord, recorded: float | None, who: str, *, same: bool
) -> Check:
    """The metric beside what was recorded of it. same: on the target that was searched on."""
    metric = about.metric
    if measured.accuracy is None or recorded is None:
        return Check(metric.word, None, measured.missing or "none is recorded")
    passed, allowed = _within(metric, measured.accuracy, recorded, measured.rows, same=same)
    rows = f"{measured.rows} validation rows"
    now, then = metric.value(measured.accuracy, 2), metric.text(recorded, 2)
    return Check(metric.word, passed, f"{now} on {rows}, {then} {who} ({allowed} allowed)")


def _defaults(measured: ExportMeasurements, metric: Metric) -> list[Check]:
    """Whether the model runs under the runtime's default settings; no check where these are the same."""
    own = measured.defaults
    if own is None:
        return []
    if own.failure:
        return [Check("defaults", False, f"with no settings ({own.settings}) it does not run: {own.failure}")]
    if own.accuracy is None or measured.accuracy is None:
        return [Check("defaults", True, f"it runs with no settings ({own.settings})")]
    off, allowed = abs(metric.shown(own.accuracy) - metric.shown(measured.accuracy)), DEFAULTS_POINTS
    if not metric.higher_is_better:
        allowed = DEFAULTS_SHARE * metric.shown(measured.accuracy)
    else:
        allowed = max(allowed, DEFAULTS_ROWS * metric.points_per_row / measured.rows)
    now, then = metric.value(own.accuracy, 2), metric.text(measured.accuracy, 2)
    passed = own.accuracy == measured.accuracy or off <= allowed + 1e-9
    return [Check("defaults", passed, f"{now} with no settings ({own.settings}), {then} as measured")]


def _within(metric: Metric, score: float, recorded: float, rows: int, *, same: bool) -> tuple[bool, str]:
    """Whether two scores are as near as they must be, and what is allowed: points, or one row where that is
    more; of a metric of which less is better a share of it."""
    if metric.higher_is_better:
        points = SAME_TARGET_POINTS if same else OTHER_TARGET_POINTS
        points = max(points, metric.points_per_row / rows)
        return abs(score - recorded) <= points + 1e-9, f"{points:.2g} point"
    share = SAME_TARGET_SHARE if same else OTHER_TARGET_SHARE
    now, then = metric.shown(score), metric.shown(recorded)
    return now == then or abs(now - then) <= share * then + 1e-9, f"{100 * share:g} %"
