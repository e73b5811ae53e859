"""What is claimed of the targets, each with its figures, and whether they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.harness.claim import Claim
from benchmarks.targets.ours import ORIGINAL, float_of
from benchmarks.targets.rivals import NNCF_STATIC, OPENVINO_FLOAT
from benchmarks.targets.side_by_side import TEST, VALIDATION, Row, Score, Setting, times_faster

SETTING: Setting = (1, 128)
"""Where speed is claimed: what a search times unless told otherwise."""

MOST_LOST = 1.0
"""Points of test accuracy that a fast model may lose to the original on its runtime."""

FASTER_THAN_FLOAT, FASTER_THAN_NNCF = 4.0, 1.6
SIZE_TOLERANCE = 0.005
ELSEWHERE, WHERE_SEARCHED = 0.5, 0.1
"""Points of accuracy between a target and the stitched model; and between now and the search's record."""


def claims_of(rows: Sequence[Row]) -> Iterator[Claim]:
    """All claims that the rows can answer."""
    yield _fast(rows)
    yield _sizes(rows)
    yield _same_elsewhere(rows)
    if any(row.recorded for row in rows):
        yield _as_recorded(rows)
    yield _faster_than_float(rows)


def named(rows: Iterable[Row], name: str, on: str | None = None) -> Row | None:
    """The row of a name, on one runtime where that matters."""
    return next((row for row in rows if row.name == name and on in (None, row.on)), None)


def _fast(rows: Sequence[Row]) -> Claim:
    whole, nncf = named(rows, OPENVINO_FLOAT), named(rows, NNCF_STATIC)
    found = []
    for row in rows:
        original = named(rows, ORIGINAL, row.on)
        lost = _points(original, row, TEST) if original is not None and row.is_ours else None
        ratios = times_faster(row, whole, SETTING), times_faster(row, nncf, SETTING)
        if original is None or lost is None or lost > MOST_LOST:
            continue
        if ratios[0] is not None and ratios[1] is not None:
            found.append(_Fast(row, original, ratios[0], ratios[1]))
    says = (
        f"at most {MOST_LOST:g} point of test lost: a model {FASTER_THAN_FLOAT:g}x faster than "
        f"{OPENVINO_FLOAT} and {FASTER_THAN_NNCF:g}x faster than {NNCF_STATIC}, batch 1, sequence 128"
    )
    if not found:
        return Claim(says, "no model of ours was timed beside both and lost so little", False)
    best = max(found, key=lambda one: one.share)
    searched = [pair for pair in found if pair.row.recorded and pair is not best]
    return Claim(says, "; ".join(map(str, [best, *searched])), best.share >= 1.0)


@dataclass(frozen=True)
class _Fast:
    """A model that lost little, and how fast it is beside float and beside NNCF."""

    row: Row
    original: Row
    over_float: float
    over_nncf: float

    @property
    def share(self) -> float:
        """Of what is claimed."""
        return min(self.over_float / FASTER_THAN_FLOAT, self.over_nncf / FASTER_THAN_NNCF)

    def __str__(self) -> str:
        changes = (f"{split} {_change(self.original, self.row, split)}" for split in (TEST, VALIDATION))
        return (
            f"{self.row.name} on {self.row.on}, {self.row.size_bytes / 1e6:.2f} MB: "
            f"{self.over_float:.2f}x and {self.over_nncf:.2f}x; {', '.join(changes)}"
        )


def _points(a: Row | None, b: Row | None, split: str) -> float | None:
    """Points of accuracy that `a` has more than `b` on a split; None where either was not scored."""
    scores = [row.score.accuracy.get(split) if row and row.score else None for row in (a, b)]
    return None if scores[0] is None or scores[1] is None else scores[0] - scores[1]


def _change(original: Row, row: Row, split: str) -> str:
    lost = _points(original, row, split)
    right = None if row.score is None else row.score.accuracy.get(split)
    return "not measured" if lost is None or right is None else f"{right:.2f} % ({-lost:+.2f})"


def _sizes(rows: Sequence[Row]) -> Claim:
    gaps = [(row.size_bytes / row.predicted_bytes - 1, row) for row in rows if row.predicted_bytes]
    gap, worst = max(gaps, key=lambda one: abs(one[0]))
    return Claim(
        f"the size by stat is the predicted one within {100 * SIZE_TOLERANCE:g} %, every model of ours",
        f"{len(gaps)} models; at worst {100 * gap:+.3f} % ({worst.name} on {worst.on})",
        abs(gap) <= SIZE_TOLERANCE,
    )


def _same_elsewhere(rows: Sequence[Row]) -> Claim:
    pairs = [(row, row.score, row.reference) for row in rows if row.score and row.reference]
    says = f"every target gives the accuracy of the stitched model in torch within {ELSEWHERE:g} points"
    return _gaps(says, pairs, ELSEWHERE)


def _as_recorded(rows: Sequence[Row]) -> Claim:
    pairs = [(row, row.score, row.recorded) for row in rows if row.score and row.recorded]
    says = f"where it was searched, a model gives the accuracy recorded within {WHERE_SEARCHED:g} points"
    return _gaps(says, pairs, WHERE_SEARCHED)


def _gaps(says: str, pairs: Sequence[tuple[Row, Score, Score]], most: float) -> Claim:
    """Whether scores of the same models agree, on every split that both have."""
    gaps = [
        (abs(right - other.accuracy[split]), row, split, len(pairs))
        for row, pair, other in pairs
        for split, right in pair.accuracy.items()
        if split in other.accuracy
    ]
    if not gaps:
        return Claim(says, "no model was scored both ways", False)
    gap, row, split, _ = max(gaps, key=lambda one: one[0])
    figures = f"{len(pairs)} models; at most {gap:.2f} points ({row.name} on {row.on}, {split})"
    return Claim(says, figures, gap <= most)


def _faster_than_float(rows: Sequence[Row]) -> Claim:
    """Uniform and half pruned models, each beside the floats of as many rows, at every setting timed."""
    says = "no level offered as fast is slower than float on its target"
    found = []
    for row in rows:
        if not row.is_fast or row.level is None:
            continue
        rival = named(rows, float_of(row.level), row.on)
        for setting in row.seconds:
            ratio = times_faster(row, rival, setting)
            if ratio is not None:
                found.append((ratio, row, setting))
    if not found:
        return Claim(says, "no such level was timed", False)
    figures = f"{len(found)} comparisons; least " + "; ".join(_least_by_target(found))
    return Claim(says, figures, min(ratio for ratio, *_ in found) >= 1.0)


def _least_by_target(found: Sequence[tuple[float, Row, Setting]]) -> Iterator[str]:
    for on in dict.fromkeys(row.on for _, row, _ in found):
        ratio, row, (batch, sequence) = min(
            (timed for timed in found if timed[1].on == on), key=lambda timed: timed[0]
        )
        yield f"{ratio:.2f}x on {on} ({row.name}, batch {batch}, sequence {sequence})"
