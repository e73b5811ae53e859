"""What a model card says of an export that holds several models: its members, and how they compare."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoprune.export.export_record import EnsembleRecord, ExportRecord, FamilyRecord, MemberRecord
from autoprune.export.markdown import code, figure, table
from autoprune.tasks.metrics import Metric


def opening_of_several(about: ExportRecord) -> str | None:
    """The first paragraph of the card of an export that holds several models; None of one that holds one."""
    if about.ensemble is not None:
        return ensemble_opening(about, about.ensemble)
    return None if about.family is None else family_opening(about, about.family)


def sections_of_several(about: ExportRecord) -> list[str]:
    """What such a card says of the members; nothing of an export of one model."""
    if about.ensemble is not None:
        return ensemble_sections(about, about.ensemble)
    return [] if about.family is None else family_sections(about, about.family)


def members_of(about: ExportRecord) -> tuple[MemberRecord, ...]:
    """The models of an export that holds several; none of one that holds one."""
    several = about.ensemble or about.family
    return () if several is None else several.members


def ensemble_opening(about: ExportRecord, ensemble: EnsembleRecord) -> str:
    """The first paragraph of an ensemble's card."""
    count = len(ensemble.members)
    return (
        f"{count} models of the front of the run {code(about.run)}, each {code(about.base.name)} compressed "
        f"by autoprune for {code(about.target)}, that answer together: with the {ensemble.average} average "
        f"of their {_averaged(about)}. They were chosen among {ensemble.candidates} by the score of that "
        f"average on validation rows, within {ensemble.limit} for all of them. They run one after another, "
        "so that latency is the sum of theirs."
    )


def ensemble_sections(about: ExportRecord, ensemble: EnsembleRecord) -> list[str]:
    """The members, both averages, and the best single model of as many bytes, whichever way it falls."""
    metric = about.metric
    rows = [_member_row(metric, code(member.name), member) for member in ensemble.members]
    size = sum(member.size_bytes for member in ensemble.members)
    for name, scores in (("simple", ensemble.simple), ("weighted", ensemble.weighted)):
        shares = ", ".join(f"{weight:.2f}" for weight in scores.weights)
        rows.append(
            (
                f"**{name} average** ({shares})",
                "",
                str(size),
                "",
                *_scores(metric, scores.accuracy, scores.test_accuracy),
            )
        )
    if ensemble.single is not None:
        rows.append(_member_row(metric, "best single model of no more bytes", ensemble.single))
    head = ("", "trial", "bytes", "ms", f"{metric.label}, validation", "test")
    return [
        "## Members",
        table(head, rows),
        _compared(metric, ensemble),
        "Milliseconds of members are those that the search measured, each alone. The weights are tenths that "
        "score best on the validation rows, which flatters them; test rows chose nothing.",
    ]


def family_opening(about: ExportRecord, family: FamilyRecord) -> str:
    """The first paragraph of a family's card."""
    return (
        f"{len(family.members)} models of the front of the run {code(about.run)}, each "
        f"{code(about.base.name)} compressed by autoprune, in one file. One of them answers at a time: the "
        "most accurate within the limits that `load` is given. Measurements below are of the most accurate."
    )


def family_sections(about: ExportRecord, family: FamilyRecord) -> list[str]:
    """The members, and the bytes of their one file beside those of their own files."""
    metric = about.metric
    head = ("", "trial", "bytes alone", "ms", f"{metric.label}, validation", "test")
    rows = [_member_row(metric, code(member.name), member) for member in family.members]
    return [
        "## Members",
        table(head, rows),
        f"{family_bytes(family)}. Milliseconds and validation scores are those that fresh processes found, "
        "one for each member; test scores are the search's, where it took them.",
    ]


def example_limit(family: FamilyRecord) -> str:
    """A limit that the smallest member is within of those that lose a point at most, for an example.

    >>> one = MemberRecord(name="a", trial=1, size_bytes=2_609_917)
    >>> example_limit(FamilyRecord(members=(one,), file_bytes=1))
    '2.7MB'
    """
    scores = [member.accuracy for member in family.members if member.accuracy is not None]
    least = max(scores, default=0.0) - 1.0
    size = min(m.size_bytes for m in family.members if m.accuracy is None or m.accuracy >= least)
    return f"{math.ceil(size / 1e5) / 10:g}MB" if size >= 10**6 else f"{math.ceil(size / 1000)}kB"


def family_bytes(family: FamilyRecord) -> str:
    """How many bytes a family has, beside its members' own files, in one sentence without its point."""
    return (
        f"The file has {family.file_bytes} bytes, {family.file_bytes / family.sum_bytes:.3f} of the "
        f"{family.sum_bytes} bytes of the members' own files; {family.equal_bytes} of these are in tensors "
        "that another member has alike, the rest is saved by writing tensors given others that are like them"
    )


def compared_with_single(metric: Metric, ensemble: EnsembleRecord) -> str:
    """How far an ensemble is ahead of, or behind, the best single model of as many bytes, in one clause.

    On test rows where there are scores of them, else on validation rows.
    """
    single = ensemble.single
    scores = ensemble.simple if ensemble.average == "simple" else ensemble.weighted
    if single is None:
        return "no single model of the front has as few bytes"
    pairs = [
        ("test", scores.test_accuracy, single.test_accuracy),
        ("validation", scores.accuracy, single.accuracy),
    ]
    for rows, ours, theirs in pairs:
        if ours is not None and theirs is not None:
            return (
                f"{metric.value(ours, 2)} on {rows} rows; the best single model of no more bytes (trial "
                f"{single.trial}, {single.size_bytes} bytes) has {metric.value(theirs, 2)}: "
                f"{metric.difference(ours, theirs)}"
            )
    return "neither it nor a single model was scored"


def _compared(metric: Metric, ensemble: EnsembleRecord) -> str:
    return f"The ensemble has {compared_with_single(metric, ensemble)}."


def _member_row(metric: Metric, name: str, member: MemberRecord) -> tuple[str, ...]:
    scores = _scores(metric, member.accuracy, member.test_accuracy)
    return (name, str(member.trial), str(member.size_bytes), figure(member.latency_ms), *scores)


def _scores(metric: Metric, *scores: float | None) -> Sequence[str]:
    return [metric.text(score, 2) for score in scores]


def _averaged(about: ExportRecord) -> str:
    """What of the members' answers is averaged."""
    kind = about.data.kind
    return "probabilities" if kind.predicts_classes else "vectors" if kind.gives_vectors else "numbers"
