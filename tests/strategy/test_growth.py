"""The hypervolume that grows point by point is that of all points at once, whatever their order."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as some
import pytest

from autoprune.space.levels import Candidate
from autoprune.space.trial import Measurement, Trial
from autoprune.strategy.growth import Growth
from autoprune.strategy.pareto import hypervolume

REFERENCE = Measurement(10, 10.0, 0.0)
POINTS = some.lists(
    some.tuples(some.integers(1, 11), some.integers(1, 11), some.integers(0, 101)), min_size=1, max_size=12
)


def whole(points: list[tuple[int, int, int]]) -> float:
    """The slow truth: hypervolume of all of them."""
    trials = [
        Trial(k, Candidate(()), Measurement(size, float(ms), float(100 - wrong)))
        for k, (size, ms, wrong) in enumerate(points)
    ]
    return hypervolume(trials, REFERENCE)


@hypothesis.given(POINTS)
@hypothesis.settings(max_examples=60, deadline=None)
def test_after_each_point_it_is_the_hypervolume_so_far(points: list[tuple[int, int, int]]) -> None:
    growth = Growth((10.0, 10.0, 100.0))
    for count, (size, ms, wrong) in enumerate(points, start=1):
        before = growth.volume
        gained = growth.add((float(size), float(ms), float(wrong)))
        assert gained >= 0
        assert growth.volume == pytest.approx(before + gained)
        assert growth.volume == pytest.approx(whole(points[:count]), abs=1e-12)
    assert Growth((0.0, 10.0, 100.0)).add((0.0, 1.0, 1.0)) == 0.0
