"""What was found of an exported model against what was recorded: passed, failed or not checked, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from autoprune.validate import Found

SIZE_TOLERANCE = 0.005
"""Of the predicted bytes: what the search promises of its predictions."""

SAME_TARGET_POINTS, OTHER_TARGET_POINTS = 0.1, 0.5
"""Points of accuracy that may differ from the record. On the target that was searched on the same arithmetic
is done again; another one rounds elsewhere, and so may the same one on another processor."""


@dataclass(frozen=True)
class Check:
    """One thing that was recorded or predicted. passed: None where it could not be checked."""

    name: str
    passed: bool | None
    said: str


def export_checks(found: Found, about: Mapping[str, Any], *, tolerance: float) -> list[Check]:
    """Whether a folder just written is the model that was searched.

    Args:
        about: what its `autoprune.json` says.
        tolerance: the target's, of logits.
    """
    same = about["measured_on"] == about["target"]
    where = "" if same else f" on {about['measured_on']}"
    points = SAME_TARGET_POINTS if same else OTHER_TARGET_POINTS
    return [
        _files(about),
        _size(found, about),
        _logits(found, tolerance),
        _accuracy(found, about["measured"]["accuracy"], points, f"the search recorded{where}"),
    ]


def bench_checks(found: Found, about: Mapping[str, Any]) -> list[Check]:
    """Whether an exported model still is what its record says; its milliseconds are the machine's."""
    before = about.get("validated") or {}
    size = before.get("size_bytes")
    said = f"{found.size_bytes} bytes; the export recorded {size if size is not None else 'none'}"
    checks = [_files(about), Check("bytes", None if size is None else size == found.size_bytes, said)]
    accuracy = before.get("accuracy")
    if accuracy is None:
        accuracy = about.get("measured", {}).get("accuracy")
    if not found.is_recorded_data and found.accuracy is not None:
        was = "was recorded" if accuracy is None else f"{accuracy:.2f} were recorded"
        said = f"{found.accuracy:.2f} % on {found.rows} validation rows of other data than {was} of"
        return [*checks, Check("accuracy", None, said)]
    return [*checks, _accuracy(found, accuracy, OTHER_TARGET_POINTS, "recorded")]


def failed(checks: Sequence[Check]) -> str:
    """The checks that failed, in words; empty when none did."""
    return "; ".join(f"{one.name}: {one.said}" for one in checks if one.passed is False)


def record(found: Found, checks: Sequence[Check]) -> dict[str, Any]:
    """For `autoprune.json`, and for `bench --json`."""
    passed = all(one.passed is not False for one in checks)
    return {"passed": passed, "checks": [asdict(one) for one in checks], **asdict(found)}


def lines(found: Found, checks: Sequence[Check]) -> list[str]:
    """What was checked and measured, for people."""
    marks = {True: "ok", False: "FAILED", None: "not checked"}
    out = [f"  {one.name:9} {marks[one.passed]:12} {one.said}" for one in checks]
    out.append(f"  {'loads in':9} {'measured':12} {found.load_seconds:.2f} s")
    return [*out, f"  {'latency':9} {'measured':12} {latency(found)}"]


def recorded(about: Mapping[str, Any]) -> dict[str, Any]:
    """What the export's own validation found, for `bench --json`."""
    before = about.get("validated") or {}
    names = ("size_bytes", "accuracy", "latency", "batch", "sequence", "threads", "load_seconds", "machine")
    return {name: before.get(name) for name in names}


def bench_lines(found: Found, checks: Sequence[Check], about: Mapping[str, Any]) -> list[str]:
    """What was measured now, and the latency that was recorded."""
    said = f"{about['target']}, trial {about.get('trial')} of {about.get('run', 'a run')}"
    before = (about.get("validated") or {}).get("latency")
    out = [said, *lines(found, checks)]
    if before is None:
        return out
    at = {name: about["validated"][name] for name in ("batch", "sequence", "threads")}
    now = {name: getattr(found, name) for name in at}
    other = "" if at == now else f", at {at['batch']} x {at['sequence']} tokens, {at['threads']} thread(s)"
    return [
        *out,
        f"  {'':9} {'recorded':12} {before['median_ms']:.2f} ms ({before['low_ms']:.2f} to "
        f"{before['high_ms']:.2f}); the original {1 / before['ratio']:.2f} times as long{other}",
    ]


def latency(found: Found) -> str:
    """Milliseconds, their spread, and how they compare with the original's."""
    one = found.latency
    return (
        f"{one.median_ms:.2f} ms ({one.low_ms:.2f} to {one.high_ms:.2f}) at batch {found.batch}, "
        f"{found.sequence} tokens, {found.threads} thread{'s' if found.threads > 1 else ''}; "
        f"the original {one.original_ms:.2f} ms, {1 / one.ratio:.2f} times as long"
    )


def _files(about: Mapping[str, Any]) -> Check:
    """Nothing is measured of a folder before this is known."""
    return Check("files", True, f"{len(about['sha256'])} files, each with the SHA-256 that was recorded")


def _size(found: Found, about: Mapping[str, Any]) -> Check:
    predicted = about.get("predicted_size_bytes")
    if predicted is None:
        return Check("bytes", None, f"{found.size_bytes} bytes; not predicted: {about.get('not_predicted')}")
    if about["storage"] != "plain":
        passed = found.size_bytes <= predicted * (1 + SIZE_TOLERANCE)
        saved = 100 * (1 - found.size_bytes / predicted)
        return Check(
            "bytes", passed, f"{found.size_bytes} bytes, {predicted} before coding: {saved:.1f} % saved"
        )
    passed = abs(found.size_bytes - predicted) <= SIZE_TOLERANCE * predicted
    allowed = f"{100 * SIZE_TOLERANCE:g} % allowed"
    return Check("bytes", passed, f"{found.size_bytes} bytes, {predicted} predicted ({allowed})")


def _logits(found: Found, tolerance: float) -> Check:
    one = found.logits
    if one is None:
        return Check("logits", None, "no model to compare with")
    rows = f"{one.rows} {'made-up' if one.made_up else 'validation'} rows"
    said = (
        f"99 % of them within {one.most:.2g} standard deviations of the packed model's on {rows} "
        f"({tolerance:g} allowed), all within {one.largest:.2g}"
    )
    return Check("logits", one.most <= tolerance, said)


def _accuracy(found: Found, recorded: float | None, points: float, who: str) -> Check:
    """Within so many points, or one row where that is more."""
    if found.accuracy is None or recorded is None:
        return Check("accuracy", None, found.missing or "none is recorded")
    allowed = max(points, 100.0 / found.rows)
    passed = abs(found.accuracy - recorded) <= allowed + 1e-9
    rows = f"{found.rows} validation rows"
    said = f"{found.accuracy:.2f} % on {rows}, {recorded:.2f} {who} ({allowed:.2g} point allowed)"
    return Check("accuracy", passed, said)
