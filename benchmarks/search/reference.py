"""A strong front by brute force: what 10,000 measurements find, to set 100 trials against.

A steady-state evolution over an archive, started from candidates of the solver at many sizes and prices
of latency and from random ones. Parents are drawn from the front in (bytes, KL), the front in (bytes, ms,
KL) and the front in (bytes, ms, accuracy); a child is a parent crossed with a front member of like size,
with one to three levels changed. Nothing is predicted after the start: every child is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.core.cache import cache_folder, content_key
from autoprune.core.files import read_json, write_json
from autoprune.space.trial import Measurement
from autoprune.strategy.solver.mckp import Problem, sweep
from benchmarks.search.arena import Arena, candidate_named, name_of
from benchmarks.search.methods import spread
from benchmarks.search.scores import MEASURES, Ruler

EVALUATIONS = 10_000
STARTS = {"solver": 300, "prices": 300, "random": 200}
REFRESH = 50
"""Children between two looks at which trials are on the fronts."""

CROSSED = 0.4
"""Share of children with two parents."""

VERSION = 1

Choice = NDArray[np.int64]


def reference(arena: Arena, ruler: Ruler, path: Path) -> dict[str, Any]:
    """The record at `path`, made again where it is not of this very arena.

    It holds the scores of all that was measured, and every member of a front in two or three of
    the objectives, with its levels.
    """
    key = content_key(VERSION, EVALUATIONS, arena.evaluator.key, arena.costs.as_json())
    kept = cache_folder() / "benchmarks" / f"reference-{key}.json"
    for file in (path, kept):
        if file.is_file() and (known := read_json(file))["key"] == key:
            return dict(known)
    found = dict(evolved(arena, EVALUATIONS))
    members = {name: found[name] for name in _members(found)}
    record = {
        "key": key,
        "arena": arena.name,
        "evaluations": len(found),
        "seconds": round(sum(arena.evaluate(candidate_named(n, arena.space))[1] for n in found), 1),
        "scores": {measure: ruler.score(measure, members.values()) for measure in MEASURES},
        "front [levels, size_bytes, latency_ms, kl, accuracy]": [
            [name, m.size_bytes, m.latency_ms, m.kl, m.accuracy] for name, m in members.items()
        ],
    }
    write_json(kept, record)
    return record


def evolved(arena: Arena, evaluations: int, seed: int = 0) -> Iterator[tuple[str, Measurement]]:
    """Candidates by name and what they measure, each once."""
    rng = np.random.default_rng(seed)
    problem = Problem.of(arena.space, arena.costs)
    chosen: list[Choice] = []
    points: list[tuple[float, ...]] = []
    seen: set[str] = set()
    waiting = list(_starts(problem, arena, rng))[::-1]
    fronts: list[Choice] = []
    while len(chosen) < evaluations:
        if not waiting:
            fronts = _fronts(np.array(points))
            waiting = [_child(fronts, chosen, points, problem, rng) for _ in range(REFRESH)]
        one = waiting.pop()
        candidate = problem.candidate(one)
        name = name_of(candidate)
        if name in seen:
            continue
        seen.add(name)
        m, _ = arena.evaluate(candidate)
        chosen.append(one)
        points.append((m.size_bytes, m.latency_ms, m.kl, -m.accuracy))
        yield name, m


def _starts(problem: Problem, arena: Arena, rng: np.random.Generator) -> Iterator[Choice]:
    low, high = arena.range_bytes
    for candidate in spread(problem, low, high, count=STARTS["solver"]):
        yield problem.chosen(candidate)
    prices = np.array([0.1, 1.0, 10.0]) * np.nanmedian(problem.damage[problem.offered]) / _typical_ms(problem)
    targets = low * (high / low) ** np.linspace(0, 1, STARTS["prices"] // len(prices))
    yield from sweep(problem, targets, prices)
    counts = np.array([len(level) for level in problem.levels])
    for _ in range(STARTS["random"]):
        yield rng.integers(counts)


def _typical_ms(problem: Problem) -> float:
    return max(float(np.median(problem.latency_ms[problem.offered])), 1e-9)


def _fronts(points: NDArray[np.float64]) -> list[Choice]:
    """Trials on the fronts in (bytes, KL), (bytes, ms, KL) and (bytes, ms, accuracy)."""
    return [undominated(points[:, columns]) for columns in ([0, 2], [0, 1, 2], [0, 1, 3])]


def _child(
    fronts: Sequence[Choice],
    chosen: Sequence[Choice],
    points: Sequence[tuple[float, ...]],
    problem: Problem,
    rng: np.random.Generator,
) -> Choice:
    front = fronts[rng.choice(len(fronts), p=[0.5, 0.35, 0.15])]
    parent = rng.choice(front)
    child: Choice = chosen[parent].copy()
    if rng.random() < CROSSED:
        sizes = np.array([math.log(points[k][0]) for k in front])
        near = front[np.argsort(np.abs(sizes - math.log(points[parent][0])))[:12]]
        child = np.where(rng.random(len(child)) < 0.5, child, chosen[rng.choice(near)])
    for unit in rng.choice(len(child), size=min(len(child), int(rng.integers(1, 4))), replace=False):
        child[unit] = rng.integers(len(problem.levels[unit]))
    return child


def undominated(points: NDArray[np.float64]) -> Choice:
    """Indices of the points [n d] that none is nowhere above and somewhere below."""
    order = np.lexsort(points.T[::-1])
    kept: list[int] = []
    front = np.empty((0, points.shape[1]))
    for k in order:  # what dominates a point comes before it
        if not (front <= points[k]).all(1).any():
            kept.append(int(k))
            front = np.vstack([front, points[k]])
    return np.array(kept)


def _members(found: dict[str, Measurement]) -> list[str]:
    """Names of those on any of the fronts, smallest first."""
    names = list(found)
    points = np.array([(m.size_bytes, m.latency_ms, m.kl, -m.accuracy) for m in found.values()])
    members = sorted(set(np.concatenate(_fronts(points)).tolist()), key=lambda k: tuple(points[k]))
    return [names[k] for k in members]
