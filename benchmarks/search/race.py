"""One search on one arena, trial by trial, and what it had found at any trial or second."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import optuna

from autoprune.core.cache import cache_folder, content_key
from autoprune.core.files import read_json, write_json
from autoprune.space.trial import Measurement, Trial
from benchmarks.search.arena import Arena, candidate_named, name_of, open_arena
from benchmarks.search.methods import OPTUNA, READS_PREDICTIONS, open_search
from benchmarks.search.scores import Ruler

VERSION = 1
"""Raised when Optuna's samplers would be run differently: their runs are kept on disk."""


@dataclass(frozen=True)
class Run:
    """A search: names of its candidates, and the seconds after which each was finished."""

    arena: str
    method: str
    seed: int
    names: Sequence[str]
    seconds: Sequence[float]
    think_seconds: float

    def measurements(self, arena: Arena) -> list[Measurement]:
        """What each trial measured."""
        return [arena.evaluate(candidate_named(name, arena.space))[0] for name in self.names]


@cache
def known_arena(name: str, rows: int | None, steps: int = 0) -> Arena:
    """The arena, opened once a process."""
    return open_arena(name, rows, steps)


def run(name: str, rows: int | None, method: str, seed: int, trials: int) -> Run:
    """A search from start to end; those of Optuna's samplers are kept on disk (GP takes minutes)."""
    arena = known_arena(name, rows)
    if method not in OPTUNA:
        return search(arena, method, seed, trials)
    tables = arena.costs.as_json()
    key = content_key(VERSION, optuna.__version__, arena.evaluator.key, tables, method, seed, trials)
    path = cache_folder() / "benchmarks" / "runs" / f"{name}-{method}-{seed}-{key}.json"
    if not path.is_file():
        write_json(path, asdict(search(arena, method, seed, trials)))
    return Run(**read_json(path))


def search(arena: Arena, method: str, seed: int, trials: int) -> Run:
    """Ask, evaluate, tell, so many times."""
    names: list[str] = []
    seconds: list[float] = []
    clock = arena.setup_seconds if method in READS_PREDICTIONS else 0.0
    thought, start = clock, time.perf_counter()
    asking = open_search(method, arena, seed=seed, trials=trials)
    candidate = next(asking)
    while True:
        think = time.perf_counter() - start
        measurement, took = arena.evaluate(candidate)
        names.append(name_of(candidate))
        clock, thought = clock + think + took, thought + think
        seconds.append(clock)
        if len(names) == trials:
            asking.close()
            return Run(arena.name, method, seed, names, seconds, thought)
        start = time.perf_counter()
        try:
            # Rung 0: not fine-tuned.
            candidate = asking.send(Trial(-1, candidate, measurement, seconds=took, rung=0))
        except StopIteration:
            return Run(arena.name, method, seed, names, seconds, thought)


@dataclass(frozen=True)
class Curve:
    """A run's score by each measure after each trial."""

    run: Run
    scores: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, run: Run, arena: Arena, ruler: Ruler, measures: Sequence[str]) -> Curve:
        """Scores after 1, 2, ... trials."""
        found = run.measurements(arena)
        return cls(run, {m: [ruler.score(m, found[: k + 1]) for k in range(len(found))] for m in measures})

    def at(self, measure: str, trials: int) -> float:
        """Score after so many trials, or after all where the search ended sooner."""
        done = self.scores[measure]
        return done[min(trials, len(done)) - 1]

    def at_seconds(self, measure: str, seconds: float) -> float:
        """Score of the trials that were finished by then."""
        done = sum(second <= seconds for second in self.run.seconds)
        return self.at(measure, done) if done else 0.0

    def as_json(self) -> dict[str, Any]:
        """For `search.json`, rounded."""
        return {
            "arena": self.run.arena, "method": self.run.method, "seed": self.run.seed,
            "think_seconds": round(self.run.think_seconds, 2),
            "seconds": [round(second, 2) for second in self.run.seconds],
            **{name: [round(score, 5) for score in scores] for name, scores in self.scores.items()},
        }  # fmt: skip
