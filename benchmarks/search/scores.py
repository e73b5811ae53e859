"""How good what a search has found is: dominated shares of boxes that are the same for every search.

- plane: (bytes, log KL). The box runs from the bytes of the smallest candidate to those of the uniform
  8-bit model, and from that model's KL to that of a model which has forgotten everything: one that
  answers every row with the mean of the teacher's answers. What lies beyond an edge counts as on it.
- speed: (bytes, ms, accuracy), from 0 bytes, 0 ms and 100 % to the original's bytes and milliseconds
  and the accuracy of always naming the commonest class.
- trade: (bytes, ms, log KL), like `speed` with the plane's log KL for accuracy: without the noise of it.

Only what a search itself measured counts; no search is given the uniform models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from autoprune.space.levels import Candidate, Level
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.pareto import hypervolume
from benchmarks.search.arena import Arena

MEASURES = {"plane": "bytes, log KL", "speed": "bytes, ms, accuracy", "trade": "bytes, ms, log KL"}


@dataclass(frozen=True)
class Ruler:
    """The reference points of one arena."""

    low_bytes: int
    high_bytes: int
    floor_kl: float
    top_kl: float
    reference: Measurement

    @classmethod
    def of(cls, arena: Arena) -> Ruler:
        """From the arena's anchors; the uniform 8-bit model is measured for its KL."""
        eight, _ = arena.evaluate(arena.space.uniform(Level.of(0.0, 8)))
        return cls(*arena.range_bytes, eight.kl, arena.evaluator.blank_kl, arena.reference)

    def score(self, measure: str, found: Iterable[Measurement]) -> float:
        """The share of a measure's box that was dominated."""
        if measure == "plane":
            return self._plane(found)
        if measure == "speed":
            return _volume(found, self.reference)
        faithful = [
            replace(measurement, accuracy=100.0 * self._faith(measurement.kl)) for measurement in found
        ]
        return _volume(faithful, replace(self.reference, accuracy=0.0))

    def _faith(self, kl: float) -> float:
        """1 at the floor of KL or below, 0 at the top or above, log KL between."""
        share = math.log(self.top_kl / max(kl, self.floor_kl)) / math.log(self.top_kl / self.floor_kl)
        return max(share, 0.0)

    def _plane(self, found: Iterable[Measurement]) -> float:
        span = self.high_bytes - self.low_bytes
        points = sorted(((m.size_bytes - self.low_bytes) / span, self._faith(m.kl)) for m in found)
        area, height, start = 0.0, 0.0, 0.0
        for x, faith in points:
            if faith > height and x < 1.0:
                area += (x - start) * height
                start, height = x, faith
        return area + (1.0 - start) * height


def _volume(found: Iterable[Measurement], reference: Measurement) -> float:
    nothing = Candidate(())
    return hypervolume((Trial(k, nothing, measurement) for k, measurement in enumerate(found)), reference)


def best_within(found: Sequence[Measurement], size_bytes: float) -> float:
    """The least KL of any no larger than this; infinite where none is."""
    return min((m.kl for m in found if m.size_bytes <= size_bytes), default=math.inf)
