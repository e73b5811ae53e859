"""What is claimed of our search, each with its figures, and whether they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.harness.claim import Claim
from benchmarks.search.joint import Joint
from benchmarks.search.methods import OPTUNA, OURS
from benchmarks.search.race import Curve

EARLY, LATE = 20, 100
NEAR_REFERENCE = 0.99
MORE_WITH_LATENCY = 0.10

Curves = Mapping[str, Sequence[Curve]]
"""Curves of one arena by method, one a seed."""


def claims_of(
    arena: str, curves: Curves, reference: Mapping[str, Any] | None, joint: Joint | None
) -> Iterator[Claim]:
    """All claims of an arena that what was run can answer."""
    if OURS in curves:
        late = min(LATE, len(curves[OURS][0].run.names))
        if reference is not None:
            yield _near_reference(arena, curves, reference, late)
        yield from (_sooner(arena, curves, other, late) for other in OPTUNA if other in curves)
        rest = [method for method in ("solver", "evolution") if method in curves]
        yield from (_better(arena, curves, other, late) for other in rest)
    if joint is not None:
        yield _no_worse(joint)
        yield _larger(joint)


def at(curves: Curves, method: str, measure: str, trials: int) -> list[float]:
    """Scores of a method after so many trials, one a seed."""
    return [curve.at(measure, trials) for curve in curves[method]]


def _near_reference(arena: str, curves: Curves, reference: Mapping[str, Any], late: int) -> Claim:
    goal, ours = reference["scores"]["plane"], at(curves, OURS, "plane", late)
    return Claim(
        f"{arena}: after {late} trials within 1 % of {reference['evaluations']:,} evaluations, every seed",
        f"{_span(ours)} of {goal:.4f}: {100 * (min(ours) / goal - 1):+.2f} % at worst",
        min(ours) >= NEAR_REFERENCE * goal,
    )


def _sooner(arena: str, curves: Curves, other: str, late: int) -> Claim:
    ours, theirs = at(curves, OURS, "plane", min(EARLY, late)), at(curves, other, "plane", late)
    return Claim(
        f"{arena}: after {min(EARLY, late)} trials ahead of Optuna's {other} after {late}, every seed",
        f"{_span(ours)} against {_span(theirs)}",
        min(ours) > max(theirs),
    )


def _better(arena: str, curves: Curves, other: str, late: int) -> Claim:
    ours, theirs = at(curves, OURS, "plane", late), at(curves, other, "plane", late)
    return Claim(
        f"{arena}: after {late} trials ahead of {other} after {late}, every seed",
        f"{_span(ours)} against {_span(theirs)}: {100 * (min(ours) / max(theirs) - 1):+.2f} % at worst",
        min(ours) > max(theirs),
    )


def _no_worse(joint: Joint) -> Claim:
    ratios = joint.ratios
    shown = " ".join(f"{ratio:.2f}" if ratio else "alone" for ratio in ratios)
    fit = sum(ratio <= 1.0 for ratio in ratios)
    return Claim(
        f"{joint.arena}: joint KL no worse than the better of quantize-only and prune-only at all budgets",
        f"{fit} of {len(ratios)}; joint over the better: {shown}",
        fit == len(ratios),
    )


def _larger(joint: Joint) -> Claim:
    gain = joint.gain("speed")
    return Claim(
        f"{joint.arena}: joint hypervolume in (bytes, ms, accuracy) at least 10 % above quantize-only",
        f"{joint.scores['joint']['speed']:.4f} against {joint.scores['quantize-only']['speed']:.4f}: "
        f"{100 * gain:+.1f} % (with log KL for accuracy {100 * joint.gain('trade'):+.1f} %)",
        gain >= MORE_WITH_LATENCY,
    )


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.4f}", f"{max(values):.4f}"
    return low if low == high else f"{low} to {high}"
